# `make quickstart` runs the main job on real data, `make test` the tests; each sets itself up.
PYTHON ?= python3.11
BIN := .venv/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: quickstart test setup lint types clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[onnx,synthetic]' --group test --group lint
	touch $@

quickstart: setup
	$(BIN)/python -m retrieval_ft.train

test: setup
	$(BIN)/retrieval-ft models fetch BAAI/bge-small-en-v1.5
	$(BIN)/retrieval-ft models fetch ms-marco-MiniLM-L-12-v2-int8
	$(BIN)/retrieval-ft data build cwe
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
