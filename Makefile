# Needs only make and Python 3.11 to 3.13 with venv; uv is used where it is on the PATH.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# For bench-peers: another requirement for PyTorch, such as torch==2.13.0+cpu.
TORCH ?=
STAMP := $(VENV)/.installed

export TF_CPP_MIN_LOG_LEVEL ?= 3

PEERS := $(VENV)/.peers

.PHONY: compare bench bench-peers test fuzz lint format clean

compare: $(STAMP)
	$(BIN)/fit-unfolded compare

bench: $(STAMP)
	$(BIN)/fit-unfolded bench

bench-peers: $(PEERS)
	$(BIN)/fit-unfolded bench --peers

test: lint
	$(BIN)/python -m pytest -q

# Random examples on both sides: make fuzz N=1000
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz.py $(or $(N),100)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamp is written last, so that an installation broken off is done again.
$(STAMP): pyproject.toml
	@echo 'Installing into $(VENV): some minutes, once.'
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
		uv pip install --quiet --python $(BIN)/python --editable '.[test]'; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'; \
	fi
	@touch $@

$(PEERS): $(STAMP)
	@echo 'Installing PyTorch and JAX into $(VENV): some minutes, once.'
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --quiet --python $(BIN)/python --editable '.[test,peers]' $(TORCH); \
	else \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,peers]' $(TORCH); \
	fi
	@touch $@

clean:
	rm -rf $(VENV) results build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -path ./.git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
