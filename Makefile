# `make quickstart` runs the main job on real data, `make test` the tests; each sets itself up.
PYTHON ?= python3.11
BIN := .venv/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: quickstart test setup browser lint types peers clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lora,onnx,synthetic,tune]' --group test --group lint
	touch $@

quickstart: setup
	$(BIN)/python -m retrieval_ft.train

# Pages are tested in a real browser: Debian's.
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

browser:
	@command -v chromium > /dev/null || { $(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
		chromium fonts-dejavu-core > /dev/null; }

test: setup browser
	$(BIN)/retrieval-ft models fetch BAAI/bge-small-en-v1.5
	$(BIN)/retrieval-ft models fetch ms-marco-MiniLM-L-12-v2-int8
	$(BIN)/retrieval-ft data build cwe
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# What eval/ compares with (eval/peers.txt), in a folder that only the benchmarks look into. FlagEmbedding's
# miner is a script: 1.2.11 is the last release that brings it.
PEERS := .venv/peers
MINER := FlagEmbedding-1.2.11/FlagEmbedding/baai_general_embedding/finetune/hn_mine.py

peers: setup
	rm -rf $(PEERS)
	$(BIN)/python -m pip install --quiet --no-deps --target $(PEERS) --requirement eval/peers.txt
	$(BIN)/python -m pip download --quiet --no-deps --no-binary FlagEmbedding --dest $(PEERS) FlagEmbedding==1.2.11
	tar -xzf $(PEERS)/FlagEmbedding-1.2.11.tar.gz -C $(PEERS) --strip-components=4 $(MINER)
	rm $(PEERS)/FlagEmbedding-1.2.11.tar.gz

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
