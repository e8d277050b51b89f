# Needs only make and Python 3.11 to 3.13 with venv; uses uv if it is on the PATH.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# For bench-peers: a specific PyTorch, such as TORCH=torch==2.13.0+cpu.
TORCH ?=
# Parallel test processes: `make test JOBS=4`. Each takes up to 3 GB of memory.
JOBS ?= 2
STAMP := $(VENV)/.installed

export TF_CPP_MIN_LOG_LEVEL ?= 3

PEERS := $(VENV)/.peers
SITE_TOOLS := $(VENV)/.site
NOTEBOOK_TOOLS := $(VENV)/.notebooks
AXE := $(VENV)/npm/node_modules/axe-core/axe.min.js
MUTANTS := $(VENV)/.mutants
GPU := $(VENV)/.gpu
# Command that installs into an environment.
pip_of = $(if $(shell command -v uv),uv pip install --quiet --python $(1)/bin/python,\
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check)
PIP = $(call pip_of,$(VENV))
# For test-keras: versions other than the newest, such as KERAS=3.14.1 TF=2.21.
KERAS ?=
TF ?= 2.21
KERAS_VENV = .venv-keras-$(KERAS)-tf-$(TF)

# What `make test-quick` runs: of each package the tests that tell most for their time.
LOOP := tests/manual_loop
QUICK := tests/test_imports.py tests/test_details.py tests/test_equality_can_fail.py \
	tests/keras_fit tests/fit_unfolded/common tests/fit_unfolded/workloads \
	tests/fit_unfolded/comparison/test_ulp.py tests/fit_unfolded/comparison/test_report.py \
	tests/fit_unfolded/comparison/test_compare.py::test_everything_is_compared \
	tests/fit_unfolded/cli/test_command_line.py::test_help_is_plain_and_fits_the_terminal \
	tests/fit_unfolded/explain/test_explain.py::test_each_event_points_at_the_line_that_makes_the_call \
	tests/fit_unfolded/pitfalls/test_pitfalls.py::test_what_is_shown_is_what_runs \
	tests/fit_unfolded/bench/test_bench.py::test_turns_alternate_until_the_time_is_over \
	$(LOOP)/test_one_page.py::test_the_page_is_fit $(LOOP)/test_errors.py \
	$(LOOP)/test_parity_fit.py::test_fit $(LOOP)/test_parity_fit.py::test_evaluate \
	$(LOOP)/test_parity_models.py::test_each_kind_of_model \
	$(LOOP)/compiled/test_parity_compile.py::test_a_dict_of_outputs \
	$(LOOP)/data/test_parity_data.py::test_lists_and_tuples_of_inputs \
	$(LOOP)/data/test_parity_weights.py::test_reductions \
	$(LOOP)/execution/test_bound_step.py $(LOOP)/execution/test_tracing.py \
	$(LOOP)/distribution/test_multi_worker.py::test_a_rendezvous \
	$(LOOP)/saving/test_parity_saving.py::test_all_that_was_compiled_comes_back

.PHONY: compare bench bench-calls bench-peers gpu-check has-gpu scaling test test-quick test-keras \
	fuzz fuzz-files keras-suite mutants torture soak wrong-calls corpus wheel-test site site-test \
	notebooks lint format clean

compare: $(STAMP)
	$(BIN)/fit-unfolded compare

bench: $(STAMP)
	$(BIN)/fit-unfolded bench --submit

# Each call on this machine, by pytest-benchmark: for work on the code, not for claims.
bench-calls: $(STAMP)
	$(BIN)/python -m pytest benchmarks

bench-peers: $(PEERS)
	$(BIN)/fit-unfolded bench --peers --submit

# Parity, tolerances and throughput on this machine's GPU; writes results/gpu-check.md.
gpu-check: has-gpu $(GPU)
	$(BIN)/fit-unfolded gpu-check

# Checked before anything is installed: NVIDIA's libraries are large.
has-gpu:
	@nvidia-smi -L >/dev/null 2>&1 || { \
		echo 'error: no GPU found: `nvidia-smi -L` lists none. Check its driver first.' >&2; \
		exit 2; }

# Replicas and workers on this machine, and a cost model of a step: see docs/scaling.md.
scaling: $(STAMP)
	$(BIN)/python -m fit_unfolded.bench.scaling $(or $(FILE),scaling.json)

# Whole files to each process, in the order of tests/conftest.py: tests of a file share models.
test: lint
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Before every commit: below 90 seconds
test-quick: lint
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(QUICK)

