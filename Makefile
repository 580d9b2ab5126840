# One word each. The environment is .venv; uv is taken from PyPI when it is not there.
SHELL := /bin/bash
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
STAMP := .venv/.ready

.PHONY: setup demo test lint run bench docs clients conformance docker fuzz chaos clean

setup: $(STAMP)

$(STAMP): pyproject.toml uv.lock
	@command -v $(UV) >/dev/null 2>&1 || { $(PYTHON) -m venv .uv && .uv/bin/pip install --quiet uv; }
	$(UV) sync --quiet --frozen --python $(PYTHON) --extra ml --extra dev --extra docker --inexact --compile-bytecode
	@touch $@

demo: setup
	.venv/bin/penstock demo

run: setup
	.venv/bin/penstock up

# Two files at a time: the tests wait for processes as much as they compute.
test: setup
	.venv/bin/python -m pytest -n 2 --dist loadfile

lint: setup
	.venv/bin/ruff check .
	.venv/bin/mypy

bench: setup
	.venv/bin/python -m bench $(ARGS)

chaos: setup
	.venv/bin/python -m tests.crash.chaos $(ARGS)

conformance: setup
	.venv/bin/python -m tests.conformance $(SOURCE) $(ARGS)

fuzz: setup
	.venv/bin/python -m tests.fuzz $(ARGS)

docker: setup
	PENSTOCK_TEST_DOCKER=$${PENSTOCK_TEST_DOCKER:-auto} .venv/bin/python -m pytest tests/contract/test_executor_contract.py tests/journeys/test_containers.py -k "Docker or containers"

clients: setup
	.venv/bin/python -m tests.clients

docs: setup
	.venv/bin/python -m penstock.cli.reference docs

clean:
	rm -rf .venv .clients .mypy_cache .ruff_cache .pytest_cache
