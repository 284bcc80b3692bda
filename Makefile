# Everything runs in .venv, which is made here with the versions of constraints.txt. `make help` lists the targets.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
FIND = for p in $(foreach v,$(1),python3.$(v) $(HOME)/.pyenv/versions/3.$(v).*/bin/python3); do \
	$$p -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done
PYTHON ?= $(shell $(call FIND,11 12 13 10))
OLDEST_PYTHON ?= $(shell $(call FIND,10))
TORCHGFN := torchgfn==2.4.1  # tests compare with it; it declares numpy<2 without need, hence --no-deps
PIP = -m pip install --quiet --disable-pip-version-check
export HF_HUB_OFFLINE ?= 1
export WANDB_SILENT ?= true

.PHONY: help quickstart test test-slow test-all test-oldest lint type bench bench-curvature bench-profile bench-scaling gpu chaos docs clean
help:                 ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 18

quickstart: $(VENV)/.run  ## install, then a first study on embedded data: a table, and a page with plots and samples
	$(BIN)/vrbench experiment=quickstart
	$(BIN)/vrbench report html results/runs/quickstart -o results/runs/quickstart/report.html
	@echo "next: source $(VENV)/bin/activate, then"
	@echo "  vrbench report compare vradam adamw results/runs/quickstart"
	@echo "  vrbench -m sweep=tune task=digits optimizer=vradam,adamw study=mine"
	@echo "  vrbench study results/digits_hypergrid/plan.yaml"

test: $(VENV)/.dev        ## the tests, but for those that take long (about nine minutes)
	$(BIN)/python -m pytest -n 2 -m "not slow and not stress" -rs --durations=10 $(ARGS)

test-slow: $(VENV)/.dev   ## the tests that take long
	$(BIN)/python -m pytest -n 2 -m "slow and not stress" -rs --durations=10 $(ARGS)

test-all: test test-slow  ## both

test-oldest:          ## the quick tests with the oldest versions that pyproject.toml allows, on Python 3.10 (3 GB)
	@test -n "$(OLDEST_PYTHON)" || { echo "no Python 3.10 here: say make test-oldest OLDEST_PYTHON=/path/to/python3.10"; exit 1; }
	$(OLDEST_PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python $(PIP) -c constraints-oldest.txt -e ".[dev]"
	.venv-oldest/bin/python $(PIP) --no-deps $(TORCHGFN)
	.venv-oldest/bin/python -m pytest -n 2 -m "not slow and not stress" -rs $(ARGS)

lint: $(VENV)/.dev        ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: $(VENV)/.dev        ## mypy
	$(BIN)/mypy

docs: $(VENV)/.dev        ## the site, into site/, offline; a broken link is an error
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -b html -d site/.doctrees docs site
	@echo "open site/index.html"

BENCHES := optimizer_step steps trainer language tokens command_line
bench: $(VENV)/.dev       ## every ratio that has a bar, each against what it is held to, and one table: half an hour, alone
	for bench in $(BENCHES); do $(BIN)/python scripts/bench/$$bench.py || exit 1; done
	$(BIN)/python scripts/bench/table.py --page docs/performance.md
	$(BIN)/python scripts/bench/table.py

bench-curvature: $(VENV)/.dev  ## our eigensolver against others
	$(BIN)/python scripts/bench/curvature.py

bench-profile: $(VENV)/.dev  ## where a run's processor time goes
	$(BIN)/python scripts/bench/run_profile.py

bench-scaling: $(VENV)/.dev  ## time and memory against runs, parameters, tensors, seeds, tokens, steps: twenty minutes
	$(BIN)/python scripts/bench/scaling.py

gpu: $(VENV)/.dev         ## on a machine with CUDA: the tests that need it, then VRAdam and the trainer against their bars
	$(BIN)/python -m pytest -m gpu tests/gpu -rs $(ARGS)
	$(BIN)/python scripts/bench/gpu.py

# These look at the wall's clock: nothing runs beside them.
TIMED := tests/stress/test_long.py tests/stress/test_network.py
chaos: $(VENV)/.dev       ## faults, load and bad input, with figures: about half an hour
	$(BIN)/python -m pytest -n 2 --dist worksteal -m stress tests/stress/test_many.py tests/stress \
		$(addprefix --ignore=,$(TIMED)); \
	beside=$$?; $(BIN)/python -m pytest -m stress $(TIMED) && exit $$beside

VERSION = -c 'import sys; print(*sys.version_info[:2], sep=".")'
ifneq ($(origin PYTHON),file)  # it was asked for
ifneq ($(wildcard $(VENV)),)
ifneq ($(shell $(PYTHON) $(VERSION)),$(shell $(BIN)/python $(VERSION)))
$(error $(VENV) was made by another Python than $(PYTHON): say make clean first)
endif
endif
endif

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "vrbench needs Python 3.10 to 3.13 with venv: install one, or say make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python $(PIP) -c constraints.txt -e ".[all]"
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python $(PIP) -c constraints.txt -e ".[dev]"
	$(BIN)/python $(PIP) --no-deps $(TORCHGFN)
	@touch $@

clean:                ## remove the venv and caches, never results
	rm -rf $(VENV) .venv-oldest .pytest_cache .mypy_cache .ruff_cache
