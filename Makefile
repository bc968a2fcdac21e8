# Everything needs only Python (3.11 or later), git and make:
#   make demo    install into .venv and audit three models (about four minutes)
#   make test    install into .venv and run the tests
#   make bench   the same, with the peers, and run the benchmarks
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread per process: the networks are small, and processes run side by side.
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg

.PHONY: demo test test-slow test-kernels test-array-api test-oldest test-fuzz \
	tfhe test-tfhe lint docs bench bench-report clean help

help:
	@sed -n '2,4p' Makefile | cut -c3-

demo: $(VENV)/.installed
	@echo "==> The main job: audit three models (examples/audit_three_models.py)"
	$(BIN)/python examples/audit_three_models.py reports

test: $(VENV)/.installed
	@echo "==> The tests (the long and the slow ones: make test-slow)"
	$(BIN)/python -m pytest -n 2 -q -m "not slow and not long" --durations=25

test-slow: $(VENV)/.installed
	@echo "==> The long tests and the slow ones"
	$(BIN)/python -m pytest -n 2 -q -m "slow or long"

# Libraries choose their kernels by the processor, and these add in another order. What
# compares floats (all but scikit-learn's own checks, and with the long tests) has to hold
# with any of them.
KERNEL_haswell := OPENBLAS_CORETYPE=Haswell
# Two processes of two threads each must not wait for each other in loops.
KERNEL_haswell-2 := $(KERNEL_haswell) OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE
KERNEL_skylakex := OPENBLAS_CORETYPE=SkylakeX
KERNEL_nehalem := OPENBLAS_CORETYPE=Nehalem ATEN_CPU_CAPABILITY=default \
	ONEDNN_MAX_CPU_ISA=SSE41
KERNEL_nehalem-2 := $(KERNEL_nehalem) OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE
KERNELS ?= haswell haswell-2 nehalem nehalem-2 \
	$(if $(shell grep -m1 avx512f /proc/cpuinfo),skylakex)

test-kernels: $(addprefix test-kernel-,$(KERNELS))

test-kernel-%: $(VENV)/.installed
	@echo "==> What compares floats, with $(KERNEL_$*)"
	env $(KERNEL_$*) $(BIN)/python -m pytest -n 2 -q -m "not slow" \
	--deselect tests/test_common.py::test_scikit_learn_contract

test-array-api: $(VENV)/.installed
	@echo "==> scikit-learn's array API check, which scipy's setting switches on"
	SCIPY_ARRAY_API=1 $(BIN)/python -m pytest -n 2 -q tests/test_common.py -k array_api

# In an environment of its own. Old libraries warn of what new ones have changed, and
# scikit-learn's checks of today are those of its newest version.
OLDEST := .venv-oldest
# All tests; continuous integration runs a part of them.
OLDEST_TESTS ?=
test-oldest: $(OLDEST)/.installed
	@echo "==> The tests with the oldest versions that pyproject.toml allows"
	$(OLDEST)/bin/python -m pytest -n 2 -q -m "not slow and not long" -W ignore::FutureWarning \
	-W ignore::DeprecationWarning --deselect tests/test_common.py::test_scikit_learn_contract \
	$(OLDEST_TESTS)

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	@echo "==> Installing the oldest versions into $(OLDEST)"
	@$(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip install -q -c constraints-oldest.txt -e ".[test]"
	@touch $@

# Encryption of comparisons runs in an environment of its own, as its library needs an old
# numpy. It is no part of `make test`, which skips what needs it.
TFHE := .venv-tfhe
tfhe: $(TFHE)/.installed
	@echo "==> export SKLEARN_ADVSEC_TFHE=$(abspath $(TFHE)/bin/python)"

test-tfhe: $(VENV)/.installed $(TFHE)/.installed
	@echo "==> The tests of scheme TFHE"
	SKLEARN_ADVSEC_TFHE=$(abspath $(TFHE)/bin/python) \
	$(BIN)/python -m pytest -q tests/encryption/test_tfhe.py

$(TFHE)/.installed: tfhe_requirements.txt
	@echo "==> Installing concrete-python into $(TFHE) (700 MB)"
	@$(PYTHON) -m venv $(TFHE)
	@$(TFHE)/bin/python -m pip install -q --no-deps -r tfhe_requirements.txt
	@touch $@

# At least 10,000 cases of bad input, another sample for every seed.
FUZZ_CASES ?= 10000
FUZZ_SEED ?= 1
test-fuzz: $(VENV)/.installed
	@echo "==> $(FUZZ_CASES) cases of bad input, seed $(FUZZ_SEED)"
	FUZZ_CASES=$(FUZZ_CASES) FUZZ_SEED=$(FUZZ_SEED) $(BIN)/python -m pytest -n 2 -q \
	tests/fuzz

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site: docs/_build/html/index.html. Every example of the gallery is run.
docs: $(VENV)/.docs
	@echo "==> The documentation"
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

bench: $(VENV)/.bench
	@echo "==> The benchmarks (figures go to benchmarks/results)"
	for script in benchmarks/bench_*.py; do \
	echo "==> $$script"; $(BIN)/python $$script --write || exit 1; done
	$(MAKE) bench-report

bench-report: $(VENV)/.installed
	@echo "==> The pages of the benchmarks (benchmarks/README.md)"
	$(BIN)/python benchmarks/report.py

clean:
	rm -rf $(VENV) $(OLDEST) $(TFHE) build dist *.egg-info docs/_build docs/api \
	docs/examples

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

$(VENV)/.docs: $(VENV)/.installed
	@echo "==> Installing what builds the documentation"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[test,docs]"
	@touch $@

# The peers ask for packages that they do not need here (or for another torch): they are
# installed without them.
$(VENV)/.bench: $(VENV)/.installed
	@echo "==> Installing the peers"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[test,bench]"
	$(BIN)/python -m pip install -q --no-deps torchattacks==3.5.1 cleverhans==4.0.0 adv-lib==0.2.8 \
	orion-v2-compiler==2.1.8 orion-v2-lattigo==6.2.4 orion-v2-evaluator==2.1.8
	@touch $@
