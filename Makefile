PYTHON ?= python3
BASE ?= main
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif

.PHONY: run better test lint docs bench bench-compare release-check clean-cache

run: .venv/run  ## train the course's network at four learning rates; plot and table in results/
	@echo "Training takes a few seconds; the first run also compiles the kernels, which takes 4 to 7 seconds."
	$(BIN)/python run_cifar100.py

better: .venv/run  ## train a network that beats the course's
	$(BIN)/python better_cifar.py

test: .venv/test  ## all tests, on two cores; they need no network
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: .venv/test  ## style, types, and the allowed imports
	$(BIN)/ruff check .
	$(BIN)/mypy
	rm -rf .lint && mkdir .lint && cp -R fastnet .lint/ && cp -R kernels .lint/fastnet/  # as it is installed
	cd .lint && ../$(BIN)/lint-imports ../pyproject.toml

docs: .venv/docs  ## the documentation: docs/_build/html/index.html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

bench: .venv/bench  ## all benchmarks: table, JSON and bench/report.html
	$(BIN)/python -m bench.run

bench-compare: .venv/bench  ## did something get slower since BASE?
	$(BIN)/python -m bench.compare $(BASE)

release-check: .venv/release  ## both distributions, built, installed and tested in environments of their own
	$(BIN)/python .github/scripts/release_check.py

clean-cache: .venv/run  ## delete the cached compiled kernels
	$(BIN)/fastnet cache --clear

# .venv/run, .venv/test ... are stamps: each marks that .venv has the packages of that dependency group. They depend on
# pyproject.toml, so make installs a changed requirement before the next run. Groups need pip 25.1. Setuptools' advice on editable
# installations is not for users.
.venv/run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "fastnet needs Python 3.10 or newer, and $(PYTHON) \
	is %d.%d. Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Setting up .venv: downloading NumPy, Numba, Matplotlib, once; a minute or so ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/test .venv/docs .venv/bench .venv/peers .venv/release: .venv/%: pyproject.toml .venv/run
	@echo "Adding the packages of the dependency group $* ..."
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -e . --group "$*"
	@touch $@
