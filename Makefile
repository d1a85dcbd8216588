# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE ?= HEAD
INSTALL_FLAGS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(INSTALL_FLAGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-changed test-cluster doctest lint types docs smoke evidence evidence-again bench ci clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed; say which: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# A file stands for an installation that is up to date; it is made anew when what to install changes.
$(VENV)/.base: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) -e '.[compare,dev,docs,export,hf,timm]'
	@touch $@ $(VENV)/.base

$(VENV)/.cluster: $(VENV)/.dev
	$(PIP) -e '.[dask,ray]'
	@touch $@

demo: $(VENV)/.base ## train on handwritten digits and write runs/demo/report.html
	$(BIN)/repertoire train digits --epochs 20 --seed 1 --out runs/demo --overwrite

# The contracts, and the tests of their checks, in processes of their own: they compile and trace every component, and
# after thousands of other tests in one process the compiler has failed, and the interpreter has gone down.
test: $(VENV)/.dev ## run all tests
	$(BIN)/python -m pytest -n auto --ignore=tests/contracts --ignore=tests/testing --ignore=tests/cluster
	$(BIN)/python -m pytest -n auto tests/contracts tests/testing

test-changed: $(VENV)/.dev ## run the tests that changes since BASE reach (make test-changed BASE=main)
	@found="$$($(BIN)/python tools/closure.py --base $(BASE))" || exit 1; \
	if [ -z "$$found" ]; then echo 'no test is reached'; else $(BIN)/python -m pytest -n auto $$found; fi

test-cluster: $(VENV)/.cluster ## run the tests that start clusters of two workers here (installs Ray and Dask)
	$(BIN)/python -m pytest -n 0 tests/cluster

doctest: $(VENV)/.dev ## run the examples of all docstrings
	$(BIN)/python -m pytest -n auto --doctest-modules src/repertoire --ignore=src/repertoire/ops/_triton_pairs.py

lint: $(VENV)/.dev ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## check types
	$(BIN)/mypy

docs: $(VENV)/.dev ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

smoke: $(VENV)/.dev ## run every claim on its smallest budget
	$(BIN)/python -m repertoire.claims --smoke

evidence: $(VENV)/.dev ## run the claims whose evidence is missing or stale
	$(BIN)/python -m repertoire.claims --missing-or-stale --budget small --store src/repertoire/papers/evidence

AGAIN = 5
evidence-again: $(VENV)/.dev ## measure AGAIN claims that are drawn at random again, and compare with what is stored
	$(BIN)/python -m repertoire.claims --again $(AGAIN)

# CIFAR10=FOLDER (train/CLASS/*.jpg and test/CLASS/*.jpg) measures on those images, and runs cifar10.py too.
bench: $(VENV)/.dev ## run the benchmarks and keep what they print under docs/numbers
	$(PIP) -e '.[bench]'
	mkdir -p docs/numbers
	set -e; for name in startup training_loop waiting input_pipeline augmentations pair_losses explainers explainer_leaks diagnostics landscape timm_coverage local_learning pipeline planner compare scale $(if $(CIFAR10),cifar10 local_accuracy); do \
		case $$name in training_loop|input_pipeline|cifar10|local_accuracy) data='$(CIFAR10)';; timm_coverage) data='--sample 40';; *) data=;; esac; \
		$(BIN)/python benchmarks/$$name.py $$data | tee docs/numbers/$$name.md; done

ci: ## what continuous integration runs
	bash .ci/run

clean: ## remove the environment and what was built
	rm -rf $(VENV) site build dist runs/demo
