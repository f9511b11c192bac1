"""Which calibrated routing stands in for a model, read without the generator, whose import takes a while."""

import json
from pathlib import Path
from typing import NamedTuple

from prophet_moe.errors import UserError
from prophet_moe.routing.nearest import Candidate, candidate_of, source_of


class Routing(NamedTuple):
    """What is needed of a calibrated routing to choose it."""

    model: str
    candidate: Candidate


def routings_in(folder: Path) -> dict[str, Routing]:
    """Return the calibrated routings of a folder by name; none, or a file that is none, is a UserError."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            text = json.loads(path.read_text(encoding="utf-8"))
            found[path.stem] = Routing(text["model"], candidate_of(text))
        except (KeyError, TypeError, ValueError, OSError):
            advice = f"Restore it: git checkout {path}"
            raise UserError(str(path), "holds no calibrated routing", advice) from None
    if not found:
        raise UserError(str(folder), "holds no calibrated routing", f"Restore it: git checkout {folder}")
    return found


def stand_in(model: str, experts: int, top_k: int, routings: dict[str, Routing]) -> tuple[str, bool]:
    """Return the name of the routing that stands in for a model, and whether it is the model's own."""
    own = [name for name, each in routings.items() if each.model == model and each.candidate[:2] == (experts, top_k)]
    if own:
        return own[0], True
    return source_of(experts, top_k, {}, {name: each.candidate for name, each in routings.items()}), False
