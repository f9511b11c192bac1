# `make` sets everything up and runs the main job; `make test` passes the tests. Both can be run again at any time.
SHELL := /bin/bash
VENV := .venv
CORES := 8
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHON ?= python3

.PHONY: all setup test test-peers lint bench verify lab report clean lock

all: setup
	snakemake --cores $(CORES)

setup: $(VENV)/ready

$(VENV)/ready: envs/bootstrap.txt envs/analysis.txt pyproject.toml
	envs/install.sh $(VENV) envs/analysis.txt
	touch $@

$(VENV)/dev: $(VENV)/ready envs/dev.txt
	envs/install.sh $(VENV) envs/dev.txt
	touch $@

test: $(VENV)/dev
	pytest --numprocesses 2 --dist loadgroup

# Parameter counts and KV bytes against Hugging Face Transformers, in an environment of their own (1.3 GB).
test-peers: .venv-peers/ready
	.venv-peers/bin/python -m pytest tests/peers

.venv-peers/ready: envs/peers.txt
	envs/install.sh .venv-peers envs/peers.txt torch==2.13.0
	touch $@

lint: $(VENV)/dev
	ruff check .
	ruff format --check .
	snakefmt --check --compact-diff Snakefile workflow/rules
	lint-imports
	prophet-moe config check
	nbstripout --keep-id --verify notebooks/*.ipynb
	snakemake --lint

# Speed and memory of the capacity sweep, side by side with its peers.
bench: setup
	python benches/capacity_sweep.py

verify: setup
	snakemake --cores 2 verify

lab: setup
	jupyter lab notebooks

report: setup
	snakemake --report results/report.html

clean:
	rm -rf results logs benchmarks .snakemake paper/main.pdf

# Renew the locked requirements from pyproject.toml. No index or address is recorded.
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet
lock: setup
	$(LOCK) pyproject.toml -o envs/analysis.txt
	$(LOCK) --group pyproject.toml:dev -c envs/analysis.txt -o envs/dev.txt
	$(LOCK) --group pyproject.toml:peers -c envs/analysis.txt -o envs/peers.txt
