"""The jobs behind outputs: what their sidecars tell, followed from one to the next until the recorded inputs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from prophet_moe.errors import UserError
from prophet_moe.provenance.sidecar import sidecar_of
from prophet_moe.provenance.verify import against_sidecar
from prophet_moe.validation import read_json

SCRIPTS = ("workflow/scripts/{rule}.py", "workflow/studies/{rule}/compute.py", "workflow/studies/*/{rule}.py")
"""Where the script of a rule is, the first that there is."""


@dataclass(frozen=True)
class Job:
    """One run of a rule: its files by path with their SHA-256, and its parameters."""

    rule: str
    config_hash: str
    """Covers parameters, inputs and code."""
    script: str
    inputs: Mapping[str, str]
    parameters: Mapping[str, Any]
    outputs: Mapping[str, str]
    packages: Mapping[str, str]
    """Versions of Python and of packages by name."""


def jobs_behind(outputs: Iterable[Path]) -> list[Job]:
    """Return the jobs that made `outputs` and their intermediate results, sorted by rule and hash.

    An output without a sidecar, or whose sidecar no longer holds, is a UserError with the command that mends it.
    """
    told: dict[str, dict[str, Any]] = {}
    todo = list(outputs)
    while todo:
        output = todo.pop()
        if str(output) in told:
            continue
        told[str(output)] = _held(output)
        todo += [path for path in map(Path, told[str(output)]["inputs"]) if sidecar_of(path).exists()]
    made: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _, sidecar in sorted(told.items()):
        made.setdefault((sidecar["rule"], sidecar["config_hash"]), []).append(sidecar)
    return [_job(sidecars) for _, sidecars in sorted(made.items())]


def _held(output: Path) -> dict[str, Any]:
    said, remedy = against_sidecar(output)
    if said.startswith("FAIL"):
        raise UserError(str(output), said.removeprefix("FAIL: "), f"Run: {remedy}")
    return read_json(sidecar_of(output))


def _job(sidecars: list[dict[str, Any]]) -> Job:
    first = sidecars[0]
    return Job(
        rule=first["rule"],
        config_hash=first["config_hash"],
        script=script_of(first["rule"], first["code"]),
        inputs=first["inputs"],
        parameters=first["parameters"],
        outputs={sidecar["output"]: sidecar["sha256"] for sidecar in sidecars},
        packages=first["packages"],
    )


def script_of(rule: str, code: Iterable[str]) -> str:
    """Return the script of a rule among the files of its code; where none is, the sidecar is a UserError."""
    for pattern in SCRIPTS:
        if found := next((path for path in code if fnmatch(path, pattern.format(rule=rule))), None):
            return found
    raise UserError(f"rule {rule}", "its sidecar names no script of that name", "Build its outputs again.")
