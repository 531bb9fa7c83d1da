# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FIVE ?= .venv-transformers5
GPU ?= .venv-gpu
READY := $(VENV)/.ready
ARTIFACT ?= artifacts/demo-lora
TEST_WORKERS ?= 2

.PHONY: help env demo browser test test-slow test-transformers5 test-all-transformers5 encoders encoders-transformers5 gpu lint clean

help:  ## What can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 14

env: $(READY)  ## The environment, with the tested versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,optimum]"
	touch $(READY)

demo: env  ## Train, export and benchmark on the embedded reviews
	$(BIN)/kotune run configs/suites/demo.yaml

browser: env  ## Serve a page with ARTIFACT=artifacts/NAME (needs npm)
	cd examples/browser && { [ -d node_modules ] || npm ci; }
	$(BIN)/python examples/browser/serve.py $(ARTIFACT)

test: env  ## The tests
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m "not slow and not gpu" \
	  -n $(TEST_WORKERS) --dist loadfile --durations 25

test-slow: env  ## The longer proofs
	$(BIN)/python -m pytest -m slow

test-transformers5: $(FIVE)/.ready  ## With transformers 5: export, training, resume, clients
	OMP_WAIT_POLICY=passive $(FIVE)/bin/python -m pytest -m "not slow and not gpu" \
	  -n $(TEST_WORKERS) --dist loadfile $$(cat tests/transformers5.txt)

test-all-transformers5: $(FIVE)/.ready  ## With transformers 5: all tests
	OMP_WAIT_POLICY=passive $(FIVE)/bin/python -m pytest -m "not slow and not gpu" \
	  -n $(TEST_WORKERS) --dist loadfile

encoders: env  ## Every encoder family the whole way; writes its half of docs/encoders.md
	KOTUNE_ENCODERS=1 $(BIN)/python -m pytest -m slow tests/export/test_encoders.py

encoders-transformers5: $(FIVE)/.ready  ## The same with transformers 5
	KOTUNE_ENCODERS=1 $(FIVE)/bin/python -m pytest -m slow tests/export/test_encoders.py

# transformers 5 and no Optimum, whose ONNX export holds transformers below 4.58
$(FIVE)/.ready: pyproject.toml constraints-transformers5.txt
	$(PYTHON) -m venv $(FIVE)
	$(FIVE)/bin/python -m pip install --quiet --constraint constraints-transformers5.txt torch
	$(FIVE)/bin/python -m pip install --quiet --constraint constraints-transformers5.txt --editable ".[dev]"
	touch $(FIVE)/.ready

gpu: $(GPU)/.ready  ## On a GPU: its tests, then a report of every precision
	$(GPU)/bin/python -m pytest -m gpu tests/gpu
	$(GPU)/bin/kotune bench configs/suites/gpu-roberta-large-random.yaml
	@if [ -n "$$KOTUNE_NSMC" ] && [ -n "$$KOTUNE_E5" ]; then \
	  test -d .cache/e5-small-ko || $(GPU)/bin/python "$$KOTUNE_E5/unpack.py" .cache/e5-small-ko; \
	  $(GPU)/bin/kotune bench configs/suites/gpu-nsmc-e5.yaml; \
	else echo "KOTUNE_NSMC and KOTUNE_E5 are not set: no accuracy report"; fi

# onnxruntime-gpu takes the place of onnxruntime, so it gets an environment of its own
$(GPU)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(GPU)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,gpu,optimum]"
	$(GPU)/bin/python -m pip uninstall --quiet --yes onnxruntime
	$(GPU)/bin/python -m pip install --quiet onnxruntime-gpu
	touch $(GPU)/.ready

lint: env  ## Style and import order
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:  ## Remove what was made, not the environment
	rm -rf runs artifacts reports build dist *.egg-info
