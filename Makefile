# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Install everything into .venv (does nothing when it is up to date)

# uv resolves and installs in a third of pip's time; pip brings it, so nothing else has to be there.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"expected Python 3.11 or newer, found {sys.version.split()[0]}; try make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[dev]'
	@touch $@

demo: setup  ## Run the whole job on a phantom archive; the report is demo/report.html
	$(BIN)/spinemet demo demo

test: setup  ## Run the tests
	$(BIN)/python -m pytest --numprocesses 1

check: setup  ## Format, lint, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## Measure speed and memory; figures go to bench/
	$(BIN)/python -m tests.bench $(ONLY)

clean:  ## Remove the environment and everything the demo and the benchmarks made
	rm -rf $(VENV) demo bench
