"""The sidecar `<output>.prov.json`: inputs, parameters, rule, code and packages behind one output.

No clock time and no absolute path: two builds of one state write the same bytes.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from prophet_moe.errors import UserError
from prophet_moe.files import canonical_hash, sha256, write_json

SUFFIX = ".prov.json"


def sidecar_of(output: Path) -> Path:
    """Path of the sidecar of `output`."""
    return output.with_name(output.name + SUFFIX)


def origin(rule: str, inputs: Sequence[Path], code: Sequence[Path], parameters: dict[str, Any]) -> dict[str, Any]:
    """What an output of `rule` is made from. `config_hash` is short and covers parameters, inputs and code."""
    made_from = {
        "rule": rule,
        "inputs": {str(path): sha256(path) for path in sorted(inputs)},
        "parameters": parameters,
        "code": {str(path): sha256(path) for path in sorted(code)},
    }
    return {"config_hash": canonical_hash(made_from)[:12], **made_from, "packages": package_versions()}


def code_version(made_from: Mapping[str, Any]) -> str:
    """Return 8 hexadecimal digits of the code behind an output: of the contents of its files, and of no commit."""
    return canonical_hash(made_from["code"])[:8]


def write_sidecar(output: Path, made_from: dict[str, Any]) -> None:
    """Write the sidecar of the finished `output`; an absolute path among what it is made from is a UserError."""
    if elsewhere := [path for path in (*made_from["inputs"], *made_from["code"]) if Path(path).is_absolute()]:
        problem = f"input {elsewhere[0]} is absolute, expected a path from the project's root"
        raise UserError(f"rule {made_from['rule']}", problem, "Correct the rule.")
    write_json(sidecar_of(output), {"output": str(output), "sha256": sha256(output), **made_from})


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that the project names."""
    required = metadata.requires("prophet-moe") or []
    names = sorted(re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0] for requirement in required)
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}"} | {
        name: metadata.version(name) for name in names
    }
