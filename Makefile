# One command from a bare machine (Python 3.11, make) to a result:
#   make simulate     set up, then run the flagship federation
#   make test         set up, then run the fast tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Clones on a machine without a GPU need no CUDA packages: torch is installed first, pinned.
TORCH := torch==2.13.0

.PHONY: simulate test test-all lint types proto setup bench bench-peers bench-continual bench-privacy clean

setup: $(STAMP)

# Reused as long as what it was made from has not changed.
$(STAMP): pyproject.toml constraints.txt
	@echo "== setting up $(VENV) (once; a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,medical]'
	@touch $@

simulate: $(STAMP)
	$(BIN)/fedalt simulate federated_pca

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# Prints a table, stores bench.json and draws bench.png; asserts nothing about time.
# BENCH passes options on: make bench BENCH="--quick --works logistic mlp"
bench: $(STAMP)
	$(BIN)/python tests/benchmarks/bench.py $(BENCH)

# The same with other simulators beside it, each in an environment of its own under .bench/.
bench-peers: $(STAMP)
	$(BIN)/python tests/benchmarks/bench.py --peers $(BENCH)

# Continual streams beside Avalanche, on the same rows: accuracies with paired intervals, and time.
# CONTINUAL passes options on: make bench-continual CONTINUAL="--data fashion_mnist --seeds 3"
bench-continual: $(STAMP)
	$(BIN)/python tests/benchmarks/continual_avalanche.py $(CONTINUAL)

# What a private step costs against a plain one, by each way to rows' gradients; stores dpsgd.json.
bench-privacy: $(STAMP)
	$(BIN)/python tests/benchmarks/dpsgd.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow the package-dir mapping in place, so it checks an installed copy.
types: $(STAMP)
	rm -rf .check && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .check .
	cd .check && ../$(BIN)/python -m mypy --config-file ../pyproject.toml -p fedalt

PROTO := $(addprefix proto/fedalt/v1/,ledger.proto plan.proto report.proto)
# The virtual path makes the generated modules importable as fedalt.wire.v1.
proto: $(STAMP)
	$(BIN)/python -m grpc_tools.protoc -I fedalt/wire/v1=proto/fedalt/v1 \
		--python_out=. --pyi_out=. $(patsubst proto/fedalt/v1/%,fedalt/wire/v1/%,$(PROTO))

clean:
	rm -rf $(VENV) .bench .check build *.egg-info
