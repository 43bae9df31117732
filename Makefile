# Two commands do everything, set-up included: `make demo` and `make test`.

PYTHON ?= python3.11
VENV ?= .venv
RECIPE ?= recipes/demo.yaml
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The demo recipe brings its own data, models and manifest; your own reads DATA (a folder or URL) and the
# challenge's manifest unless MANIFEST says otherwise.
ifeq ($(basename $(notdir $(RECIPE))),demo)
DATA ?= build/demo/data
MANIFEST ?= build/demo/manifest.csv
OUT ?= build/demo
BEFORE := prepare-demo
endif
DATA ?= data
BUILD_OPTIONS = --data $(DATA) $(if $(MANIFEST),--manifest $(MANIFEST)) $(if $(OUT),--out $(OUT))

# Dozens of processes start: none compiles the project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo prepare-demo submission real-em test coverage lint bench bench-full bench-kills clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/ensemble demo --out build/demo

prepare-demo: $(READY)
	$(BIN)/ensemble demo --out build/demo --prepare

submission: $(READY) $(BEFORE)
	$(BIN)/ensemble build $(RECIPE) $(BUILD_OPTIONS)

# Real EM in the challenge's layout with train_manifest.csv and validation_manifest.csv beside it.
real-em: $(READY)
	$(BIN)/python -m benchmarks.real_em $(DATA) --out build/real-em

# Two workers on two cores, each with one thread per library: more would wait for each other.
test coverage: export OMP_NUM_THREADS = 1
test: $(READY)
	$(BIN)/pytest --numprocesses 2

# Which lines no test runs: a table, and build/coverage/index.html.
coverage: $(READY)
	COVERAGE_FILE=build/coverage/data $(BIN)/pytest --numprocesses 2 --cov=ensemble --cov=registry \
		--cov-report=term:skip-covered --cov-report=html:build/coverage

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The short ones, in under ten minutes; then those of the whole product, half an hour and 6 GB of disk each.
bench: $(READY)
	$(BIN)/python -m benchmarks

bench-full: $(READY)
	$(BIN)/python -m benchmarks.full

bench-kills: $(READY) prepare-demo
	$(BIN)/python -m benchmarks.kills

clean:
	rm -rf build
