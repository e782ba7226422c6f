# Two commands for a fresh machine: `make serve` and `make test`. Each sets up what it needs in .venv.
# `make test-sdk` tries the TypeScript SDK of ACP too; it takes node and npm, and says so where there are none.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: serve test test-sdk test-autobahn check clean

serve: $(VENV)/installed
	$(BIN)/gateway-trio serve --config examples/gateway.toml

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest

test-sdk: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/sdk/check_typescript_sdk.py

# The Autobahn test suite, sections 1 to 7, 9 and 10; skipped with a reason where there is no Python 2.7.
test-autobahn: $(VENV)/installed-dev
	$(BIN)/python tests/autobahn/run.py $(VENV)/autobahn

# 114 and 128 know no task_status that is passed on; 124 would have a protocol's no-op be synchronous.
check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/flake8-async --enable ASYNC1,ASYNC2 --disable ASYNC114,ASYNC124,ASYNC128 $$(find src bench examples -name '*.py')
	$(BIN)/mypy

# constraints.txt pins what was tested; without it the ranges of pyproject.toml hold.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) tests/sdk/node_modules
