# Two commands: `make demo` and `make test`. Each installs what it needs into .venv first.

PYTHON ?= python3
DEMO ?= demo
ARGS ?=
# Two at once: a test that starts Ray fills two cores. A file's tests stay together: they share models.
PARALLEL ?= -n 2 --dist loadfile
BENCH ?= $(sort $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))

VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint check bench clean
.NOTPARALLEL:

help:
	@echo "make demo       install, render a small footage set, ingest it, say what was made and where"
	@echo "make test       install, run the tests (ARGS='-k cuts' narrows them)"
	@echo "make test-slow  run the slow tests too"
	@echo "make check      formatting, lint, types, tests"
	@echo "make bench      run the benchmarks (BENCH=benchmarks/NAME.py runs one)"
	@echo "make clean      remove .venv, the demo and all caches"

demo: $(VENV)/.telecine
	$(BIN)/telecine demo $(DEMO)

test: $(VENV)/.dev
	$(BIN)/pytest $(PARALLEL) -m "not slow" $(ARGS)

test-slow: $(VENV)/.dev
	$(BIN)/pytest $(PARALLEL) $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict -p telecine

check: lint test

bench: $(VENV)/.dev
	@set -e; for script in $(BENCH); do echo "== $$script"; $(BIN)/python $$script $(ARGS); done

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is as old as the installation it stands for; pyproject.toml says what to install, and
# constraints.txt which version: without it pip would take a newer torch, a build of gigabytes.
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt

$(VENV)/.telecine: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Telecine needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`." >&2; \
	  echo "Name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[prepare]'
	@touch $@

$(VENV)/.dev: $(VENV)/.telecine
	$(INSTALL) -e '.[dev]'
	# Its s3fs wants an older botocore than boto3 does; lists of local shards need neither.
	$(INSTALL) --no-deps megatron-energon
	@touch $@
