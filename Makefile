# SPDX-License-Identifier: Apache-2.0
# Everything works on a fresh Debian 12 with python3, pip, make and apt: no ensurepip is needed, and
# nothing is installed into the system's Python. Once set up, no target needs the network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# cwt checks our COSE independently; it needs an older cbor2, so it lives by itself.
CWT := .venv-cwt

.DEFAULT_GOAL := help
.PHONY: bounds completion practice wheel help demo test check bench fmt fuzz kills faults law models properties setup broker units strace fuse systemd-root vectors matrix pins profiles clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: broker $(VENV)/ready ## watch one household's readings travel, sealed, and a withdrawal bite
	@$(BIN)/python -m demo.demo

practice: broker $(VENV)/ready ## start a meter and a maker to practise docs/technician.md with
	@$(BIN)/python -m demo.practice

# Journeys wait more than they work: three at a time keep two cores busy.
test: setup check ## run the checks, then every test
	@$(BIN)/python -m pytest -n 3 --dist loadfile

check: $(VENV)/ready ## style, types, floors of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/test_house.py tests/systemd

bench: broker $(VENV)/ready ## print each promised figure with its target, and keep it
	@$(BIN)/python -m benchmarks.run

bounds: broker $(VENV)/ready ## live an hour of the worst mix, and keep what memory and disk came to
	@$(BIN)/python -m benchmarks.bounds

kills: broker strace $(VENV)/ready ## kill each program between every two steps of a no, and keep what came of it
	@$(BIN)/python -m tests.journeys.kill_points

faults: broker strace fuse $(VENV)/ready ## break everything at random for an hour, and keep what was lost
	@$(BIN)/python -m tests.faults

fuzz: $(VENV)/ready ## feed each decoder a million broken inputs, and keep what came of it
	@$(BIN)/python -m benchmarks.fuzz

law: $(VENV)/ready ## hold the law against a second reading of it, for long, and keep the result
	@$(BIN)/python -m tests.agent.law_long

models: $(VENV)/ready ## let spool and journal live and die against their models for ten minutes, and keep the result
	@$(BIN)/python -m tests.agent.models_long

properties: setup ## try every property test with choices of its own for ten minutes, and keep the result
	@$(BIN)/python -m tests.properties_long

fmt: $(VENV)/ready ## let the formatter decide
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

vectors: $(VENV)/ready ## make tests/vectors/ again
	@$(BIN)/python -m tests.vectors.generate

matrix: $(VENV)/ready ## list each clause of the privacy policy with the tests that show it
	@$(BIN)/python -m tools.policy_matrix

wheel: $(VENV)/ready ## build dist/assent-VERSION-py3-none-any.whl, all that a gateway needs
	@$(PYTHON) -m pip --python $(BIN)/python wheel --quiet --no-deps --no-build-isolation \
		--wheel-dir dist .
	@ls dist/assent-*.whl

profiles: $(VENV)/ready ## write config/profiles/ again from recorded facts
	@$(BIN)/python -m tools.profiles ../shared/data/modbus

completion: $(VENV)/ready ## write the shells' completions of both command lines again
	@$(BIN)/python -m tools.completion

setup: broker units strace fuse $(VENV)/ready $(CWT)/ready ## only install what the other targets need

pins: ## pin today's releases, within the bounds of pyproject.toml
	@PYTHON="$(PYTHON)" sh tools/pins.sh tools/pins.txt --editable '.[dev,backend]'
	@PYTHON="$(PYTHON)" sh tools/pins.sh tools/pins-cwt.txt 'cwt==3.3.0'

$(VENV)/ready: pyproject.toml tools/venv.sh tools/pins.txt
	@PYTHON="$(PYTHON)" sh tools/venv.sh $(VENV) tools/pins.txt \
		--no-build-isolation --editable '.[dev,backend]'
	@touch $@

$(CWT)/ready: tools/venv.sh tools/pins-cwt.txt
	@PYTHON="$(PYTHON)" sh tools/venv.sh $(CWT) tools/pins-cwt.txt
	@touch $@

broker:
	@sh tools/broker.sh mosquitto

units:
	@sh tools/units.sh

strace:
	@sh tools/strace.sh

fuse:
	@sh tools/fuse.sh

systemd-root: ## make the Debian in which a test boots the units (root, once, 300 MB)
	@sh tools/systemd-root.sh "$${ASSENT_SYSTEMD_ROOT:-$$HOME/.cache/assent/systemd-root}"

clean: ## remove what the other targets made
	rm -rf $(VENV) $(CWT) demo/run demo/practice build dist ./*.egg-info .hypothesis .import_linter_cache \
		.mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
