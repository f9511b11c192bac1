"""How far a measurement in a folder has come."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prophet_moe.collect.resume import PARTS, PLAN, drop_parts
from prophet_moe.errors import UserError, from_os_error
from prophet_moe.routing.store import METADATA, SUMS, check_sums


@dataclass(frozen=True)
class Progress:
    """What a folder holds of a measurement."""

    whole: bool
    plan: dict[str, Any] | None
    """The plan that it follows, JSON-like; None where it has not begun."""
    done: int = 0
    """Parts that are there; 0 where it is whole and they have been joined."""
    parts: int = 0
    """Parts in all, where it has begun and is not whole."""

    @property
    def share_left(self) -> float:
        """Return the share of the parts that is left to measure."""
        return 0.0 if self.whole else 1 - self.done / self.parts if self.parts else 1.0

    def told(self) -> str:
        """Return the parts that are there and those there are in all, "3/8"; empty where they are not counted."""
        return f"{self.done}/{self.parts}" if self.parts else ""


def progress_of(folder: Path, kind: str) -> Progress:
    """Return how far the measurement of `kind` in `folder` has come; a damaged one is a UserError.

    Parts that a kill has left beside a measurement that is whole are deleted.
    """
    damaged = f"Delete {folder}, and it is measured again."
    if (folder / SUMS).exists():
        check_sums(folder, (f"{kind}.csv", METADATA), damaged=damaged)
        drop_parts(folder)
        return Progress(True, _read(folder / METADATA, damaged).get("plan"))
    if not (folder / PLAN).exists():
        return Progress(False, None)
    begun = _read(folder / PLAN, damaged)
    done = len([part for part in (folder / PARTS).glob("*.json") if not part.name.startswith(".")])
    return Progress(False, begun.get("plan"), done, begun.get("parts", 0))


def _read(path: Path, damaged: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise from_os_error(path, error) from None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(str(path), "is no JSON object", damaged)
    return content
