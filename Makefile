# The front door: `make demo` shows it all, `make test` proves it. Each sets up what it needs.
.DEFAULT_GOAL := help
.PHONY: help demo test bench check lock kafka s3 postgres contracts format clean
PYTHON_IN := .venv/bin/python
LOCKS := gateway preclassifier classifier laptop dev
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .venv/bin/uv)
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header \
	--python-version 3.11
ARGS ?=
# Test processes side by side; each starts its own Kafka.
WORKERS ?= 2

help: ## this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
		while IFS="$$(printf '\t')" read -r name what; do \
			printf '  \033[1mmake %-10s\033[0m %s\n' "$$name" "$$what"; done

demo: .venv/.laptop .venv/.kafka ## start everything, classify images it never saw (ARGS=--exit: then stop)
	@.venv/bin/ouroboros demo $(ARGS)

test: .venv/.dev .venv/.kafka check ## every check and test, on real parts (ARGS="-k name" picks some)
	@$(PYTHON_IN) -m ouroboros.parts tools
	$(PYTHON_IN) -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

bench: .venv/.dev .venv/.kafka ## how fast it is, beside the machine's raw limit
	@$(PYTHON_IN) -m bench $(ARGS)

check: .venv/.dev ## format, lint and types
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy

format: .venv/.dev ## put the format right, and what lint can mend
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

lock: ## pin every dependency anew, with hashes (UPGRADE=--upgrade: to the newest)
	@for name in $(LOCKS); do echo "requirements/$$name.txt"; \
		$(COMPILE) $(UPGRADE) pyproject.toml --extra $$name -o requirements/$$name.txt || exit 1; done
	@echo uv | $(COMPILE) $(UPGRADE) - -o requirements/uv.txt

kafka: .venv/.laptop .venv/.kafka ## a Kafka broker, until Ctrl-C (ARGS="--nodes 3" or --secure)
	@$(PYTHON_IN) -m ouroboros.parts kafka $(ARGS)

s3: .venv/.laptop ## an S3 server, until Ctrl-C
	@$(PYTHON_IN) -m ouroboros.parts s3 $(ARGS)

postgres: .venv/.dev ## a PostgreSQL server, until Ctrl-C
	@$(PYTHON_IN) -m ouroboros.parts postgres $(ARGS)

contracts: .venv/.dev ## write the schemas and the AsyncAPI document from the code
	@$(PYTHON_IN) -m spine.schemas

clean: ## remove what was built here (not your data in .ouroboros)
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Stamps: a set-up step runs again when its lock changes.
.venv/.laptop: requirements/laptop.txt pyproject.toml | scripts/setup
	@scripts/setup python laptop
	@touch $@

.venv/.dev: requirements/dev.txt pyproject.toml | scripts/setup
	@scripts/setup python dev
	@touch $@ .venv/.laptop

.venv/.kafka: pom.xml | scripts/setup
	@test -x $(PYTHON_IN) || $(MAKE) --no-print-directory .venv/.laptop
	@scripts/setup kafka
	@touch $@
