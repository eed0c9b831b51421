# make demo and make test need Python 3.11 or newer, git and make, and nothing else set up by hand.
# PYTHON=python3.12 make test    chooses the Python
# PYTEST="-x -k lease" make test passes words on to pytest

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

# The first Python that is new enough.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST ?=
comma := ,

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# -- to see it, and to trust it --

.PHONY: demo
demo: $(VENV)/.demo ## the demo, to its end; unattended when there is no terminal
	$(BIN)/axme-celery demo $$([ -t 0 ] || echo --yes)

.PHONY: test
test: $(VENV)/.test ## the whole test suite, against real PostgreSQL, Redis and RabbitMQ
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(PYTEST)

.PHONY: chaos
chaos: $(VENV)/.test ## thousands of crashes at every commit and publish; prints the figures and the seed
	$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: soak
soak: $(VENV)/.test ## hours of load with workers, brokers and databases failing
	$(BIN)/python -m tests.chaos soak $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.test ## 10,000 requests made up from the OpenAPI document, with every check there is
	$(BIN)/python -m tests.web.fuzz $(ARGS)

.PHONY: bench
bench: $(VENV)/.bench ## the benchmarks, written to docs/benchmarks.md
	$(BIN)/python -m tests.bench $(ARGS)

.PHONY: celery-suite
celery-suite: $(VENV)/.test ## Celery's own tests without us and with us; ARGS=integration for those on a Redis, half an hour
	$(BIN)/python -m tests.celery_suite $(ARGS)

.PHONY: experiments
experiments: $(VENV)/.test ## what kills do to plain Celery and to the same tasks here; written to docs/guarantees.md
	$(BIN)/python -m tests.experiments $(ARGS)

.PHONY: live
live: $(VENV)/.test ## from a click to the task, a thousand live pages, a thousand cuts; prints the figures
	$(BIN)/python -m tests.live $(ARGS)

.PHONY: browser
browser: $(VENV)/.test ## the pages in a real browser, with pictures of them in build/pages
	AXME_PICTURES=build/pages CI=true $(BIN)/python -m pytest tests/browser $(PYTEST)

.PHONY: docs
docs: $(VENV)/.test ## the parts of the pages that are written from the code
	$(BIN)/python -m tests.docs.draw_lifecycle
	$(BIN)/python -m tests.docs.write_reference
	$(BIN)/python -m tests.migrating

# -- what keeps the house in order --

.PHONY: lint
lint: $(VENV)/.lint ## ruff
	$(BIN)/ruff check .

.PHONY: types
types: $(VENV)/.lint ## mypy --strict on the package
	$(BIN)/mypy

.PHONY: contracts
contracts: $(VENV)/.lint ## who may import whom
	$(BIN)/lint-imports --no-logo

.PHONY: wheel
wheel: $(VENV)/.made ## build the wheel, and try it in an empty environment
	rm -rf dist
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m tests.wheel dist/*.whl

.PHONY: clean
clean: ## remove the environment and what was built
	rm -rf $(VENV) dist build

# -- the environment, filled anew when pyproject.toml changes --

$(VENV)/.made:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed$(if $(PYTHON),$(comma) and $(PYTHON) is not): install one, and say make PYTHON=/path/to/it ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian, Ubuntu: apt-get install python$$version-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# Groups of dependencies need pip 25.1.
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: INSTALL = -e '.[demo]'
$(VENV)/.test: INSTALL = -e '.[web,gevent,metrics,oidc]' --group test
$(VENV)/.lint: INSTALL = -e '.[web,metrics,oidc,otel]' --group lint
$(VENV)/.bench: INSTALL = -e '.[web,metrics]' --group test --group bench

$(VENV)/.demo $(VENV)/.test $(VENV)/.lint $(VENV)/.bench: pyproject.toml | $(VENV)/.made
	$(PIP) install --quiet $(INSTALL)
	@touch $@
