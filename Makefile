# make help says what there is.  The first use of any target creates .venv and installs Palmar into it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.palmar-installed
OUT ?= demo_out
# Isaac Lab pins other versions of torch and MuJoCo: an environment of its own.
ISAAC := .venv-isaac

# GPU=1 or GPU=0 decides; otherwise the presence of an NVIDIA device does.
GPU ?= $(if $(or $(wildcard /dev/nvidia0),$(shell command -v nvidia-smi)),1,0)
# Without a GPU every version is pinned, torch to one with a CPU build.  TORCH_INDEX is the address of PyTorch's
# CPU wheels (its install page shows it); without it pip may choose a build with CUDA: larger, but it works too.
PINS := $(if $(filter 1,$(GPU)),,-c .ci/constraints.txt)
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# The rclpy wheels of the ros extra exist for Linux x86_64 only.
ROS_WHEELS := $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m))
comma := ,
SOURCES := sim policies safety real_robot rollouts cli benchmarks tests
EXTRAS := $(if $(ROS_WHEELS),ros$(comma)dev,dev)

# Numerical libraries with a thread per core fight the 1 kHz processes and each other.
export OMP_NUM_THREADS := 1
export PYTHONSAFEPATH := 1

.PHONY: help setup demo test test-slow faults check format wheel bench mutants clean isaac test-isaac peers

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv and install Palmar (done by every other target when needed)

$(STAMP): pyproject.toml .ci/constraints.txt
	@$(if $(ROS_WHEELS),,echo "no rclpy wheels for $$(uname -sm): ROS 2 needs a distribution here (README); going on without")
	@if [ ! -x $(BIN)/python ]; then \
	    for candidate in $(PYTHON) python3.11 python3.12 python3; do \
	        if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; \
	        then found="$$candidate"; break; fi; \
	    done; \
	    if [ -z "$${found:-}" ]; then \
	        echo "Palmar needs Python 3.11 or 3.12; found none of python3.11, python3.12. Install one or: make PYTHON=/path/to/python3.12" >&2; \
	        exit 1; \
	    fi; \
	    echo "creating $(VENV) with $$($$found --version)"; \
	    "$$found" -m venv $(VENV) || { rm -rf $(VENV); \
	        echo "cannot create a virtual environment: install the venv module of $$found (Debian, Ubuntu: $$(basename $$found)-venv)" >&2; exit 1; }; \
	fi
	@echo "installing into $(VENV) (GPU=$(GPU), extras $(EXTRAS)); the first time takes minutes"
	$(BIN)/python -m pip install --quiet $(PINS) $(INDEX) -e '.[$(EXTRAS)]'
	@# Compiled kernels name the types they take: those of an older Palmar may no longer be there.
	@find $(SOURCES) -name '*.nb[ci]' -delete
	@touch $@

demo: $(STAMP) ## train, deploy behind the filter, record, replay, report: OUT=demo_out
	$(BIN)/palmar demo --out $(OUT)

test: $(STAMP) ## every test that needs neither minutes nor a GPU
	$(BIN)/python -m pytest -q -m "not slow and not gpu and not fault" --timeout 300 $(ARGS)

test-slow: $(STAMP) ## the tests that take minutes
	$(BIN)/python -m pytest -q -m "slow and not gpu and not fault" --timeout 1200 $(ARGS)

faults: $(STAMP) ## every named fault case of docs/faults.md
	$(BIN)/python -m pytest -q --timeout 300 tests/faults $(ARGS)

check: $(STAMP) ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP) ## let ruff rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP) ## build the wheel and import every module of it in a fresh environment
	rm -rf dist build/wheel-venv
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip install --quiet $(PINS) $(INDEX) "$$(ls dist/palmar-*.whl)"
	cd build && wheel-venv/bin/python ../.ci/import_all.py
	@ls dist

bench: $(STAMP) ## the measurements, minutes each: runs/bench/*.json
	@mkdir -p runs/bench
	for name in sim filter deploy lift; do $(BIN)/palmar bench $$name --json runs/bench/$$name.json; done

mutants: $(STAMP) ## changes of safety/ that no test notices, hours, goes on where it stopped: docs/mutation.md
	nice -n 15 $(BIN)/python -m palmar.benchmarks.mutants --folder runs/mutants $(ARGS)

isaac: $(ISAAC)/.palmar-installed ## Isaac Lab 3.0 in an environment of its own, for engine=isaaclab (Python 3.12; GBs)

$(ISAAC)/.palmar-installed: pyproject.toml .ci/isaac.txt
	@if [ ! -x $(ISAAC)/bin/python ]; then \
	    for candidate in $(PYTHON312) python3.12 $$(ls -d "$$HOME"/.pyenv/versions/3.12.*/bin/python3.12 2>/dev/null); do \
	        if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; \
	        then found="$$candidate"; break; fi; \
	    done; \
	    if [ -z "$${found:-}" ]; then \
	        echo "Isaac Lab needs Python 3.12; found none. Install one or: make isaac PYTHON312=/path/to/python3.12" >&2; exit 1; \
	    fi; \
	    "$$found" -m venv $(ISAAC) || { rm -rf $(ISAAC); exit 1; }; \
	fi
	@echo "installing into $(ISAAC); torch alone is gigabytes unless TORCH_INDEX names PyTorch's CPU wheels"
	$(ISAAC)/bin/python -m pip install --quiet $(INDEX) -c .ci/isaac.txt torch
	$(ISAAC)/bin/python -m pip install --quiet --no-deps $(INDEX) -r .ci/isaac.txt
	$(ISAAC)/bin/python -m pip install --quiet --no-deps -e .
	@touch $@

test-isaac: $(ISAAC)/.palmar-installed ## engine isaaclab on the CPU; the first run compiles kernels for minutes
	$(ISAAC)/bin/python -m pytest -q --timeout 900 tests/isaac $(ARGS)

peers: ## not in this release: side-by-side runs of other libraries
	@echo "the comparison with other libraries is not part of this release; see CHANGELOG.md" >&2; exit 2

clean: ## remove what builds and tests leave (not .venv, runs or demo_out)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis palmar.egg-info MUJOCO_LOG.TXT
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
