# `make help` lists the targets.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench lock clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Install everything into .venv, in the versions of requirements.lock

# uv installs in a third of pip's time. pip installs uv, so Python alone is enough to begin with.
$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"SpineMet needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): pyproject.toml $(LOCK) | $(BIN)/uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --requirement $(LOCK)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --build-constraints $(LOCK) --editable .
	@touch $@

demo: setup  ## Run the whole job on a phantom archive; the report is demo/report.html
	$(BIN)/spinemet demo demo

test: setup  ## Run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

check: setup  ## Check format, lint, types and the import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## Measure speed and memory; ONLY=name runs one benchmark
	$(BIN)/python -m tests.bench $(ONLY)

# The lock holds versions and hashes, and no index. It installs from any index or mirror that uv is set up to use
# (UV_DEFAULT_INDEX), and uv refuses a file with another hash. uv.lock would store the URL of every file instead, and so
# bind the project to one index. The lock is valid for Linux (x86-64, aarch64), macOS (arm64) and Python 3.11 to 3.13.
# "fewest" chooses one version of each package for all these Pythons, so that all run what the tests ran with.
lock: $(BIN)/uv  ## Renew requirements.lock after a change of dependencies, or to take up new versions
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	    --no-annotate --extra dev --custom-compile-command 'make lock' --output-file $(LOCK) pyproject.toml

clean:  ## Remove the environment and everything that the demo and the benchmarks made
	rm -rf $(VENV) demo bench
