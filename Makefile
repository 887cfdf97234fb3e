# One command each. `make train` and `make test` set everything up on a fresh machine with Python 3.11 or later.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := .bench-venv
PEERS_INSTALLED := $(PEERS)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install train tensorboard test test-all lint format types pytest scorecard bench docs clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(INSTALLED)  ## an environment of its own in .venv, with the versions we test with

$(INSTALLED): pyproject.toml setup.cfg constraints.txt $(wildcard plasticity/*.[ch])
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version.split()[0])'
	@echo "Setting up $(VENV); the first time this takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

train: $(INSTALLED)  ## train the main job, or another one: make train ARGS='agent=sac env=ns_pendulum'
	$(BIN)/python train.py $(ARGS)

tensorboard: $(INSTALLED)  ## watch the runs in a browser
	$(BIN)/python -m tensorboard.main --logdir runs

test: lint types pytest  ## lint, types and the tests that take seconds

test-all: lint types $(INSTALLED)  ## the same with the slow tests
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow or not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)
	$(BIN)/mypy

pytest: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist loadfile

scorecard: $(INSTALLED)  ## put all that a run promises to the test, and write docs/reliability.md
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow or not slow" tests/reliability --scorecard docs/reliability.md

bench: $(INSTALLED) $(PEERS_INSTALLED)  ## how fast we are beside our peers, and docs/performance.md; ARGS='--quick' for a first look
	$(BIN)/python -m benchmarks $(ARGS)

$(PEERS_INSTALLED): benchmarks/peers.txt constraints.txt
	@echo "Setting up $(PEERS), where our peers live; the first time this takes a few minutes."
	$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -r benchmarks/peers.txt
	touch $(PEERS_INSTALLED)

docs: $(INSTALLED)  ## the documentation: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove the environment and caches; runs stay
	rm -rf $(VENV) $(PEERS) site .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
