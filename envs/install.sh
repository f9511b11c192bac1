#!/usr/bin/env bash
# Install hash-locked requirements into a virtual environment: with uv when it can be had, else with pip.
# usage: envs/install.sh VENV REQUIREMENTS [PIP-PACKAGE ...]   packages after the requirements are installed by pip, first
set -euo pipefail
venv=$1 requirements=$2
shift 2

python=${PYTHON:-python3}
command -v "$python" >/dev/null ||
    { echo "error: $python: not found. Run: make PYTHON=/path/to/python3.11" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "error: $("$python" --version) is too old: expected Python 3.11 or newer. Run: make PYTHON=/path/to/python3.11" >&2; exit 1; }

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
quiet="--quiet --disable-pip-version-check"
for package in "$@"; do
    echo "Installing $package"
    "$venv/bin/python" -m pip install $quiet "$package"
done

echo "Installing $requirements into $venv"
if "$venv/bin/python" -m pip install $quiet --require-hashes -r envs/bootstrap.txt 2>/dev/null; then
    install="$venv/bin/uv pip install --quiet --compile-bytecode --python $venv/bin/python"
else
    install="$venv/bin/python -m pip install $quiet"
fi
$install --require-hashes -r "$requirements"
$install --no-deps --no-build-isolation --editable .
