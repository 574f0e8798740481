# demo and test do all the set-up; the second time they only look whether it is done.
PYTHON ?= python3
# Extra words for pip, for example the CPU-only index that pytorch.org prints: see README.md.
PIP_ARGS ?=
BIN := .venv/bin
# Processes that tests run in: auto is one a core.
WORKERS ?= auto
DEMO_RUN ?= runs/demo

.PHONY: demo test test-thorough test-slow lint docs format dist clean

demo: .venv/installed
	rm -rf $(DEMO_RUN)
	$(BIN)/handful fit digits --per-class 10 --budget 40s --out $(DEMO_RUN)
	@echo "The run is in $(DEMO_RUN)/: open its report.html in a browser. Next: $(BIN)/handful predict $(DEMO_RUN)/ PHOTO.png"

test: .venv/installed-dev
	$(BIN)/python -m pytest -m "not slow and not thorough" -n $(WORKERS) --dist loadfile

test-thorough: .venv/installed-dev
	$(BIN)/python -m pytest -m "thorough and not slow" -n $(WORKERS) --dist loadfile

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow --timeout 3600

lint: .venv/installed-dev
	$(BIN)/ruff format --check src tests benchmarks examples scripts
	$(BIN)/ruff check src tests benchmarks examples scripts
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m benchmarks check
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site

docs: .venv/installed-dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site

format: .venv/installed-dev
	$(BIN)/ruff format src tests benchmarks examples scripts
	$(BIN)/ruff check --fix src tests benchmarks examples scripts

# The wheel and the sdist in dist/, tried out in an environment of their own.
dist: .venv/installed
	PYTHON=$(CURDIR)/$(BIN)/python .ci/dist

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "handful needs Python 3.11 or newer; give one with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e .
	touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e '.[dev]'
	touch $@ .venv/installed

clean:
	rm -rf .venv runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