# The parity tests with another Keras and TensorFlow, in an environment of their own; writes what
# was measured into docs/versions.md.
test-keras:
	@case "$(KERAS)" in ?*.?*.?*) ;; *) \
		echo 'error: which Keras? Such as: make test-keras KERAS=3.14.1 TF=2.21' >&2; exit 2;; esac
	@test -e $(KERAS_VENV)/.installed || { \
		echo 'Installing into $(KERAS_VENV): some minutes, once.'; \
		$(PYTHON) -m venv $(KERAS_VENV) && \
		$(call pip_of,$(KERAS_VENV)) --editable '.[test]' 'keras==$(KERAS)' 'tensorflow==$(TF).*' && \
		touch $(KERAS_VENV)/.installed; }
	$(KERAS_VENV)/bin/python tests/support/versions.py --jobs $(JOBS) --write

# Random examples with both implementations: make fuzz N=1000
fuzz: $(STAMP)
	$(BIN)/python tests/support/fuzz.py $(or $(N),100)

# Damaged and hostile files, each loaded: make fuzz-files N=5000 SEED=1
fuzz-files: $(STAMP)
	$(BIN)/python tests/support/fuzz_files.py $(or $(N),5000) --seed $(or $(SEED),1) \
		--jobs $(JOBS) --write

# Keras's own tests of training and of callbacks, with the loop in the place of fit
keras-suite: $(PEERS)
	$(BIN)/python tests/support/keras_suite.py --write --jobs $(JOBS)

# Mutation testing of the loop, see docs/mutants.md: make mutants N=300
mutants: $(MUTANTS)
	$(BIN)/python tests/support/mutants.py $(or $(N),150) --jobs $(JOBS)

# Trainings that are killed at random moments and started again: make torture N=100 WORKERS=2
torture: $(STAMP)
	$(BIN)/python tests/support/torture.py $(or $(N),100) --workers $(or $(WORKERS),1) --write

# Every parameter with wrong types and values; writes the counts into docs/reliability.md.
wrong-calls: $(STAMP)
	$(BIN)/python tests/support/wrong_calls.py --write

# A long training in one process, beside fit: make soak MINUTES=30
soak: $(STAMP)
	$(BIN)/python tests/support/soak.py $(or $(MINUTES),30) --write

# How well `fit-unfolded check` diagnoses hand-written loops; writes the figures into docs/check.md.
corpus: $(STAMP)
	$(BIN)/python tests/support/corpus.py --jobs $(JOBS) --write

# The commands from a wheel that is installed without the checkout, in about five minutes
wheel-test: $(STAMP)
	$(BIN)/python tests/support/wheel.py

# The static site, into site/: some minutes the first time, then seconds until the code changes.
site: $(SITE_TOOLS)
	$(BIN)/python -m website

# Builds the site and tests it in Chromium; contrast by axe-core, where npm is there to install it.
site-test: site
	@if command -v npm >/dev/null 2>&1; then $(MAKE) --no-print-directory $(AXE); fi
	$(BIN)/python -m pytest -q tests/website/test_pages.py tests/website/built_site.py

# Makes the notebooks from their sources, and executes them and the solutions of their exercises.
notebooks: $(NOTEBOOK_TOOLS)
	$(BIN)/python tests/support/notebooks.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/actionlint .github/workflows/*.yml

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamp is written last, so that an interrupted installation is repeated.
$(STAMP): pyproject.toml
	@echo 'Installing into $(VENV): some minutes, once.'
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV); \
	else \
		$(PYTHON) -m venv $(VENV); \
	fi
	@$(PIP) --editable '.[test]'
	@touch $@

$(PEERS): $(STAMP)
	@echo 'Installing PyTorch and JAX into $(VENV): some minutes, once.'
	@$(PIP) --editable '.[test,peers]' $(TORCH)
	@touch $@

$(GPU): $(STAMP)
	@echo 'Installing NVIDIA libraries into $(VENV): some minutes, once.'
	@$(PIP) --editable '.[test,gpu]'
	@touch $@

$(SITE_TOOLS): $(STAMP)
	@$(PIP) --editable '.[test,site]'
	@touch $@

$(NOTEBOOK_TOOLS): $(STAMP)
	@$(PIP) --editable '.[test,notebooks]'
	@touch $@

$(AXE):
	@npm install --silent --no-fund --no-audit --prefix $(VENV)/npm axe-core@4

$(MUTANTS): $(STAMP)
	@$(PIP) --editable '.[test,mutants]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-keras-* results build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -path ./.git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
