# Sets up everything in .venv, on a machine with Python 3.11 or 3.12, a C++ compiler and make.
# On a cluster, where Python, PyTorch and MPI are the site's, none of this is needed: see README.md.

VENV ?= .venv
JOB ?= jobs/compare_digits.yaml
bin := $(VENV)/bin
stamp := $(VENV)/.stamp

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# pip asks nothing, and draws no bars into a log.
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
ifdef CI
export PIP_PROGRESS_BAR := off
endif
# Another environment's modules, or an activated one, must not leak into this one.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help setup demo test lint clean distclean

help: ## this list
	@echo "make [PYTHON=python3.12] [VENV=.venv] TARGET"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(stamp) ## create .venv: PyTorch, an MPI, Horovod (built against both), this package
	@:

demo: $(stamp) ## compare the algorithms on the digits data set, on this machine
	@$(bin)/mpi-dcasgd compare $(JOB)

test: lint ## check style and types, and run all tests
	@echo "==> tests"
	@MPI_DCASGD_REQUIRE=mpi,horovod $(bin)/python -m pytest

lint: $(stamp) ## check style and types only
	@echo "==> style and types"
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .
	@$(bin)/mypy
	@$(bin)/shellcheck .ci/run

clean: ## remove what tools leave behind; .venv and runs stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## remove .venv, too
	rm -rf $(VENV)

# PyTorch goes first and alone: what is offered decides between a CPU and a CUDA build, and
# afterwards it is there, whatever torchvision asks for.
$(stamp): constraints.txt setup.cfg setup.py mpi_dcasgd/tools/build_horovod.py
	@python=$${PYTHON:-$$(for p in python3 python3.12 python3.11; do \
	    $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	        2>/dev/null && echo $$p && break; done || true)}; \
	if [[ -z "$$python" && ! -x $(bin)/python ]]; then \
	    echo "make: no Python 3.11 or 3.12 on PATH; install one, or name it: make PYTHON=..." >&2; \
	    exit 2; \
	fi; \
	if ! $(bin)/python -m pip --version >/dev/null 2>&1; then \
	    echo "==> $(VENV), with $$($$python --version)"; \
	    rm -rf $(VENV); \
	    $$python -m venv $(VENV) || { rm -rf $(VENV); exit 2; }; \
	fi
	@echo "==> PyTorch"
	@$(bin)/python -m pip install -qq -c constraints.txt pip setuptools wheel
	@$(bin)/python -m pip install -qq -c constraints.txt torch
	@echo "==> the package and all else, an MPI included"
	@$(bin)/python -m pip install -qq --no-build-isolation -c constraints.txt -e '.[all,dev]'
	@$(bin)/python mpi_dcasgd/tools/build_horovod.py
	@touch $@
