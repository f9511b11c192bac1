# `make` sets everything up and runs the main job; `make test` passes the tests. Both can be run again at any time.
SHELL := /bin/bash
VENV := .venv
CORES := 8
FUZZ_FACTOR := 95
MINUTES := 12
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHON ?= python3

.PHONY: all setup kick_the_tires gpu campaign trace test fuzz test-peers lint bench docs verify lab report archive clean lock help

all: setup
	snakemake --cores $(CORES)

setup: $(VENV)/ready

help:
	@printf '%s\n' \
	'make             set everything up and run the main job (CORES=8)' \
	'make setup       the environment alone, in .venv' \
	'make kick_the_tires  three minutes: build a little, compare, test, and say what passed' \
	'make verify      compare the outputs with the committed ones' \
	'make lab         JupyterLab on the notebooks' \
	'make report      results/report/index.html: claims, charts, plans, figures and tables in one page' \
	'make archive     results/archive/: sources, outputs, their RO-Crate and checksums in one file' \
	'make test        all tests' \
	'make fuzz        200,000 examples of hostile input, on one core (FUZZ_FACTOR=95)' \
	'make bench       speed and memory beside peers' \
	'make gpu         the environment with PyTorch, in .venv-gpu (1.4 GB)' \
	'make campaign    measure the GPU of this machine (MINUTES=12)' \
	'make test-peers  tests against Hugging Face Transformers' \
	'make trace       train the small models and record their traces afresh' \
	'make lint        all checks of the sources' \
	'make docs        renew generated pages, schemas and drawings' \
	'make lock        renew the locked requirements' \
	'make clean       remove what was built, but for figures and tables'

$(VENV)/ready: envs/bootstrap.txt envs/analysis.txt pyproject.toml
	envs/install.sh $(VENV) envs/analysis.txt
	@echo "Compiling the kernels"
	$(VENV)/bin/python -m prophet_moe.compile_kernels
	touch $@

# roc-validator asks for an older rich than the locked one, and runs without it.
$(VENV)/dev: $(VENV)/ready envs/dev.txt envs/crate.txt
	envs/install.sh $(VENV) envs/dev.txt
	$(VENV)/bin/python -m pip install --quiet --no-deps --require-hashes -r envs/crate.txt
	touch $@

# A first look: it changes no file that git knows.
kick_the_tires: $(VENV)/dev
	prophet-moe kick-the-tires

test: $(VENV)/dev
	pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The tests of hostile input alone, with so many times the examples of `make test`; the end tells how many passed.
fuzz: $(VENV)/dev
	python -m prophet_moe.compile_kernels
	FUZZ_FACTOR=$(FUZZ_FACTOR) pytest -m fuzz tests/unit tests/studies

# PyTorch and Transformers, to collect traces and to test against them, in an environment of their own (1.4 GB).
gpu: .venv-gpu/ready

# libCacheSim's binding asks for packages that disagree with the locked ones and that it runs without.
.venv-gpu/ready: envs/gpu.txt envs/peers.txt pyproject.toml
	envs/install.sh .venv-gpu envs/gpu.txt torch==2.13.0
	.venv-gpu/bin/python -m pip install --quiet --no-deps --only-binary :all: --require-hashes -r envs/peers.txt
	touch $@

# Measure the GPU of this machine, all that fits into the minutes; called again, it goes on.
campaign: gpu
	.venv-gpu/bin/python -m prophet_moe.collect campaign --minutes $(MINUTES)

# Parameter counts, KV bytes and recorded routing against Hugging Face Transformers.
test-peers: gpu
	.venv-gpu/bin/python -m pytest tests/peers

# Train the small models and record their traces afresh, then make these the recorded ones.
trace: setup gpu
	snakemake --cores $(CORES) --configfile config/overlays/collect.yaml --until collect_trace
	mkdir -p resources/traces
	cp -r results/traces/. resources/traces/

lint: $(VENV)/dev
	ruff check .
	ruff format --check .
	snakefmt --check --compact-diff Snakefile workflow docs/examples
	lint-imports
	prophet-moe config check
	nbstripout --keep-id --verify notebooks/*.ipynb docs/examples/*/*.ipynb

# What is made from the code: pages, schemas and drawings. Tests fail when they are out of date.
docs: setup
	prophet-moe config write
	python docs/draw_architecture.py
	python docs/draw_timeline.py

# Speed and memory side by side with peers; benches/policies.py needs `make gpu` and runs there.
bench: setup
	python benches/capacity_sweep.py
	python benches/predictor.py
	python benches/synthetic_generator.py
	python benches/import_traces.py
	python benches/describe_trace.py --whole

verify: setup
	snakemake --cores 2 verify

# From afar: make lab LAB_ARGS="--no-browser --ip 0.0.0.0 --port 8899". Root, as in containers, has to be allowed.
lab: setup
	jupyter lab notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS)

# The page of this project, and Snakemake's own report of the workflow.
report: all
	snakemake --cores $(CORES) report_page
	snakemake --report results/report.html

archive: all
	snakemake --cores $(CORES) crate
	python -m prophet_moe.provenance.archive

clean:
	rm -rf results logs benchmarks .snakemake paper/main.pdf paper/supplement.pdf

# Renew the locked requirements from pyproject.toml. No index or address is recorded.
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet
lock: setup
	$(LOCK) pyproject.toml -o envs/analysis.txt
	$(LOCK) --group pyproject.toml:dev -c envs/analysis.txt -o envs/dev.txt
	$(LOCK) --group pyproject.toml:gpu -c envs/analysis.txt -o envs/gpu.txt
	echo roc-validator | $(LOCK) --no-deps - -o envs/crate.txt
