# make sweep, make test and make ui are all that a newcomer needs; each builds .venv first where it is missing.
PYTHON ?= python3
BIN := .venv/bin
RESULTS ?= results
PORT ?= 5000

.PHONY: sweep test test-all test-up lint ui bench clean

sweep: .venv/installed data/sample
	$(BIN)/python sweep/run.py --resume --results $(RESULTS)

# Side by side, so each with one thread; four at most, since each may take 2.6 GB.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" --numprocesses logical --maxprocesses 4 $(PYTEST)

test-all: .venv/installed
	$(BIN)/pytest $(PYTEST)

# `ray up` to `ray down` with both cluster files, on loopback: minutes, on a busy machine many; wants root, sshd and rsync, and says so.
test-up: .venv/installed
	$(BIN)/pytest -rs tests/sweep/test_ray_up.py $(PYTEST)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ui: .venv/installed
	$(BIN)/mlflow ui --backend-store-uri sqlite:///$(RESULTS)/mlflow.db --host 127.0.0.1 --port $(PORT)

# What preparation, training, the sweep, prediction and tracking cost beside the least possible: some forty minutes.
bench: .venv/installed
	$(BIN)/python benchmarks/preparation.py --json
	$(BIN)/python benchmarks/training.py --json
	$(BIN)/python benchmarks/sweep.py --json
	$(BIN)/python benchmarks/prediction.py --json
	$(BIN)/python benchmarks/tracking.py --json

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; give a newer one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

data/sample: | .venv/installed
	$(BIN)/sn7 sample $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
