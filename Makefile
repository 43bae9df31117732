# Two commands do everything, set-up included: `make demo` and `make test`. `make help` lists them all.

PYTHON ?= python3.11
VENV ?= .venv
RECIPE ?= recipes/demo.yaml
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := build/demo

# The demo's own recipe, and no other of that name, brings its own data, models and manifest; yours reads DATA (a folder
# or URL) and the challenge's manifest unless MANIFEST says otherwise.
ifneq (,$(findstring |$(RECIPE)|,|recipes/demo.yaml|./recipes/demo.yaml|$(CURDIR)/recipes/demo.yaml|))
DATA ?= $(DEMO)/data
MANIFEST ?= $(DEMO)/manifest.csv
OUT ?= $(DEMO)
BEFORE := prepare-demo
submission: export MLFLOW_TRACKING_URI = sqlite:///$(CURDIR)/$(DEMO)/mlruns/mlflow.db
endif
DATA ?= data

# One word for the shell, whatever blanks are in it.
comma := ,
quoted = '$(subst ','\'',$(1))'
BUILD_OPTIONS = --data $(call quoted,$(DATA)) $(if $(MANIFEST),--manifest $(call quoted,$(MANIFEST))) \
	$(if $(OUT),--out $(call quoted,$(OUT)))

# Dozens of processes start: none compiles the project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo prepare-demo submission recipe real-em test test-slow test-cluster test-kills fuzz coverage lint image bench bench-full bench-kills clean distclean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1	/p' Makefile | expand -t 14

setup: $(READY) ## a virtual environment with all that is needed

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY) ## synthetic EM, three specialists, one submission: build/demo
	$(BIN)/ensemble demo --out $(DEMO)

prepare-demo: $(READY) ## only the demo's data and specialists
	$(BIN)/ensemble demo --out $(DEMO) --prepare

submission: recipe $(READY) $(BEFORE) ## RECIPE=mine.yaml [DATA=folder or URL] [MANIFEST=csv] [OUT=folder]
	$(BIN)/ensemble build $(call quoted,$(RECIPE)) $(BUILD_OPTIONS)

# A name that is no file would be looked up among the recipes that are shipped, which nobody who mistyped it means.
recipe:
	@test -f $(call quoted,$(RECIPE)) || { echo $(call quoted,RECIPE=$(RECIPE): there is no such file; give the path of \
		yours$(comma) or of one that is shipped:) recipes/*.yaml >&2; exit 2; }

real-em: $(READY) ## DATA=folder: real EM in the challenge's layout, train_manifest.csv and validation_manifest.csv beside it
	$(BIN)/python -m benchmarks.real_em $(call quoted,$(DATA)) --out build/real-em

# Two workers on two cores, each with one thread per library: more would wait for each other.
test test-slow test-cluster test-kills fuzz coverage: export OMP_NUM_THREADS = 1
test: $(READY) ## all tests but the slowest
	$(BIN)/pytest --numprocesses 2

test-slow: $(READY) ## those
	$(BIN)/pytest --numprocesses 2 -m slow

test-cluster: $(READY) prepare-demo ## builds and a training on a SLURM of one node, started where it may be
	CLUSTER_TESTS=1 $(BIN)/pytest tests/cluster tests/build/test_killed_workers.py

test-kills: $(READY) ## builds by 1, 2 and 4 workers, here and on a cluster, of which 20 are killed each time
	WORKER_KILLS=20 $(BIN)/pytest tests/build/test_killed_workers.py

fuzz: $(READY) ## over 10,000 spoilt inputs of every kind, in under ten minutes
	FUZZ_INPUTS=1500 $(BIN)/pytest --numprocesses 2 tests/fuzz

coverage: $(READY) ## which lines no test runs: a table, and build/coverage/index.html
	SLOW_TESTS=1 COVERAGE_FILE=build/coverage/data $(BIN)/pytest --numprocesses 2 --cov=ensemble --cov=registry \
		--cov-report=term:skip-covered --cov-report=html:build/coverage

lint: $(READY) ## style, types, import contract, scripts, Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck ./.ci/run ./docs/cluster/*.sh
	$(BIN)/hadolint ./Dockerfile

IMAGE ?= ensemble
TORCH ?= cuda
image: ## a container image, where docker is: [IMAGE=name] [TORCH=cpu]
	@command -v docker > /dev/null || { echo "docker is not installed; see docs/cluster.md for apptainer" >&2; exit 2; }
	docker build --build-arg TORCH=$(TORCH) --tag $(IMAGE) .

bench: $(READY) ## the short benchmarks, in under ten minutes
	$(BIN)/python -m benchmarks

bench-full: $(READY) ## the whole official manifest: half an hour, 6 GB of disk
	$(BIN)/python -m benchmarks.full

bench-kills: $(READY) prepare-demo ## a build killed 50 times: half an hour
	$(BIN)/python -m benchmarks.kills

clean: ## caches and coverage, made again in a minute; builds, checkpoints and models stay
	rm -rf build/coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find ensemble registry recipes tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## also builds, stored predictions, checkpoints: all under build/; asks first, registered models stay
	@test -e build || { echo "there is no build/"; exit 0; }; du -h -d 1 build; \
		printf 'remove all of this for good? Type yes: '; read answer && test "$$answer" = yes \
		|| { echo "nothing was removed" >&2; exit 1; }; rm -rf build
