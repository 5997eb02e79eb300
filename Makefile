# Two words do everything: `make audit` (sets up, audits the built-in pair into runs/demo) and `make test` (sets up, tests).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
STAMP := $(VENV)/.setup-done
TEST_STAMP := $(VENV)/.setup-test-done
# torch comes first, at the version that constraints.txt pins; another package index for it: make setup TORCH_INDEX=URL
TORCH_INDEX ?=

export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup audit test test-all test-trl axe wheel lint types imports check docs fix clean

help:
	@echo "make audit     set up, audit the built-in pair into runs/demo"
	@echo "make test      set up, run the tests"
	@echo "make test-all  the same with the slow ones"
	@echo "make axe       every kind of page under axe-core, in chromium;  make wheel: a built wheel in an empty environment"
	@echo "make docs      rewrites what is made from the program, builds the site into build/site, strictly"
	@echo "make check     lint, types and imports;  make fix formats"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mneme needs Python 3.11 or newer; $(PYTHON) is older. Try: make setup PYTHON=python3.11" >&2; exit 2; }
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "No virtual environment could be made. On Debian: apt-get install python3-venv" >&2; exit 2; }
	$(VENV)/bin/pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# What only the tests need beside it: TRL and the other harnesses, which users install by the extra they want.
$(TEST_STAMP): $(STAMP) pyproject.toml constraints.txt
	$(VENV)/bin/pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -e '.[dev,test]'
	@touch $@

audit: setup
	HF_HUB_OFFLINE=1 $(VENV)/bin/mneme audit --out runs/demo

# A process a core, each on one thread: the tests' models are so small that a second thread only waits.
test: $(TEST_STAMP)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist loadfile

test-all: $(TEST_STAMP)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist loadfile -m ""

# The oldest TRL that is supported, for what trains with it; the newest is the one in constraints.txt.
test-trl: $(TEST_STAMP)
	$(VENV)/bin/pip install --quiet --no-deps --upgrade --target build/trl-1.9 trl==1.9.0
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONPATH=build/trl-1.9 $(VENV)/bin/python -m pytest -n auto --dist loadfile tests/train tests/screen tests/dpo

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: setup
	$(VENV)/bin/mypy

imports: setup
	$(VENV)/bin/lint-imports

check: lint types imports

DOCS_STAMP := $(VENV)/.setup-docs-done
$(DOCS_STAMP): $(STAMP) pyproject.toml constraints.txt
	$(VENV)/bin/pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -e '.[docs]'
	@touch $@

docs: $(DOCS_STAMP)
	$(VENV)/bin/python docs/make_cli.py
	$(VENV)/bin/python docs/make_api.py
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

# axe-core comes from the npm registry and is not kept here: its licence is its own.
axe: $(TEST_STAMP)
	@test -f build/axe/package/axe.min.js || { mkdir -p build/axe && cd build/axe && npm pack --silent axe-core@4.14.1 >/dev/null && tar xzf axe-core-*.tgz; }
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/report/test_axe.py -q -n0 -m slow

wheel: $(TEST_STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/cli/test_wheel.py -q -n0 -m slow

fix: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
