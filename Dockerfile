# One image a service: docker build --target service --build-arg SERVICE=gateway .
# and one with the command line: docker build --target tools --build-arg SERVICE=laptop .
# An image holds its service's code and what its lock pins, nothing else.
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS packages
ARG SERVICE
COPY requirements/${SERVICE}.txt /lock.txt
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r /lock.txt

FROM python:${PYTHON} AS base
RUN useradd --uid 10001 --create-home ouroboros
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=packages /venv /venv
COPY LICENSE ./
COPY spine ./spine
COPY services/__init__.py ./services/__init__.py

FROM base AS tools
COPY services ./services
COPY ouroboros ./ouroboros
USER 10001
ENTRYPOINT ["python", "-m", "ouroboros"]

FROM base AS service
ARG SERVICE
# A container's own 127.0.0.1 is nobody else's: /metrics and /readyz are for those beside it.
ENV SERVICE=${SERVICE} OUROBOROS_METRICS_HOST=0.0.0.0
COPY services/${SERVICE} ./services/${SERVICE}
USER 10001
ENTRYPOINT ["sh", "-c", "exec python -m services.$SERVICE"]
