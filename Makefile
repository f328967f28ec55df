# SPDX-License-Identifier: Apache-2.0
# Everything works on a fresh Debian 12 with python3, pip, make and apt: no ensurepip is needed, and
# nothing is installed into the system's Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check bench fmt setup broker vectors clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/ready broker ## watch one household's readings travel, sealed, and a withdrawal bite
	@$(BIN)/python -m demo.demo

test: check .venv-cwt/ready broker ## run the checks, then every test
	@$(BIN)/python -m pytest

check: $(VENV)/ready ## style, types, floors of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/test_house.py

bench: $(VENV)/ready broker ## print each promised figure with its target, and keep it
	@$(BIN)/python -m benchmarks.run

fmt: $(VENV)/ready ## let the formatter decide
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

vectors: $(VENV)/ready ## make tests/vectors/ again
	@$(BIN)/python -m tests.vectors.generate

setup: $(VENV)/ready broker ## only install what the other targets need

$(VENV)/ready: pyproject.toml tools/venv.sh
	@PYTHON="$(PYTHON)" sh tools/venv.sh $(VENV) --editable '.[dev,backend]'
	@touch $@

# cwt checks our COSE independently; it needs an older cbor2, so it lives by itself.
.venv-cwt/ready: tools/venv.sh
	@PYTHON="$(PYTHON)" sh tools/venv.sh .venv-cwt 'cwt==3.3.0'
	@touch $@

broker:
	@sh tools/broker.sh

clean: ## remove what the other targets made
	rm -rf $(VENV) .venv-cwt demo/run build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache
