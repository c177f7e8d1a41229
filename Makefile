# `make` alone lists what there is.
PYTHON ?= python3
VENV   := .venv
EXTRAS ?= $(shell cat $(VENV)/extras 2>/dev/null || echo dev)
BIN    := $(VENV)/bin
ARGS   ?=
MODEL  ?= compression@champion
comma  := ,
# A file's tests stay together; tests/conftest.py says which files begin.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
STAMP  := $(VENV)/installed-$(subst $(comma),-,$(EXTRAS))
# The scripts in an environment name the folder that it was made in; the stamp does too. Not empty after `mv` or `cp -r`.
MOVED  := $(shell [ ! -s '$(STAMP)' ] || [ "$$(cat '$(STAMP)')" -ef '$(VENV)' ] || echo moved)

.DEFAULT_GOAL := help
.PHONY: help setup sweep pick serve export verify test test-all exhaustive mutants lint format ui clean lock moved

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv from the lock (EXTRAS=dev,gpu for CUDA; also joblib, ray, submitit, tfds, postgres, zstd, mutants)

# The stamp is written when the environment is whole.
$(STAMP): requirements.lock $(MOVED)
	@bash scripts/setup.sh "$(PYTHON)" "$(VENV)" "$(EXTRAS)"
	@echo "$(EXTRAS)" >$(VENV)/extras
	@(CDPATH= cd $(VENV) && pwd -P) >$@

sweep: $(STAMP)  ## the twelve variants on the embedded default (ARGS="data=image_folder data.path=DIR" for others)
	$(BIN)/python -m src.run -m $(ARGS)

pick: $(STAMP)  ## choose a variant of the latest sweep and register it (ARGS="max_drop=0.02 minimize=latency")
	$(BIN)/python -m src.pick $(ARGS)

serve: $(STAMP)  ## the champion over HTTP, at http://localhost:5000/invocations (MODEL=NAME@ALIAS, ARGS="--port 5001")
	PATH="$(BIN):$$PATH" MLFLOW_TRACKING_URI="$${MLFLOW_TRACKING_URI:-sqlite:///mlruns/mlflow.db}" \
		$(BIN)/python -m mlflow models serve --env-manager local -m "models:/$(MODEL)" $(ARGS)

export: $(STAMP)  ## the champion as a folder for a device team, mlruns/export (ARGS="to=DIR" for another)
	$(BIN)/python -m src.export $(ARGS)

verify: $(STAMP)  ## whether the latest sweep's numbers hold (ARGS="latency=true")
	$(BIN)/python -m src.verify $(ARGS)

test: $(STAMP)  ## the tests (ARGS="-k name" for some)
	$(PYTEST) $(ARGS)

test-all: $(STAMP)  ## the tests, and then those that take minutes
	$(PYTEST) $(ARGS); short=$$?; $(PYTEST) --dist worksteal -m "long and not exhaustive" $(ARGS) \
		&& exit $$short

exhaustive: $(STAMP)  ## what test-all does in a part only: each architecture and head, more damage, more kills
	$(PYTEST) --dist worksteal -m exhaustive $(ARGS)

mutants: $(STAMP)  ## whether tests notice changes of the code that every number rests on (EXTRAS=dev,mutants)
	$(BIN)/python -m benchmarks.mutants $(ARGS)

lint: $(STAMP)  ## format check, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)  ## mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

ui: $(STAMP)  ## the MLflow UI on what was recorded, at http://localhost:5000 (ARGS="--port 5001" for another)
	$(BIN)/python -m mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlruns/mlflow.db}" $(ARGS)

lock: $(STAMP)  ## resolve requirements.lock anew
	bash scripts/lock.sh $(BIN)/uv

clean:  ## delete the environment, the caches and everything recorded in mlruns/
	rm -rf $(VENV) .uv .pytest_cache .mypy_cache .ruff_cache
	find mlruns -mindepth 1 ! -name README.md -delete
