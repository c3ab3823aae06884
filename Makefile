# Everything is set up by these targets themselves: a .venv beside this file, from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test lint bench gpu drill clean

help:
	@echo "make demo    set up, train the quick study on real text, fit it and write a page (minutes)"
	@echo "make test    set up, lint, type-check and run every test"
	@echo "make bench   set up and print the speeds that the README claims"
	@echo "make gpu     set up, run the tests that need a GPU and measure its speeds (docs/gpu.md)"
	@echo "make drill   set up and inject faults into small studies (docs/faults.md); SEED=... repeats one"
	@echo "make lint    format check, lint, types and the walls between the packages"
	@echo "make setup   only the virtual environment"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$$(grep '^torch==' requirements.lock)" -c requirements.lock
	$(BIN)/pip install --quiet --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $(READY)

demo: $(READY)
	$(BIN)/python sweep.py -m study=quick study.evaluate=corpus
	$(BIN)/python -m analysis report studies/quick

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

bench: $(READY)
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/fit.py

# Without a GPU both say that they are skipped and end with 0.
gpu: $(READY)
	$(BIN)/python -m pytest tests/gpu -rs --timeout 240
	$(BIN)/python benchmarks/gpu.py --table gpu.md

SEED ?= 0
drill: $(READY)
	$(BIN)/python -m tests.drill --seed "$(SEED)"

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache
