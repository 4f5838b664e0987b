# `make demo` and `make test` each work alone in a fresh clone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check format lock lock-images lock-cpu clean

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

# A process for each core, a file of tests at a time. With more threads than cores, those that wait keep others from computing.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test: setup  ## run all tests (ARGS="-k name" picks some, ARGS=-n0 runs them in one process)
	$(PYTEST) $(ARGS)

test-fast: setup  ## run the tests that take no more than a few seconds each
	$(PYTEST) -m "not slow" $(ARGS)

check: setup  ## lint, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

UV_COMPILE := uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11
FOR_IMAGES := $(UV_COMPILE) --no-annotate --constraint requirements.lock
# What only PyTorch's CUDA build needs; its CPU build is on an index of its own (docker/torch-cpu.txt).
CUDA_ONLY = $(shell sed -nE 's/^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==.*/--no-emit-package \1/p' docker/service.lock)

lock: setup  ## resolve requirements.lock and the images' locks anew (needs uv on the path)
	$(UV_COMPILE) --all-extras --upgrade pyproject.toml -o requirements.lock
	$(MAKE) lock-images

lock-images:  ## bring the images' locks in docker/ to the versions of requirements.lock (needs uv)
	$(FOR_IMAGES) --extra postgres --extra s3 pyproject.toml -o docker/service.lock
	$(FOR_IMAGES) --extra postgres --extra s3 $(CUDA_ONLY) pyproject.toml -o docker/service-cpu.lock
	$(FOR_IMAGES) --extra training pyproject.toml -o docker/training.lock
	echo hatchling | $(FOR_IMAGES) - -o docker/build.lock
	sed -nE 's/^(torch|torchvision)==([0-9.]+).*/\1==\2+cpu/p' docker/service.lock > docker/torch-cpu.txt

lock-cpu: lock-images  ## add hashes to docker/torch-cpu.txt (needs uv, and PyTorch's CPU index to be reachable)
	uv pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  --default-index https://download.pytorch.org/whl/cpu docker/torch-cpu.txt -o docker/torch-cpu.txt

clean:  ## remove what demo and tests have made (not .venv, not artifacts)
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
