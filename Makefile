# make demo    install everything into .venv, run the whole line on the digits, print the verdict
# make test    install everything into .venv and the simulators beside it (1.5 GB), check the code, run the whole test suite;
#              ACCEPT="rockpool nengo_loihi" tests these too, whose licences restrict what you may do with them
# make lint    only check the code          make clean    remove what make made
#
# Both targets make what they need and rely on nothing the other left. PYTHON=... chooses the interpreter.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell for name in python3.11 python3.12 python3; do $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .make
# Folders too: their date changes when a file is deleted.
SOURCES := $(shell find toolchain models export hardware_sims -name __pycache__ -prune -o -print 2>/dev/null)
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PYTHONSAFEPATH := 1

# Simulators in environments of their own that the tests run.
ACCEPT :=
BACKENDS := lava netx sinabs spikingjelly spyx $(ACCEPT)

.PHONY: help demo test lint install lava backends neurobench clean
help:
	@sed -n '1,6s/^# \{0,1\}//p' Makefile

$(STAMPS)/python: Makefile .ci/check-machine
	@mkdir -p $(STAMPS)
	@bash .ci/check-machine "$(PYTHON)"
	@echo "making $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv --clear $(VENV)
	@touch $@

$(STAMPS)/dependencies: $(STAMPS)/python pyproject.toml constraints.txt .ci/requirements
	@echo "installing dependencies into $(VENV) (about 2 GB, minutes); log: $(STAMPS)/install.log"
	@$(BIN)/python .ci/requirements > $(STAMPS)/requirements.txt
	@$(PIP) install -c constraints.txt -r $(STAMPS)/requirements.txt 2>&1 | tee $(STAMPS)/install.log | sed -un 's/^Collecting \([^ ]*\).*/  \1/p' \
	  || { tail -n 20 $(STAMPS)/install.log; echo "make: installing failed; the whole log is $(STAMPS)/install.log"; exit 1; }
	@touch $@

$(STAMPS)/installed: $(STAMPS)/dependencies $(SOURCES) pyproject.toml README.md
	@echo "installing snn-export"
	@rm -rf build
	@$(PIP) install -q --no-deps --force-reinstall . || { echo "make: snn-export itself does not install"; exit 1; }
	@rm -rf build
	@touch $@

install: $(STAMPS)/installed

lava: $(STAMPS)/installed
	@$(BIN)/snn-export backends install lava

backends: $(STAMPS)/installed
	@for name in $(BACKENDS); do $(BIN)/snn-export backends install $$name --accept-licence $$name; done

neurobench: $(STAMPS)/installed
	@$(BIN)/python tests/neurobench_environment.py

demo: lava
	@$(BIN)/snn-export run

lint: $(STAMPS)/installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy -p snn_export

test: backends neurobench lint
	@$(foreach name,$(BACKENDS),SNN_EXPORT_REQUIRE_$(shell echo $(name) | tr a-z A-Z)=1) SNN_EXPORT_REQUIRE_NEUROBENCH=1 $(BIN)/python -m pytest -n 2 --dist loadfile

clean:
	@rm -rf $(VENV) $(STAMPS) build snn-export-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
