# `make demo` and `make test` each work alone in a fresh clone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check format lock clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# The stamp is younger than the lock and the project's metadata when the environment is up to date.
$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "JigSight needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(VENV)/.ready  ## make .venv with the `jigsight` command in it

demo: setup  ## sample parts -> train -> serve -> inspect over HTTP (ARGS=--once ends by itself)
	$(BIN)/jigsight demo $(ARGS)

test: setup  ## run all tests (ARGS="-k name" picks some)
	$(BIN)/python -m pytest $(ARGS)

test-fast: setup  ## run the tests that take no more than a few seconds each
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

check: setup  ## lint, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## resolve requirements.lock anew (needs uv on the path)
	uv pip compile --universal --all-extras --generate-hashes --no-header --python-version 3.11 --upgrade pyproject.toml -o requirements.lock

clean:  ## remove what demo and tests have made (not .venv, not artifacts)
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
