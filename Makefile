.DEFAULT_GOAL := help
.PHONY: help demo test lint typecheck demo-weights clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= refocus-demo

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,offline]'
	@touch $@

demo: $(VENV)/.installed ## install, then the whole story offline in minutes (OUT=folder)
	$(BIN)/refocus demo --out $(OUT)

test: $(VENV)/.installed ## install, then all tests
	$(BIN)/python -m pytest

lint: $(VENV)/.installed ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.installed ## mypy on the package
	$(BIN)/mypy

demo-weights: $(VENV)/.installed ## train the demo's small ViT anew (about 14 minutes on 2 cores)
	$(BIN)/python scripts/train_demo_weights.py

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
