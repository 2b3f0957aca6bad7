# The everyday commands; `make` alone lists them. Works from a path with spaces: every path below is relative.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.SUFFIXES:
.PHONY: help setup run pretrained test test-cluster lint bench clean unlock

CONFIG  ?= configs/demo.yaml
DATA    ?=
RESULTS ?= results
# One of the models that ship; all of them without.
MODEL   ?=
PROFILE ?= local
# Folder of a profile with the settings of a site: partitions, accounts (workflow/profiles/site-example).
SITE    ?=
# Files of a job: a process costs seconds, and a job of a cluster more. Keep it for a folder of results.
FILES_PER_JOB ?= $(if $(filter local,$(PROFILE)),1,20)
# GPUs of a job that can use one; found out where nothing is said.
GPUS    ?=
CORES   ?= $(shell getconf _NPROCESSORS_ONLN)
JOBS    ?= 2
ARGS    ?=

# The first of these that is new enough makes the environment.
PYTHON  ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
             "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN     := .venv/bin
# The environment is made anew when the requirements change or the checkout moves; the stamp's name says for which.
COMMA   := ,
WITH_SLURM := $(filter slurm,$(PROFILE))$(filter test-cluster,$(MAKECMDGOALS))
WITH_DOCS := $(filter docs,$(MAKECMDGOALS))
EXTRAS  := dev$(if $(WITH_SLURM),$(COMMA)cluster)$(if $(WITH_DOCS),$(COMMA)docs)
KEY     := $(shell { cat pyproject.toml constraints.txt; pwd; } | cksum | tr ' ' '-')
STAMP   := .venv/.installed-$(KEY)-$(EXTRAS)
SETTINGS = experiment="$(CONFIG)" results="$(RESULTS)" files_per_job=$(FILES_PER_JOB) \
           $(if $(DATA),data="$(DATA)") $(if $(GPUS),gpus=$(GPUS))
SHIPPING = $(BIN)/python -m pipeline.bundle.shipping --results "$(RESULTS)"
IN_ENV  := PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python -m

help:
	@echo "make run     set up, then run the workflow of CONFIG ($(CONFIG)) to RESULTS ($(RESULTS))"
	@echo "             CONFIG=FILE.yaml  DATA=DIR (your own files)  CORES=N  RESULTS=DIR"
	@echo "             PROFILE=local|slurm|htcondor SITE=DIR (a profile of yours)  FILES_PER_JOB=N  GPUS=N"
	@echo "make pretrained  train the models that ship anew, from their configurations (hours); MODEL=NAME: this one"
	@echo "make test    set up, then run the test suite (LIGHTPOOL_DATA=DIR adds the tests on real files)"
	@echo "make test-cluster  the same on a Slurm cluster of two nodes that it starts here, with faults (minutes)"
	@echo "make lint    check style, spelling, import arrows and the workflow"
	@echo "make bench   run the benchmarks (minutes; not part of the tests)"
	@echo "make docs    build the documentation site in build/docs, its notebooks included"
	@echo "make unlock  release the lock of a killed run, if the next run cannot tell that it is dead"
	@echo "make clean   remove the environment and caches; results are kept"

setup: $(STAMP)

$(STAMP):
	@test -n "$(PYTHON)" || { echo "lightpool needs Python 3.11 or newer: install one, or say make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "Setting up .venv with the versions of constraints.txt (some minutes, once)"
	@"$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch "$@"

run: $(STAMP)
	@$(IN_ENV) snakemake $(if $(SITE),--profile "$(SITE)") --workflow-profile "workflow/profiles/$(PROFILE)" \
	  $(if $(filter local,$(PROFILE)),--cores $(CORES)) $(ARGS) --config $(SETTINGS)

# Of each model: what its evaluation needs, by the workflow, then the copy that ships.
pretrained: $(STAMP)
	@plan=$$($(SHIPPING) --plan $(MODEL)) && echo "$$plan" | while read -r name config evaluation; do \
	  $(MAKE) --no-print-directory run CONFIG="$$config" ARGS="$(ARGS) $$evaluation" </dev/null \
	  && $(SHIPPING) "$$name" || exit 1; done

unlock: $(STAMP)
	@$(IN_ENV) snakemake --unlock --cores 1 --config $(SETTINGS)

test: $(STAMP)
	@$(IN_ENV) pytest -n $(JOBS) --dist loadfile $(ARGS)

test-cluster: $(STAMP)
	@tests/cluster/install-slurm
	@$(IN_ENV) pytest -m cluster tests/cluster $(ARGS)

lint: $(STAMP)
	@$(IN_ENV) ruff check .
	@$(IN_ENV) ruff format --check .
	@$(IN_ENV) snakefmt --check workflow
	@$(IN_ENV) codespell_lib $$(git ls-files)
	@$(BIN)/python -c 'from importlinter.cli import lint_imports_command as main; main()'
	@$(IN_ENV) snakemake --lint --config experiment="$(CONFIG)"

bench: $(STAMP)
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

# A warning is an error: a link that leads nowhere, a page that loads something from another server. Always all pages:
# a second build of what had a warning would be silent.
.PHONY: docs
docs: $(STAMP)
	@$(IN_ENV) sphinx --fail-on-warning --quiet --fresh-env --write-all -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

clean:
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find lightpool models pipeline tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
