PYTHON ?= python3
BASE ?= main
BIN := .venv/bin

.PHONY: run better test lint bench bench-compare clean-cache

run: .venv/run  ## train the course network at four learning rates; plot and table in results/
	$(BIN)/python run_cifar100.py

better: .venv/run  ## beat the course network
	$(BIN)/python better_cifar.py

test: .venv/test  ## all tests; they need no network
	$(BIN)/python -m pytest -q

lint: .venv/test  ## style, and types of the public API
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/bench  ## all benchmarks: table, JSON and bench/report.html
	$(BIN)/python -m bench.run

bench-compare: .venv/bench  ## did something get slower since BASE?
	$(BIN)/python -m bench.compare $(BASE)

clean-cache: .venv/run  ## forget the compiled kernels
	$(BIN)/fastnet cache --clear

# .venv/run, .venv/test and .venv/bench are stamps: each stands for an environment with those packages in it
.venv/run: pyproject.toml
	@echo "Setting up .venv (once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/test .venv/bench: .venv/%: pyproject.toml .venv/run
	@echo "Adding what $*s need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	@touch $@
