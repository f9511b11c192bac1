#!/usr/bin/env bash
# Snakemake runs this inside a fresh conda environment of the workflow: it installs the library from the checkout.
set -euo pipefail
python -m pip install --quiet --no-deps --no-build-isolation --editable .
