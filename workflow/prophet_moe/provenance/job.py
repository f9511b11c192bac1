"""Run the script of one rule: `python -m prophet_moe.provenance.job SCRIPT FILES PARAMETERS`, as the rules' JOB does.

SCRIPT has a function `build(files, parameters)`. FILES is JSON, `inputs` and `outputs` by name. Every output whose
sidecar is among the outputs gets it.
"""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prophet_moe.errors import exit_on_user_error
from prophet_moe.files import temporary_path
from prophet_moe.provenance.sidecar import origin, sidecar_of, write_sidecar

CODE, SIDECARS = "code", "prov"
"""Names of the inputs that are code, and of the outputs that are sidecars."""


def rule_of(script: Path) -> str:
    """Return the name of the rule that runs a script: both carry one name; `compute.py` carries that of its study."""
    return script.parent.name if script.stem == "compute" else script.stem


def run(script: Path, named: dict[str, dict[str, Any]], parameters: dict[str, Any]) -> None:
    """Run `build` of a script on files by name; `files.config_hash` names what they are made from.

    A UserError ends the process with one line and exit code 1. No temporary file is left.
    """
    paths = {kind: {name: _paths(given) for name, given in files.items()} for kind, files in named.items()}
    listed = [path for name, given in paths["inputs"].items() if name != CODE for path in _listed(given)]
    inputs = [file for path in listed for file in _files(path)]
    outputs = [path for name, given in paths["outputs"].items() if name != SIDECARS for path in _listed(given)]
    try:
        with exit_on_user_error():
            made_from = origin(rule_of(script), inputs, _listed(paths["inputs"][CODE]), parameters)
            files = SimpleNamespace(**paths["inputs"], **paths["outputs"], config_hash=made_from["config_hash"])
            runpy.run_path(str(script))["build"](files, parameters)
            for output in outputs:
                if sidecar_of(output) in _listed(paths["outputs"].get(SIDECARS, [])):
                    write_sidecar(output, made_from)
    finally:
        # What another process of this job, such as a notebook's kernel, left when it was stopped.
        for output in outputs:
            temporary_path(output).unlink(missing_ok=True)


def _paths(given: str | list[str]) -> Path | list[Path]:
    return Path(given) if isinstance(given, str) else [Path(path) for path in given]


def _files(path: Path) -> list[Path]:
    """The file itself, or all files of a folder but hidden ones, such as the time stamp that Snakemake leaves."""
    return sorted(file for file in path.rglob("[!.]*") if file.is_file()) if path.is_dir() else [path]


def _listed(given: Path | list[Path]) -> list[Path]:
    return given if isinstance(given, list) else [given]


if __name__ == "__main__":
    run(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]))
