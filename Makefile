# Every target sets up what it needs: a machine with Python 3.11 or newer is enough.
# `make help` lists the targets; .ci/run calls the same ones.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
BIN := $(VENV)/bin
PY := $(BIN)/python
# One stamp for each set of extras, so that asking for another set installs it.
comma := ,
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
# More than there are CPUs here: tests wait for daemons, guests and deadlines a good part of their time.
PROCESSES ?= 3
SIDE_BY_SIDE := --numprocesses $(PROCESSES) --dist loadfile
PYTEST_ARGS ?=
SIM_ARGS ?=
CHECKED := olvm actors hypervisor_backends sim guest_agent tests benchmarks examples

.PHONY: help venv libvirt demo demo-kvm test test-fast test-ray test-libvirt sim check format bench docs guest-agent apt-libvirt clean

help:  ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

venv: $(STAMP)  ## Make .venv and install olvm with its development tools

# A Debian without python3-venv makes half an environment and fails; root can mend that, others are told how.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "olvm needs Python 3.11 or newer and $(PYTHON) is older or missing: run make PYTHON=python3.11" >&2; exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >&2; \
	  else \
	    echo "cannot make $(VENV): $(PYTHON) has no venv module; install it (Debian: apt install python3-venv)" >&2; exit 1; \
	  fi; \
	fi
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --editable '.[$(EXTRAS)]'
	@touch $@

# What real hosts on this machine need. Root on Debian gets it; others are told, and their tests with libvirt say why
# they are skipped: at the end of the run, and as failures where CI=true. libvirt-python is built from source, against
# the headers that apt brings.
libvirt: $(STAMP)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  $(PY) -m olvm.lab.requirements >&2 || { echo "tests with libvirt cannot run" >&2; [ "$${CI:-}" != true ]; exit; }; \
	elif ! pkg-config --exists libvirt 2>/dev/null; then \
	  echo "there is no libvirt here, and only root with apt-get can bring it: tests with libvirt will be skipped" >&2; exit 0; \
	fi; \
	if ! $(PY) -c 'import libvirt, pycdlib' 2>/dev/null; then \
	  $(PY) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --editable '.[$(EXTRAS),libvirt]'; \
	fi

demo: $(STAMP)  ## The whole story on this machine
	$(BIN)/olvm demo

demo-kvm: libvirt  ## The story on real KVM: two hosts on this machine, as root on Debian
	$(BIN)/olvm demo --kvm

test: libvirt  ## Every test, in PROCESSES processes: unit first, Ray last
	$(PY) -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)

test-libvirt: libvirt  ## Only the tests with real libvirt and QEMU, each process with a laboratory of its own
	$(PY) -m pytest tests/libvirt $(SIDE_BY_SIDE) $(PYTEST_ARGS)

guest-agent: $(STAMP)  ## The guest agent as one file, dist/olvm-guest-agent.pyz, and what installs it
	@mkdir -p dist
	$(PY) -m guest_agent.build dist

test-fast: $(STAMP)  ## Without Ray, libvirt and slow tests
	$(PY) -m pytest -m 'not ray and not libvirt and not slow' $(PYTEST_ARGS)

test-ray: $(STAMP)  ## Only the tests that start Ray
	$(PY) -m pytest -m ray $(PYTEST_ARGS)

sim: $(STAMP)  ## Two hundred simulated worlds; SIM_ARGS adds to `olvm sim explore`
	$(BIN)/olvm sim explore --seeds 200 $(SIM_ARGS)

check: $(STAMP)  ## Formatting, lint, types, layers: what CI runs before the tests
	$(BIN)/ruff format --check $(wildcard $(CHECKED))
	$(BIN)/ruff check $(wildcard $(CHECKED))
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP)  ## Format the code and mend what ruff can mend
	$(BIN)/ruff format $(wildcard $(CHECKED))
	$(BIN)/ruff check --fix $(wildcard $(CHECKED))

bench: $(STAMP)  ## Run benchmarks/bench_*.py; each writes JSON lines to build/bench
	@mkdir -p build/bench
	@shopt -s nullglob; files=(benchmarks/bench_*.py); \
	  (( $${#files[@]} )) || { echo "there is no benchmarks/bench_*.py to run" >&2; exit 1; }; \
	  for file in "$${files[@]}"; do \
	    name=$$(basename "$$file" .py); echo "== $$name" >&2; \
	    $(PY) "$$file" | tee "build/bench/$$name.jsonl"; \
	  done

docs: $(STAMP)  ## Check the links of every page, then write the CLI reference to build/docs
	$(PY) -m pytest -q tests/architecture/test_documents.py
	@mkdir -p build/docs
	$(PY) -c 'from olvm.cli import app; print(app.generate_docs())' > build/docs/cli.md

apt-libvirt:  ## As root on Debian: install libvirt, QEMU and what builds libvirt-python
	@if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	  echo "cannot install libvirt: this target needs root and apt-get; install libvirt, QEMU and libvirt's headers yourself" >&2; exit 1; \
	fi
	$(MAKE) libvirt

clean:  ## Remove everything that the other targets made
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
