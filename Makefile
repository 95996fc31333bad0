# make demo · make test · make lint · make docs: each sets up .venv by itself and installs what it needs.

# The first interpreter that torch's and TensorRT-RTX's wheels exist for.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
# The oldest that the core runs on (JetPack 6's), where there is one; else the same.
CORE_PYTHON ?= $(shell for p in python3.10 $(HOME)/.pyenv/versions/3.10.*/bin/python $(PYTHON); do \
  $$p -c '' 2>/dev/null && echo $$p && break; done)
VENV := .venv
CORE_VENV := .venv-core
INSTALLED := $(VENV)/installed
CORE_INSTALLED := $(CORE_VENV)/installed
# Other tools, which some claims are measured against.
PEERS_VENV := .venv-peers
PEERS_INSTALLED := $(PEERS_VENV)/installed
PIP_OPTIONS := --quiet --disable-pip-version-check --constraint constraints.txt
DEMO := engines/yolov7-tiny-digits.toml

.PHONY: demo docs test test-core lint bench bench-check measure system-packages test-packages clean

demo: $(INSTALLED) system-packages
	$(VENV)/bin/trtq build $(DEMO) --mode fp16,ptq,qat

test: lint test-packages test-core
	$(VENV)/bin/python -m pytest --cov=trtq --cov-report=term:skip-covered

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "open build/site/index.html"

# What a Jetson gets: no torch, no ONNX Runtime, no TensorRT.
test-core: $(CORE_INSTALLED)
	$(CORE_VENV)/bin/python -m pytest -q

lint: $(INSTALLED)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# Measure the claims again; results land in benchmarks/results, and their tables in the README.
bench: measure
	$(VENV)/bin/python -m benchmarks.readme
	$(VENV)/bin/python -m benchmarks.pages

# Measure them elsewhere, and fail where a figure got worse than the recorded one by more than its tolerance.
bench-check:
	rm -rf .records
	TRTQ_RECORDS=.records $(MAKE) measure
	$(VENV)/bin/python -m benchmarks.check .records

measure: $(INSTALLED) $(PEERS_INSTALLED)
	$(VENV)/bin/pip install $(PIP_OPTIONS) onnx-graphsurgeon==0.6.1  # the floor that unify_cost measures against
	$(VENV)/bin/python -m benchmarks.suite --peers $(CURDIR)/$(PEERS_VENV)/bin/python

system-packages:
	@scripts/system-packages.sh

test-packages:
	@scripts/system-packages.sh --tests

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "trtq needs Python 3.11 or 3.12: install one, or name it with make PYTHON=..."; exit 1; }
	@scripts/room-on-disk.sh 6 "the environment of torch and TensorRT-RTX"
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch, ONNX Runtime, TensorRT-RTX (NVIDIA's licence) and trtq into $(VENV): a few minutes"
	$(VENV)/bin/pip install $(PIP_OPTIONS) --editable '.[torch,ort,rtx,docs,dev]'
	@touch $@

$(CORE_INSTALLED): pyproject.toml constraints.txt
	@test -n "$(CORE_PYTHON)" || { echo "trtq needs Python 3.10 or newer: install one, or name it with make CORE_PYTHON=..."; exit 1; }
	$(CORE_PYTHON) -m venv $(CORE_VENV)
	$(CORE_VENV)/bin/pip install $(PIP_OPTIONS) --editable . pytest hypothesis
	@touch $@

$(PEERS_INSTALLED): benchmarks/peers.txt
	@scripts/room-on-disk.sh 6 "the environment of the tools to compare with"
	$(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/pip install --quiet --disable-pip-version-check --requirement benchmarks/peers.txt
	@touch $@

clean:
	rm -rf $(VENV) $(CORE_VENV) $(PEERS_VENV) engines/*/
