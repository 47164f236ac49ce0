# make run: from nothing to a trained model, its scores and its text.
# make test: from nothing to the test suite. Both need Python >= 3.11, git and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PACKAGES := gpt verse stages repro commands workshop
# PyTorch's build on Linux, cpu or cuda; blank: cuda where there is an NVIDIA driver.
TORCH  ?=
TORCH_CPU := https://download.pytorch.org/whl/cpu

# uv where it is on PATH, else pip. Python writes the bytecode of what it imports, which is less than
# is installed; where it may not, the install does.
UV := $(filter-out $(CURDIR)/$(BIN)/%,$(shell command -v uv 2>/dev/null))
INSTALL := $(if $(UV),\
  $(UV) pip install --quiet $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode) \
    --python $(BIN)/python,\
  $(BIN)/python -m pip install --quiet --disable-pip-version-check \
    $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)) -c constraints.txt
# Two tests at a time, those of one file in one process, whose fixtures they share.
TESTS := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
# dvc's queue starts `dvc` and `python` by their bare names. Recipes name $(BIN): make 3.81, which
# macOS has, does not search the exported PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repository run test test-all faults verify check ui site clean-venv
.DEFAULT_GOAL := run

run: repository $(VENV)/ready
	$(BIN)/dvc repro
	@$(BIN)/gpt report
	@$(BIN)/gpt result

test: repository $(VENV)/ready-dev check
	$(TESTS) -m "not slow and not browser"

# What CI runs: everything, the pipeline end to end and the browser too.
test-all: $(VENV)/ready-dev check
	$(TESTS) --durations=60

# Every fault of docs/reliability.md, then the tests that must catch each planted defect.
faults: $(VENV)/ready-dev
	$(BIN)/python -m pytest -q -m "fault and not browser"
	$(BIN)/python -m pytest -q -m "fault and not browser" --planted

# Kills a small training again and again, and compares the bits.
verify: $(VENV)/ready
	$(BIN)/python tests/verify.py

# A ZIP download is no git repository, which DVC needs; README says what works without git.
repository:
	@[ -e .git ] || git rev-parse 2>/dev/null || grep -qs no_scm .dvc/config .dvc/config.local || \
	  { echo "$(CURDIR): not a git repository; make it one: git init && git add -A && git commit -m start"; exit 1; }

check: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry $(PACKAGES) benchmarks tests
	$(BIN)/deptry $(PACKAGES) --optional-dependencies-dev-groups export,team,site,dev

ui: $(VENV)/ready
	$(BIN)/gpt ui

# An environment holds its own path: where the folder was moved or copied it is made anew. Of a copy,
# `gpt` would run the code of the folder that it was copied from.
MOVED := $(shell test ! -s $(VENV)/ready || test "`cat $(VENV)/ready`" = "`pwd -P`" || echo --clear)
ifneq ($(MOVED),)
.PHONY: $(VENV)/ready
endif

define CHECK_PYTHON
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "repro-gpt needs Python 3.11 or newer; name one: make run PYTHON=python3.12"; exit 1; }
endef

# The environment, with what `make run` needs.
$(VENV)/ready: pyproject.toml constraints.txt $(if $(TORCH),$(VENV)/torch-$(TORCH))
	$(CHECK_PYTHON)
	$(PYTHON) -m venv $(MOVED) $(VENV)
	@$(if $(TORCH),touch $(VENV)/torch-$(TORCH),:)
	@if [ "$$(uname -s)" != Linux ] || [ "$(TORCH)" = cuda ] || \
	    { [ -z "$(TORCH)" ] && nvidia-smi -L >/dev/null 2>&1; }; then \
	  echo "PyTorch: the build of the package index"; \
	elif $(PYTHON) -c 'import urllib.request as r; r.urlopen("$(TORCH_CPU)/torch/", timeout=5)' \
	    2>/dev/null && $(INSTALL) --no-deps --index-url $(TORCH_CPU) torch; then \
	  echo "PyTorch: the CPU build, without 3 GB of CUDA; for a GPU: make run TORCH=cuda"; \
	else \
	  echo "PyTorch: the build of the package index; nothing came from $(TORCH_CPU)"; \
	fi
	$(INSTALL) -e .
	@pwd -P > $@

# The same with an extra of pyproject.toml: ready-dev, ready-site.
$(VENV)/ready-%: $(VENV)/ready
	$(INSTALL) -e '.[$*]'
	@touch $@

# Another build of PyTorch needs an environment of its own.
$(VENV)/torch-%:
	$(CHECK_PYTHON)
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The pages of docs/ as a site, on this machine alone.
site: $(VENV)/ready-site
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

clean-venv:
	rm -rf $(VENV)
