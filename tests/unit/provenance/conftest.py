"""A small project with two jobs, of which one makes what the other reads."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from prophet_moe.files import write_csv, write_json, write_text
from prophet_moe.provenance.sidecar import origin, write_sidecar

CITATION = """cff-version: 1.2.0
title: Small project
version: 1.2.3
date-released: 2001-02-03
license: Apache-2.0
abstract: A project for tests.
authors:
  - name: The makers
  - family-names: Lovelace
    given-names: Ada
"""
SOURCES = {
    ".gitignore": "results/\n",
    "CITATION.cff": CITATION,
    "LICENSE": "Apache-2.0\n",
    "README.md": "# Small project\n",
    "Snakefile": "# two rules\n",
    "config/settings.yaml": "batch: 4\n",
    "run.sh": "#!/bin/sh\n",
    "workflow/scripts/measure.py": "\n",
    "workflow/studies/counting/compute.py": "\n",
}
OUTPUTS = ("tables/table.csv", "figures/figure.pdf", "figures/figure.png")
MEASURED = "results/measured.csv"
RULES = {"measure": "Measure.", "counting": "Count."}
CAPTIONS = {"tables/table.csv": "A table of numbers.", "figures/figure": "A figure of these numbers."}


def make(outputs: list[str], rule: str, inputs: list[str], script: str, parameters: dict) -> None:
    """Write the sidecars of outputs that are there."""
    made_from = origin(rule, [Path(path) for path in inputs], [Path(script)], parameters)
    for output in outputs:
        write_sidecar(Path(output), made_from)


@pytest.fixture(scope="module")
def small_project(tmp_path_factory) -> Iterator[Path]:
    """The project, a git checkout with its outputs, as the current folder."""
    folder = tmp_path_factory.mktemp("small") / "a project"
    with pytest.MonkeyPatch.context() as patch:
        folder.mkdir()
        patch.chdir(folder)
        for path, text in SOURCES.items():
            write_text(Path(path), text)
        Path("run.sh").chmod(0o755)
        write_csv(Path(MEASURED), pd.DataFrame({"value": [1, 2]}))
        make([MEASURED], "measure", ["config/settings.yaml"], "workflow/scripts/measure.py", {"batch": 4})
        write_csv(Path(OUTPUTS[0]), pd.DataFrame({"sum": [3]}))
        for path in OUTPUTS[1:]:
            write_text(Path(path), path)
        parameters = {"limits": [1, 2], "batch": 4}
        make([*OUTPUTS], "counting", [MEASURED], "workflow/studies/counting/compute.py", parameters)
        write_json(Path("results/captions/crate.json"), {"rules": RULES, "captions": CAPTIONS})
        for command in (["init", "-q"], ["add", "."]):
            subprocess.run(["git", *command], check=True)
        yield folder
