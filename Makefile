# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FIVE ?= .venv-transformers5
GPU ?= .venv-gpu
# GPU_PYTHON=python3 takes an environment that is there, and installs nothing
ifdef GPU_PYTHON
GPU_READY :=
else
GPU_PYTHON := $(GPU)/bin/python
GPU_READY := $(GPU)/.ready
endif
READY := $(VENV)/.ready
ARTIFACT ?= artifacts/demo-lora
TEST_WORKERS ?= 2

.PHONY: help env demo browser test test-slow test-transformers5 test-all-transformers5 encoders encoders-transformers5 lint clean
.PHONY: gpu gpu-tests gpu-plan gpu-train gpu-bench gpu-accuracy

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

gpu: gpu-tests gpu-plan gpu-train gpu-bench  ## On a GPU: its tests, then the plan, training and speed, each with its report

gpu-tests: $(GPU_READY)  ## The tests that need a GPU (reports/gpu-tests.xml)
	$(GPU_PYTHON) -m pytest -m gpu tests/gpu -p no:cacheprovider --junitxml reports/gpu-tests.xml

gpu-plan: $(GPU_READY)  ## Planned memory against measured (reports/gpu-plan-roberta-large)
	$(GPU_PYTHON) -m kotune bench plan bench/gpu-plan-roberta-large

gpu-train: $(GPU_READY)  ## Speed of training (reports/gpu-training-roberta-large)
	$(GPU_PYTHON) -m kotune bench training bench/gpu-training-roberta-large

gpu-bench: $(GPU_READY)  ## Every precision of PyTorch and ONNX Runtime (reports/gpu-*)
	$(GPU_PYTHON) -m kotune bench configs/suites/gpu-roberta-large-random.yaml

gpu-accuracy: $(GPU_READY)  ## The same with accuracy on NSMC; needs KOTUNE_NSMC and KOTUNE_E5
	test -d .cache/e5-small-ko || $(GPU_PYTHON) "$${KOTUNE_E5:?}/unpack.py" .cache/e5-small-ko
	$(GPU_PYTHON) -m kotune bench configs/suites/gpu-nsmc-e5.yaml

# onnxruntime-gpu takes the place of onnxruntime, whose files it overwrites: the other one goes
# first, and the environment is made anew where a list of packages has changed
$(GPU)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(GPU)
	$(GPU)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(GPU)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,gpu,optimum]"
	$(GPU)/bin/python -m pip uninstall --quiet --yes onnxruntime
	$(GPU)/bin/python -m pip install --quiet onnxruntime-gpu
	touch $(GPU)/.ready

lint: env  ## Style and import order
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:  ## Remove what was made, not the environment
	rm -rf runs artifacts reports build dist *.egg-info
