"""The HTTP API.  (a door)

`POST /v1/images` is the hot path: `Front` hands it to `Ingest` directly, past the framework's
layers. Everything else is plain FastAPI; all of it is in the OpenAPI document.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Path, Query
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway import (
    accept,
    bodies,
    describe,
    erase,
    ingest,
    lookups,
    pages,
    problems,
    stream,
)
from services.gateway.callers import address
from services.gateway.desk import Desk
from services.gateway.ingest import Accepted
from services.gateway.problems import Problem
from services.gateway.served import listing
from spine import telemetry, tracing
from spine.envelope import TRACEPARENT

JSON = "application/json"
IMAGES = "/v1/images"
RETRY_SECONDS = "1"
# Longer than the 60 s that a load balancer keeps idle connections, or it meets closed ones.
KEEP_ALIVE_SECONDS = 75
ImageId = Annotated[str, Path(description="The image's id, as POST gave it")]
log = telemetry.logger(__name__)


def make(desk: Desk) -> ASGIApp:
    """The whole application."""
    return Front(desk, api(desk))


def api(desk: Desk) -> FastAPI:
    """Every route; what the OpenAPI document is made of."""
    app = FastAPI(**describe.DOCUMENT)
    _image_routes(app, desk)
    _collection_routes(app, desk)
    _health_routes(app, desk)
    _page_routes(app)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_problem)
    app.add_exception_handler(Exception, _on_problem)
    contract = document(app)
    app.openapi = lambda: contract  # type: ignore[method-assign]
    return app


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, as it is checked in under `spine/contracts/`."""
    made = get_openapi(
        title=app.title,
        version="1",  # of the API; the product's own would change the contract at each release
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    made.setdefault("components", {})["securitySchemes"] = describe.SECURITY
    return made


class Server(uvicorn.Server):
    """Serves `app` until a signal or `failing`. `drain` is called at the signal, before anything
    closes; what is open `grace_seconds` later is closed all the same."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        grace_seconds: float,
        drain: Callable[[], None],
        failing: Callable[[], bool],
    ) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, int(grace_seconds)),
        )
        super().__init__(config)
        self._drain = drain
        self._failing = failing

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours instead of uvicorn's, which raises the signal again and so would end the process
        before the stages have drained."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        yield

    async def on_tick(self, counter: int) -> bool:
        if self._failing() and not self.should_exit:
            self._asked_to_stop()
        return await super().on_tick(counter)

    def _asked_to_stop(self) -> None:
        self._drain()
        self.should_exit = True


class Front:
    """The outermost layer: traces, counts, and the short way of the hot path."""

    def __init__(self, desk: Desk, app: ASGIApp) -> None:
        self._desk = desk
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"traceparent")
        sound = given is not None and TRACEPARENT.fullmatch(given)
        scope["trace"] = tracing.follow(given if sound else None)
        if scope["path"] == IMAGES and scope["method"] == "POST":
            response = await post(self._desk, scope, headers, receive)
            telemetry.REQUESTS.labels(IMAGES, response.status_code).inc()
            await response(scope, receive, send)
            return
        await self._app(scope, receive, _counted(scope, send))


async def post(
    desk: Desk, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive
) -> Response:
    """Take in one image and say what came of it."""
    trace = scope["trace"]
    request = ingest.Request(headers, scope["query_string"], trace)
    try:
        return _accepted(await ingest.post(desk, request, receive), trace)
    except Problem as problem:
        if problem.status in (401, 403):
            peer = (scope.get("client") or ("",))[0]
            where = address(headers, peer, desk.settings.trusted_hops)
            log.warning("refused", code=problem.code, address=where)
        return _refused(problem, trace)
    except bodies.Gone:
        return Response(status_code=400)
    except Exception:
        log.error("a bug on the way in", exc_info=True, trace_id=tracing.trace_id(trace))
        return _refused(problems.internal(), trace)


def _accepted(accepted: Accepted, trace: bytes) -> Response:
    sidecar, outcome = accepted.sidecar, accepted.outcome
    headers = {
        "Location": f"{IMAGES}/{sidecar.image_id}",
        "X-Trace-Id": tracing.trace_id(trace),
        **accepted.fields,
    }
    if outcome is not None:
        return Response(outcome.answer, 200, headers, JSON)
    ticket = accept.pending(sidecar.image_id, sidecar.model, sidecar.received_at)
    return Response(ticket, 202, {**headers, "Retry-After": RETRY_SECONDS}, JSON)


def _image_routes(app: FastAPI, desk: Desk) -> None:
    @app.get(IMAGES + "/{image_id}", **describe.GET_IMAGE)
    async def get_image(
        request: Request,
        image_id: ImageId,
        wait: Annotated[float, Query(ge=0, description="Seconds to wait for the answer")] = 0,
    ) -> Response:
        caller = await desk.callers.of(_headers(request), "submit")
        seconds = min(wait, desk.settings.patience_seconds)
        if seconds > 0:
            found = await lookups.awaited(desk, image_id, caller.client_id, seconds)
        else:
            found = await lookups.image(desk, image_id, caller.client_id)
        if found.outcome is not None:
            return Response(found.outcome.answer, 200, media_type=JSON)
        return Response(found.ticket, 202, {"Retry-After": RETRY_SECONDS}, JSON)

    @app.get(IMAGES + "/{image_id}/events", **describe.GET_EVENTS)
    async def get_events(request: Request, image_id: ImageId) -> Response:
        caller = await desk.callers.of(_headers(request), "submit")
        found = await lookups.image(desk, image_id, caller.client_id)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        said = await stream.opened(desk, found, caller.client_id)
        return StreamingResponse(said, 200, headers, "text/event-stream")

    @app.delete(IMAGES + "/{image_id}", **describe.DELETE_IMAGE)
    async def delete_image(request: Request, image_id: ImageId) -> Response:
        caller = await desk.callers.of(_headers(request), "submit")
        await erase.erase(desk, image_id, caller.client_id, request.scope["trace"])
        return Response(status_code=204)


def _collection_routes(app: FastAPI, desk: Desk) -> None:
    @app.post(IMAGES, **describe.POST_IMAGE)
    async def post_image(request: Request) -> Response:
        return await post(desk, request.scope, _headers(request), request.receive)

    @app.get(IMAGES, **describe.GET_IMAGES)
    async def get_images(
        request: Request,
        limit: Annotated[int, Query(description="Images a page, 1 to 200")] = 50,
        cursor: Annotated[str | None, Query(description="`next` of the page before")] = None,
        state: Annotated[str | None, Query(description="Only images in this state")] = None,
        model: Annotated[str | None, Query(description="Only images of this model")] = None,
    ) -> Response:
        caller = await desk.callers.of(_headers(request), "submit")
        body = await lookups.page(desk, caller.client_id, limit, cursor, state=state, model=model)
        return Response(body, media_type=JSON)

    @app.get("/v1/models", **describe.GET_MODELS)
    async def get_models(request: Request) -> Response:
        await desk.callers.of(_headers(request), None)
        return Response(listing(desk.served), media_type=JSON)


def _health_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/livez", **describe.LIVEZ)
    async def livez() -> Response:
        return Response("alive\n", media_type="text/plain")

    @app.get("/readyz", **describe.READYZ)
    async def readyz() -> Response:
        if desk.pulse.ready:
            return Response("ready\n", media_type="text/plain")
        why = "draining" if desk.pulse.draining else desk.pulse.away
        return Response(f"not ready: {why}\n", 503, media_type="text/plain")

    @app.get("/metrics", **describe.METRICS)
    async def metrics() -> Response:
        page, kind = telemetry.metrics()
        return Response(page, media_type=kind)


def _page_routes(app: FastAPI) -> None:
    """The page's own addresses are no part of the API, and so not of its document."""
    parameters = dict(pages.PARAMETERS)
    shown = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=app.title,
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon-32x32.png",
        swagger_ui_parameters=parameters,
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return shown

    @app.get("/docs/{name}", include_in_schema=False)
    async def docs_file(name: str) -> Response:
        found = pages.asset(name)
        if found is None:
            raise HTTPException(404)
        headers = {"Cache-Control": "max-age=3600"}
        return Response(found, 200, headers, pages.KINDS[name])


def _headers(request: Request) -> dict[bytes, bytes]:
    return dict(request.scope["headers"])


def _counted(scope: Scope, send: Send) -> Send:
    """Count the request by its route's pattern; addresses that are none count together."""

    async def counting(message: Any) -> None:
        if message["type"] == "http.response.start":
            route = getattr(scope.get("route"), "path", "other")
            telemetry.REQUESTS.labels(route, message["status"]).inc()
        await send(message)

    return counting


async def _on_problem(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        problem = problems.of_status(error.status_code)
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        problem = Problem("request.invalid", f"{first['loc'][-1]}: {first['msg']}.")
    elif isinstance(error, Problem):
        problem = error
    else:
        problem = problems.internal()  # the framework raises it again, so that it is logged
    return _refused(problem, request.scope["trace"])


def _refused(problem: Problem, trace: bytes) -> Response:
    trace_id = tracing.trace_id(trace)
    headers = {"X-Trace-Id": trace_id, **problem.headers}
    body = problems.body(problem, trace_id)
    return Response(body, problem.status, headers, problems.MEDIA_TYPE)
