# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help env demo test test-slow gpu lint clean

help:  ## What can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 14

env: $(READY)  ## The environment, with the tested versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

demo: env  ## Train, export and benchmark on the embedded reviews
	$(BIN)/kotune run configs/suites/demo.yaml

test: env  ## The tests
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-slow: env  ## The longer proofs
	$(BIN)/python -m pytest -m slow

gpu: env  ## The tests that need CUDA
	$(BIN)/python -m pytest -m gpu

lint: env  ## Style and import order
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:  ## Remove what was made, not the environment
	rm -rf runs artifacts reports build dist *.egg-info
