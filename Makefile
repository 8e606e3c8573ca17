# minictr: from a clean clone on a Debian machine, as root.  `make` lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV    := .venv
BIN     := $(VENV)/bin
PYTEST  := $(BIN)/pytest
PIP     := $(BIN)/python -m pip --disable-pip-version-check -q
ARGS    ?=

# What an installation is made of: a change of any of these installs anew. Directories are in it for removed files.
SOURCES := pyproject.toml setup.py MANIFEST.in $(wildcard scripts/minictr) \
           $(shell find minictr -name __pycache__ -prune -o \( -type d -o -name '*.py' -o -name '*.[chS]' \
             -o -name '*.pyi' -o -name py.typed \) -print)

.PHONY: help install demo test test-bench test-faults test-matrix lint guest bench security-report clean
PACKAGES := packages-run packages-test packages-matrix packages-bench packages-report
.PHONY: $(PACKAGES)

help: ## this list
	@sed -n 's/^\([a-z-]*\): .*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo
	@echo '  ARGS="..." is handed on: make test ARGS="-k mounts -x", make bench ARGS="lifecycle --quick"'

install: packages-run $(VENV)/.run-tools ## Debian packages, a virtual environment in .venv, and minictr in it

demo: install ## a small root file system from this machine's own files, and a container in it
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh

test: packages-test $(VENV)/.test-tools ## the whole suite; ends with the proof that nothing was left on the host
	$(PYTEST) $(ARGS)

test-faults: packages-test $(VENV)/.test-tools ## every system call fails, and is the last, in turn (docs/faults.md): 20 minutes
	$(PYTEST) -m faults tests/faults $(ARGS)

test-bench: packages-test packages-bench $(VENV)/.test-tools ## the bench's environments that need daemons, or a whole Debian: docker, podman
	$(PYTEST) -m bench tests/bench $(ARGS)
test-matrix: packages-matrix $(VENV)/.test-tools ## other kernels (User-mode Linux, QEMU) and other Pythons (docs/testing.md): 16 minutes
	$(PYTEST) -m matrix tests/guests tests/pythons $(ARGS)

lint: packages-test $(VENV)/.test-tools ## formatting, types, import rules, lengths, C syntax: a part of `make test`
	$(PYTEST) -m lint tests/house $(ARGS)

guest: packages-test $(VENV)/.test-tools ## pytest on another kernel: make guest ARGS="unified tests/kernel/test_mounts.py"
	@$(BIN)/python tests/guests/guest.py $(or $(ARGS),unified tests/guests/inside.py)

bench: packages-bench $(VENV)/.bench-tools ## everything in 25 minutes: five workloads, single operations, ablations, and one report in results/
	$(BIN)/python -m bench $(or $(ARGS),all)

security-report: packages-report $(VENV)/.run-tools ## every class of escape, tried in every runtime found here (docs/security.md)
	@$(BIN)/python tests/security/report $(ARGS)

clean: ## remove what the targets above made, the virtual environment included
	rm -rf $(VENV) build dist minictr.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find minictr bench examples tests -name __pycache__ -prune -exec rm -rf {} +
	@scripts/demo.sh --remove

$(PACKAGES): packages-%:
	@scripts/bootstrap.sh $*

$(BIN)/python:
	@python=$$(scripts/bootstrap.sh --python) && echo "virtual environment: $$python" && "$$python" -m venv $(VENV)

# minictr, with the extra of this name. build/ is removed first: setuptools would ship modules that have since been deleted
$(VENV)/.run-tools $(VENV)/.test-tools $(VENV)/.bench-tools: $(VENV)/.%-tools: $(SOURCES) | packages-% $(BIN)/python
	@echo 'installing minictr$(if $(filter-out run,$*), and the $* tools)'
	@rm -rf build minictr.egg-info
	@$(PIP) install --use-pep517 '.$(if $(filter-out run,$*),[$*])'
	@rm -rf build minictr.egg-info
	@touch $(VENV)/.run-tools $@
