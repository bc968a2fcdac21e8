# Everything needs only Python (3.11 or later), git and make:
#   make demo    install into .venv and run the main job (about two minutes)
#   make test    install into .venv and run the tests
#   make bench   the same, with the peers, and run the benchmarks
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread per process: the networks are small, and processes run side by side.
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg

.PHONY: demo test test-slow lint bench clean help

help:
	@sed -n '2,4p' Makefile | cut -c3-

demo: $(VENV)/.installed
	@echo "==> The main job: attack, defend and cross-validate (examples/plot_quickstart.py)"
	$(BIN)/python examples/plot_quickstart.py

test: $(VENV)/.installed
	@echo "==> The tests (the slow ones: make test-slow)"
	$(BIN)/python -m pytest -n 2 -q -m "not slow"

test-slow: $(VENV)/.installed
	@echo "==> The slow tests"
	$(BIN)/python -m pytest -n 2 -q -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.bench
	@echo "==> The benchmarks (figures go to benchmarks/RESULTS.md)"
	for script in benchmarks/bench_*.py; do \
	echo "==> $$script"; $(BIN)/python $$script --write || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) was not found; \
	install Python 3.11 or later, or call make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "error: $(PYTHON) is older than Python 3.11; call make PYTHON=/path/to/python"; \
	exit 1; }
	@echo "==> Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "error: could not create a virtual \
	environment (on Debian and Ubuntu: install python3-venv)"; exit 1; }

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "==> Installing sklearn_advsec and what it needs into $(VENV)"
	@$(BIN)/python -m pip install -q -c constraints.txt -e ".[test]" || { \
	echo "error: the installation failed; see the messages above"; exit 1; }
	@touch $@

# The peers ask for packages that they do not need here (or for another torch): they are
# installed without them.
$(VENV)/.bench: $(VENV)/.installed
	@echo "==> Installing the peers"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[test,bench]"
	$(BIN)/python -m pip install -q --no-deps torchattacks==3.5.1 cleverhans==4.0.0
	@touch $@
