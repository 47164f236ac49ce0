# make run: from nothing to a trained model, its scores and its text.
# make test: from nothing to the test suite. Both need Python >= 3.11, git and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# dvc's queue starts `dvc` and `python` by their bare names. Recipes name $(BIN): make 3.81, which
# macOS has, does not search the exported PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test test-all faults verify check ui site clean-venv
.DEFAULT_GOAL := run

run: $(VENV)/ready
	$(BIN)/dvc repro
	@$(BIN)/gpt report
	@echo
	@echo "Report: report.html   Scores: metrics/evaluate.json   Text: metrics/samples.md"
	@echo "Compare runs: gpt compare, make ui"

test: $(VENV)/ready check
	$(BIN)/python -m pytest -q -m "not slow and not browser"

# What CI runs: everything, the pipeline end to end and the browser too.
test-all: $(VENV)/ready check
	$(BIN)/python -m pytest -q --durations=60

# Every fault of docs/reliability.md, then the tests that must catch each planted defect.
faults: $(VENV)/ready
	$(BIN)/python -m pytest -q -m "fault and not browser"
	$(BIN)/python -m pytest -q -m "fault and not browser" --planted

# Kills a small training again and again, and compares the bits.
verify: $(VENV)/ready
	$(BIN)/python tests/verify.py

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: $(VENV)/ready
	$(BIN)/gpt ui

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "repro-gpt needs Python 3.11 or newer; name one: make run PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The pages of docs/ as a site, on this machine alone.
site: $(VENV)/ready
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

clean-venv:
	rm -rf $(VENV)
