# Every target sets itself up: git, make and Python 3.11+ with venv are all that a machine needs.
# One environment serves them all: nearly all of its size is torch, and the tools of `dev` add
# little; two environments could disagree about what was tested.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RESULTS := $(patsubst %/runs.parquet,%,$(wildcard results/*/runs.parquet))
# Pytest in two processes, all tests of a file in one of them.
IN_TWO := -n 2 --dist loadfile
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all figures docs notebooks bench slurm slurm-stop lint types clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## make .venv, if pyproject.toml changed since it was made

# The stamp is written last, so that an install cut short or failing its check is done again.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is not \
	Python 3.11 or newer; install one that is, and name it: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv; as root: \
	apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (about 6 GB, a few minutes)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@$(BIN)/python -m clipa_scaling.train.check_install
	@touch $@

demo: install  ## a whole study in minutes on two cores: plan, train, tables, figures
	$(BIN)/python -m clipa_scaling.sweep sweeps/mini.yaml

test: install  ## the tests, without the slow ones (10 minutes at most on two cores)
	$(BIN)/pytest $(IN_TWO) -m "not slow"

# Those of a private Slurm have the machine to themselves: its time-outs are theirs.
test-all: install lint types  ## lint, types and every test
	$(BIN)/pytest $(IN_TWO) -m "not slurm"
	$(BIN)/pytest -m slurm

figures: install  ## draw the figures of all tables in results/ again, and the papers'
	$(BIN)/python -m clipa_scaling.figures $(RESULTS) results/published

docs: install  ## make the pictures and tables in docs/ again
	$(BIN)/python tools/draw_reductions.py
	$(BIN)/python tools/compare_compute.py
	$(BIN)/python tools/draw_tuning.py

notebooks: install  ## execute the notebooks in place
	$(BIN)/python tools/run_notebooks.py $(NOTEBOOKS)

bench: install  ## claims of speed, each measured: minutes, on a machine with nothing else to do
	$(BIN)/python bench/plan.py
	$(BIN)/python bench/scenes.py
	$(BIN)/python bench/fit.py
	$(BIN)/python bench/slurm.py

slurm: install  ## start a Slurm of two nodes on this machine, to try things on (root; ACCOUNTING=1 adds sacct)
	@$(BIN)/python tools/try_slurm.py start $(if $(ACCOUNTING),--accounting)

slurm-stop: install  ## end that Slurm, with its jobs
	@$(BIN)/python tools/try_slurm.py stop

lint: install  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## mypy, strict
	$(BIN)/mypy

clean:  ## remove caches and build artefacts; runs/ and .venv/ stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
