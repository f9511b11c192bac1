"""Collections that go on after a kill: parts of one job lie in a folder until SHA256SUMS marks it as whole."""

import json
import shutil
from pathlib import Path
from typing import Any

from prophet_moe.errors import UserError
from prophet_moe.files import write_json
from prophet_moe.routing.store import SUMS

PARTS, PLAN = "parts", "plan.json"
"""What a measurement keeps in its folder until it is whole: a folder of its parts, and what they are parts of."""
ADVICE = "Name another folder, or delete this one."


def refuse_complete(folder: Path, what: str) -> None:
    """Refuse a `folder` that holds a complete collection of the kind `what`: nothing overwrites it."""
    if (folder / SUMS).exists():
        raise UserError(str(folder), f"holds a complete {what}", ADVICE)


def start_or_resume(path: Path, job: dict[str, Any], other: str) -> None:
    """Write what is collected, `job`, JSON-like, to `path`, or make sure that `path` already says the same.

    A folder whose parts are of another job is a UserError, which says that it holds parts of `other`.
    """
    if not path.exists():
        write_json(path, job)
    elif json.loads(path.read_text()) != job:
        raise UserError(str(path.parent), f"holds parts of {other}", ADVICE)


def drop_parts(folder: Path) -> None:
    """Delete the parts of a measurement that is whole."""
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    (folder / PLAN).unlink(missing_ok=True)
