# Each target does what set-up it needs, in .venv, and is quick when nothing changed.

PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: setup demo test test-browser bench lint clean

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq --upgrade pip
	$(BIN)/pip install -qq --editable ".[detect,dev]"
	@touch $@

demo: setup
	$(BIN)/python tools/demo.py --output out/demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Needs Chromium and its driver: apt-get install chromium chromium-driver
test-browser: setup
	$(BIN)/pip install -qq --editable ".[browser]"
	$(BIN)/python -m pytest tests/browser/page_in_chromium.py

bench: setup
	$(BIN)/python tools/bench.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv out
