# Every target makes its own .venv first; nothing else is needed but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Set up for the main job, and for the tests on top of it.
CORE := $(VENV)/.core
STAMP := $(VENV)/.installed

.PHONY: bench test test-all test-fast fuzz mutants wheel docs lint format clean

## Set-up and the main job on the embedded data set
bench: $(CORE)
	$(BIN)/siamcal bench

## Damaged files: 10,000 for each reader, with benchmarks/results/fuzz.md as the result
fuzz: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m fuzz $(READERS) --inputs $(or $(INPUTS),10000)

## Set-up, linters and the tests, but for those that tests/conftest.py calls long
test: $(STAMP) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not long"

## All tests
test-all: $(STAMP) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

## The tests that take seconds: all but trainings and whole commands
test-fast: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not long"

## The source archive and the wheel in dist/, and the wheel used outside this folder
wheel: $(CORE)
	$(BIN)/python scripts/check_wheel.py --python $(PYTHON)

## The pages of docs/ as a site in site/; a warning is an error
docs: $(CORE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

## Do the tests notice a changed line? docs/tests.md; an hour
mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[mutants]"
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutants.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(CORE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all]"
	sh scripts/system_libraries.sh
	touch $(CORE)

$(STAMP): $(CORE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist site *.egg-info runs .pytest_cache .mypy_cache .ruff_cache
