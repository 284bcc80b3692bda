# Everything runs in .venv, which is made here with the versions of constraints.txt. `make help` lists the targets.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
export HF_HUB_OFFLINE ?= 1
export WANDB_SILENT ?= true

.PHONY: help quickstart test lint type smoke bench bench-optim bench-curvature chaos clean
help:                 ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 18

quickstart: $(VENV)/.run  ## install, then a first study on embedded data: a table, and where the files are
	$(BIN)/vrbench experiment=quickstart

test: $(VENV)/.dev        ## the whole test suite
	$(BIN)/python -m pytest

lint: $(VENV)/.dev        ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: $(VENV)/.dev        ## mypy
	$(BIN)/mypy

smoke: $(VENV)/.dev       ## the tests that take seconds
	$(BIN)/python -m pytest -m "not slow"

bench: $(VENV)/.dev       ## the harness against bare loops
	$(BIN)/python scripts/bench_trainer.py
	$(BIN)/python scripts/bench_lm.py

bench-optim: $(VENV)/.dev ## VRAdam's step against torch's AdamW
	$(BIN)/python scripts/bench_optimizers.py

bench-curvature: $(VENV)/.dev  ## our eigensolver against others
	$(BIN)/python scripts/bench_curvature.py

chaos: $(VENV)/.dev       ## faults, load and bad input, with figures: about half an hour
	$(BIN)/python scripts/chaos.py

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "vrbench needs Python 3.11 or 3.12 with venv (the pins allow no other): install one, or say make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all]"
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:                ## remove the venv and caches, never results
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
