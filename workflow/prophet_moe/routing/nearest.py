"""Which routing stands in for a model of which no trace is at hand: needs nothing but E and k of either."""

from collections.abc import Mapping
from math import log2
from typing import Any, NamedTuple

from prophet_moe.errors import UserError


class Candidate(NamedTuple):
    """A calibrated routing that could stand in for a model."""

    experts: int
    top_k: int
    points: int
    """Published hit rates that it was fitted to or evaluated at."""


def candidate_of(content: Mapping[str, Any]) -> Candidate:
    """Return the candidate that the content of a file of resources/routing is."""
    points = len(content["fitted"]) + len(content["left_out"])
    return Candidate(int(content["experts"]), int(content["top_k"]), points)


def source_of(
    experts: int, top_k: int, traces: Mapping[str, tuple[int, int]], calibrated: Mapping[str, Candidate]
) -> str:
    """Return the name of what stands in for a model: a trace of its E and k, else the nearest calibrated routing.

    `traces` hold E and k by name. Nearest is what is least powers of two away in E and k, in sum; of equally near ones
    that with more published points, then the first by name. Nothing to choose from is a UserError.
    """
    alike = sorted(name for name, shape in traces.items() if shape == (experts, top_k))
    if alike:
        return alike[0]
    if not calibrated:
        problem = f"no trace has {experts} experts and top-k {top_k}, and no calibrated routing is there"
        raise UserError("resources/routing", problem, "Restore it: git checkout resources/routing")

    def rank(name: str) -> tuple[float, int, str]:
        candidate = calibrated[name]
        apart = abs(log2(candidate.experts / experts)) + abs(log2(candidate.top_k / top_k))
        return round(apart, 9), -candidate.points, name

    return min(calibrated, key=rank)
