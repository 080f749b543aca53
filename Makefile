.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-long coverage lint typecheck docs results demo-weights clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= refocus-demo

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,docs,offline]'
	@touch $@

demo: $(VENV)/.installed ## install, then the whole story offline in minutes (OUT=folder)
	$(BIN)/refocus demo --out $(OUT)

# one worker a core, one thread a worker: torch's threads would fight for the same cores
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup --durations 25

test: $(VENV)/.installed ## install, then all tests
	$(PYTEST)

test-fast: $(VENV)/.installed ## the tests without those marked slow
	$(PYTEST) -m 'not slow'

test-long: $(VENV)/.installed ## all tests, and all kills, bad inputs and broken files (an hour)
	REFOCUS_LONG=1 $(PYTEST)

coverage: $(VENV)/.installed ## all tests, and which lines none of them runs (htmlcov/)
	$(PYTEST) --cov=refocus --cov-report=term:skip-covered --cov-report=html

lint: $(VENV)/.installed ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.installed ## mypy, strict, on the package
	$(BIN)/mypy

docs: $(VENV)/.installed ## the guides and the reference as a site (site/); a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

results: $(VENV)/.installed ## the tables of README.md, docs/results.md and docs/paper.md from the committed numbers
	$(BIN)/python -m evidence.tables
	$(BIN)/python -m evidence.summary
	$(BIN)/python -m evidence.paper

demo-weights: $(VENV)/.installed ## train the demo's small ViT anew (about 14 minutes on 2 cores)
	$(BIN)/python scripts/train_demo_weights.py

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .coverage htmlcov site
