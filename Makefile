# `make demo` and `make test` each make a virtual environment where none is, and install what is locked.
PYTHON ?= python3
VENV ?= .venv
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
LOCK := $(wildcard locks/$(VERSION).txt)
BIN := $(VENV)/bin

.PHONY: demo test test-parity test-prepare lint table ablation lock clean

$(BIN)/.installed: setup.cfg pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(LOCK),--constraint $(LOCK),) --editable '.[data,dev]'
	touch $@

demo: $(BIN)/.installed
	$(BIN)/python launch.py --config configs/hcml_sprites.py --workdir runs/sprites
	$(BIN)/python launch.py --config configs/supervised_sprites.py --workdir runs/supervised
	$(BIN)/python -m hcml_jax.evaluation.compare runs/sprites runs/supervised

test: $(BIN)/.installed
	$(BIN)/python -m pytest --ignore tests/parity --ignore tests/prepare --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Backbones against PyTorch's. Installs PyTorch, which nothing else needs.
test-parity: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet $(if $(LOCK),--constraint $(LOCK),) --editable '.[data,dev,parity]'
	XLA_FLAGS= $(BIN)/python -m pytest tests/parity --numprocesses 2

# Preparation by Apache Beam, in an environment of its own: Beam takes an older protobuf than the rest.
PREPARE_LOCK := $(wildcard locks/prepare-$(VERSION).txt)
.venv-prepare/.installed: setup.cfg $(PREPARE_LOCK)
	$(PYTHON) -m venv .venv-prepare
	.venv-prepare/bin/python -m pip install --quiet --upgrade pip
	.venv-prepare/bin/python -m pip install --quiet $(if $(PREPARE_LOCK),--constraint $(PREPARE_LOCK),) --editable '.[data,prepare]' pytest
	touch $@

test-prepare: .venv-prepare/.installed
	.venv-prepare/bin/python -m pytest tests/prepare

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Which method does what. DATA: a folder of UT-Interaction's segmented clips; without it, on sprites alone.
table: $(BIN)/.installed
	$(BIN)/python benchmarks/methods.py --workdir runs/table $(if $(DATA),--data $(DATA),)

ablation: $(BIN)/.installed
	$(BIN)/python benchmarks/ablation.py --workdir runs/ablation

# Writes the lock of this Python's version from what the newest allowed releases install.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade pip
	.venv-lock/bin/python -m pip install --quiet '.[data,dev]'
	mkdir -p locks
	.venv-lock/bin/python -m pip freeze --exclude hcml_jax > locks/$(VERSION).txt
	.venv-lock/bin/python -m pip install --quiet '.[data,prepare]' pytest
	.venv-lock/bin/python -m pip freeze --exclude hcml_jax > locks/prepare-$(VERSION).txt
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) .venv-prepare .pytest_cache .ruff_cache
