# Each target makes its own environment in .venv at the first call; later calls start at once.
# PYTHON chooses the interpreter (3.11 or later), PYTEST_ARGS is handed to pytest.

# The first of these that runs and is new enough (a pyenv shim may exist and not run).
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?= -n 2

.PHONY: demo test check bench format venv clean

demo: $(STAMP)
	$(BIN)/meddift demo --out meddift-demo

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Quick rows; everything with BENCH_ARGS=--full.
bench: $(STAMP)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(STAMP)

# Installed anew whenever what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build dist meddift-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
