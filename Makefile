# `make demo` and `make test` do their own set-up, in .venv; nothing else is touched. PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
BIN := .venv/bin
# There only after a whole set-up; it goes first when one begins. So what a killed set-up left is thrown away and made anew.
STAMP := .venv/.set-up
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow lint golden clean

help:
	@echo 'make demo       compile an example for both backends, run it here and compare'
	@echo 'make test       the tests that a newcomer runs, ruff included; no GPU needed'
	@echo 'make test-slow  the long tests; no GPU needed'
	@echo 'make lint       ruff and mypy'
	@echo 'make golden     write the expected outputs under tests/golden again; then read the diff'
	@echo 'make setup      only the virtual environment'
	@echo 'make clean      delete the virtual environment and everything that was made'

setup: $(STAMP)

# constraints.txt gives torch's CPU build where a wheel of it lies on pip's way, as on the machines that test this project. Elsewhere pip takes
# torch from its registry, which for Linux is the CUDA build, of several GB. To have the CPU build there, or any other: let pip find that wheel
# first (PIP_FIND_LINKS=a folder, PIP_INDEX_URL=an index).
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "the tested set of versions needs Python 3.11 or later: make PYTHON=...")'
	@if [ ! -e $(STAMP) ]; then rm -rf .venv; $(PYTHON) -m venv .venv; fi
	@rm -f $(STAMP)
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[test]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m nsalang demo

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not gpu'

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'slow and not gpu' --timeout 1800

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

golden: $(STAMP)
	$(BIN)/python -m pytest -m 'not gpu' --update-golden tests

clean:
	rm -rf .venv build dist out nsalang.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find nsalang passes lowering examples tests -name __pycache__ -type d -prune -exec rm -rf {} +
