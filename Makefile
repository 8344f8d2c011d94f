# Two commands do everything on a fresh machine (Python 3.11+, make, git):
#   make demo    environment, generated images, the whole chain on the CPU, the report
#   make test    the quick tests; make test-all adds the slow ones and Slurm, make test-long runs the small papers
# Without a GPU, TORCH=cpu saves three quarters of the disk space, for example: make demo TORCH=cpu
SHELL := /bin/bash
.DELETE_ON_ERROR:
PYTHON ?= python3
TORCH ?= cuda
ifeq ($(filter cpu cuda,$(TORCH)),)
$(error TORCH is cpu or cuda, not $(TORCH))
endif
UV_VERSION := 0.13.8
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo results weights test test-all test-long check platforms bench gpu-check docs docs-images lock clean

# Two trainings at a time, with half of the cores each: small networks use many cores badly.
HALF := $(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN) + 1) / 2 )))
demo: .venv/ready
	@$(BIN)/snakemake --cores all --configfile config/demo.yaml --resources gpu=2 \
		--set-threads index=1 pretext=$(HALF) features=1 cluster=1 label=1 student=$(HALF) evaluate=1
	@echo "The report: $(CURDIR)/results/demo/report/index.html"

# A study of docs/results.md from scratch, on two cores: demo takes half an hour, noroozi2018 needs images and hours.
STUDY ?= demo
results: .venv/ready
	$(BIN)/snakemake --cores all --configfile config/studies/$(STUDY).yaml

# Weights of models of a study with their cards, for a release: results/studies/STUDY/weights.
MODELS ?= cc-jigsawpp-s0 jigsawpp-s0
weights: .venv/ready
	@cd results/studies/$(STUDY) && mkdir -p weights && for model in $(MODELS); do \
		ssltransfer export $$(ls {pretext,student}/$$model/manifest.json 2> /dev/null) weights/$$model.safetensors \
			--metrics $$(ls evaluate/*/$$model.json) || exit 1; \
	done

# One process per core, one test file at a time; each test computes on one thread.
PARALLEL := --numprocesses auto --maxprocesses 8 --dist loadfile

test: .venv/ready
	$(BIN)/pytest $(PARALLEL)

test-all: check test
	$(BIN)/pytest $(PARALLEL) --no-loadscope-reorder -m "slow and not real" --durations=40
	$(BIN)/pytest -m slurm

test-long: .venv/ready
	$(BIN)/pytest $(PARALLEL) --no-loadscope-reorder -m long

check: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python tools/check_language.py
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

# Whether the lock can be installed on every platform; asks the package index.
platforms: .venv/ready
	$(BIN)/python tools/check_platforms.py

# Benchmarks at full size (docs/performance.md): an hour on two cores.
bench: .venv/ready
	$(BIN)/python -m benchmarks

# All that only a GPU can show, in under 9 minutes: its tests and its rows of the benchmarks (tools/gpu_check.sh).
gpu-check: .venv/ready
	tools/gpu_check.sh

# The documentation as a site: site/html/index.html. A warning of Sphinx is an error.
docs: .venv/ready
	$(BIN)/python tools/docs_site.py site

# Figures of docs/protocols.md, drawn by the code of the pretext tasks.
docs-images: .venv/ready
	$(BIN)/python -m docs.draw

# The environment, from the lock file alone; updated when the lock file changes. uv comes from PyPI, into the environment.
# A job is a process, and imports compiled packages faster. Nothing compiles them later in a read-only environment.
# With TORCH=cpu uv takes torch and torchvision, of the same versions, from PyTorch's index of CPU builds.
.venv/ready: export UV_COMPILE_BYTECODE := 1
.venv/ready: envs/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
ifeq ($(TORCH),cpu)
	$(BIN)/python tools/cpu_lock.py envs/requirements.lock > .venv/cpu.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --require-hashes -r .venv/cpu.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --torch-backend cpu \
		$$(grep -oE '^torch(vision)?==[^ ]+' envs/requirements.lock)
else
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --require-hashes -r envs/requirements.lock
endif
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

# Renew the lock: the newest versions that pyproject.toml allows, for Python 3.11 and later.
lock: .venv/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --no-header \
		--no-annotate --no-emit-index-url --upgrade pyproject.toml -o envs/requirements.lock

clean:
	rm -rf results data site .snakemake
