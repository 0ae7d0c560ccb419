# make example   compiles a real model and evaluates it       (both do all set-up; they need python3, git and make)
# make test      runs all tests and checkers
# make self-test, lint, format, firmware, clean: see below

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
# Optional dependencies that tests get; with dev,tensorflow networks are compared with TensorFlow, too.
EXTRAS ?= dev
export PYTHON

BIN := $(VENV)/bin
READY := $(VENV)/.ready
comma := ,
READY_DEV := $(VENV)/.ready-$(subst $(comma),-,$(EXTRAS))
REQUIREMENTS := pyproject.toml constraints.txt tools/set_up.sh

EXAMPLE_MODEL := examples/models/watch_gesture.h5
EXAMPLE_DATA := examples/models/watch_gesture.test.json
EXAMPLE_OUTPUT := built

.PHONY: all example test unit lit lint format self-test firmware clean

all: example

# What a user needs.
$(READY): $(REQUIREMENTS)
	@tools/set_up.sh $(VENV)
	@touch $@

# What a developer needs.
$(READY_DEV): $(REQUIREMENTS)
	@tools/set_up.sh $(VENV) $(EXTRAS)
	@touch $(READY) $@

example: $(READY)
	$(BIN)/ml4f $(EXAMPLE_MODEL) --output $(EXAMPLE_OUTPUT) --eval $(EXAMPLE_DATA)

test: unit lit lint

unit: $(READY_DEV)
	$(BIN)/python -m pytest -n $(JOBS)

lit: $(READY_DEV)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/lit -j $(JOBS) tests/lit

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(READY_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every sample network, float32 and float16, compiled and validated.
self-test: $(READY)
	$(BIN)/ml4f self-test

# The example as a firmware on QEMU's Cortex-M4 board; needs arm-none-eabi-gcc and qemu-system-arm.
firmware: example
	$(MAKE) -C examples/firmware run MODEL_DIR=$(abspath $(EXAMPLE_OUTPUT)) MODEL=$(basename $(notdir $(EXAMPLE_MODEL)))

clean:
	rm -rf $(VENV) built examples/firmware/build
