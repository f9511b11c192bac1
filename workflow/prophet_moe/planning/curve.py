"""Hit rates of a cache of experts at any number of slots, between points that were simulated, published or given."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from prophet_moe.errors import UserError

CURVES = Path("tables/data/planner_hit_curves.csv")
"""Simulated hit rates by calibrated routing, E and k, of the study `planner`."""
OWN, STAND_IN = "own", "stand_in"
"""Whether a routing is the model's own, or that of the nearest E and k."""
LARGEST_CURVE = 10_000
"""Most points of a curve that is given by hand."""


@dataclass(frozen=True)
class HitCurve:
    """Hit rates of a cache of the least recently used experts, by the share of a layer's experts that have a slot."""

    experts: int
    top_k: int
    points: tuple[tuple[float, float], ...]
    """Share of the experts and hit rate of one sequence, ascending in both."""
    origin: str
    """Where the points come from, in words."""
    miss_factor: float = 1.0
    """Nine in ten models miss at most so many times more, or fewer, than the curve says."""

    def at(self, slots: float, cycle: float | None = None) -> float:
        """Return the hit rate with `slots` experts a layer; `cycle` is what a step needs of a layer, k or u(B).

        For one sequence nothing is kept below k slots: the experts used least recently are those needed next. A batch
        shares the slots: each sequence finds its own recent experts in its part, slots x k / u(B), and others by the
        chance that another sequence left them. A step never hits more than the slots, nor misses more than what has
        none.
        """
        cycle = max(self.top_k, self.top_k if cycle is None else cycle)
        if slots >= self.experts:
            return 1.0
        fewest = 1 - (self.experts - slots) / cycle
        if cycle == self.top_k:
            return max(self._read(slots), fewest) if slots >= self.top_k else 0.0
        own_slots = slots * self.top_k / cycle
        own = self._read(max(own_slots, self.top_k)) * min(1.0, own_slots / self.top_k)
        others = (slots - own_slots) / (self.experts - own_slots)
        return min(slots / cycle, max(own + (1 - own) * others, fewest))

    def interval(self, slots: float, cycle: float | None = None) -> tuple[float, float]:
        """Return the ends of what a model more, or sequences that use the same experts, may hit."""
        cycle = max(self.top_k, self.top_k if cycle is None else cycle)
        found = self.at(slots, cycle)
        if slots >= self.experts or (cycle == self.top_k and slots < cycle):
            return found, found
        most = min(1.0, slots / cycle)
        shared = max(found, self._read(slots))
        least = max(0.0, 1 - (self.experts - slots) / cycle)
        low = max(least, 1 - min(1.0, (1 - found) * self.miss_factor))
        return min(found, low), max(found, min(most, 1 - (1 - shared) / self.miss_factor))

    def _read(self, slots: float) -> float:
        """Return the hit rate of one sequence: linear from none at k slots, between points, to all at E."""
        share = slots / self.experts
        ends = ((self.top_k / self.experts, 0.0), *self.points, (1.0, 1.0))
        for (low, before), (high, after) in pairwise(ends):
            if low <= share < high:
                return before + (after - before) * (share - low) / (high - low)
        return 0.0 if share < ends[0][0] else 1.0


def curve_of(experts: int, top_k: int, points: Sequence[tuple[float, float]], origin: str, factor: float) -> HitCurve:
    """Return a curve of (slots, hit rate) in any order: what lies below one cycle is left out, and it never falls."""
    kept, most = [], 0.0
    for slots, rate in sorted(points):
        if top_k <= slots < experts:
            most = max(most, rate)
            kept.append((slots / experts, most))
    return HitCurve(experts, top_k, tuple(kept), origin, factor)


def given_curve(text: str, experts: int, top_k: int) -> HitCurve:
    """Read a curve given by hand: `slots:hit,...`, in slots of a layer, or shares of its experts below 1.

    A point that cannot be is a UserError.
    """
    where, points = "--curve", []
    parts = text.split(",")
    if len(parts) > LARGEST_CURVE:
        raise UserError(where, f"got {len(parts):,} points, expected at most {LARGEST_CURVE:,}", "Give fewer.")
    for part in parts:
        try:
            slots, rate = (float(number) for number in part.split(":"))
        except ValueError:
            problem = f"got {part[:40]!r}, expected slots:hit, such as 32:0.8, or share:hit, such as 0.25:0.8"
            raise UserError(where, problem, "Correct it.") from None
        slots = slots * experts if 0 < slots < 1 else slots
        if not (0 < slots <= experts and 0 <= rate <= 1):
            problem = f"got {part[:40]!r}, expected up to {experts} slots and a hit rate of 0 to 1"
            raise UserError(where, problem, "Correct it.")
        points.append((slots, rate))
    if not any(top_k <= slots for slots, _ in points):
        problem = f"has no point of at least {top_k} slots, what one token needs of a layer"
        raise UserError(where, problem, "Add one.")
    for (_, before), (slots, after) in pairwise(sorted(points)):
        if after < before:
            problem = f"falls to {after:g} at {slots:g} slots, expected a hit rate that never falls"
            raise UserError(where, problem, "Correct it.")
    return curve_of(experts, top_k, points, f"given by hand ({len(points)} points)", 1.0)


def simulated_curve(path: Path, routing: str, experts: int, top_k: int, basis: str) -> HitCurve:
    """Return the simulated curve of a routing from the table of the study `planner`.

    Where the table has not this E and k, its curve of the nearest ones is taken, by share of the experts. A missing or
    wrong table is a UserError.
    """
    advice = f"Build it: snakemake --cores 8 {path}. Or give hit rates by --curve, or a --trace."
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file, strict=True) if row["routing"] == routing]
        shapes = {(int(row["experts"]), int(row["top_k"])) for row in rows}
        if not shapes:
            raise UserError(str(path), f"has no curve of routing {routing}", advice)
        shape = min(shapes, key=lambda each: (_apart(each, (experts, top_k)), each))
        kept = [row for row in rows if (int(row["experts"]), int(row["top_k"])) == shape]
        points = [(float(row["slots"]) * experts / shape[0], float(row["hit_rate"])) for row in kept]
        factor = float(kept[0]["miss_factor_own" if basis == OWN else "miss_factor_stand_in"])
        if not (all(0 <= rate <= 1 for _, rate in points) and 1 <= factor < math.inf):
            raise ValueError("a hit rate or a factor is out of its range")
    except FileNotFoundError:
        raise UserError(str(path), "no such file", advice) from None
    except (KeyError, TypeError, ValueError, OSError, csv.Error) as error:
        raise UserError(str(path), f"is no table of hit rates: {' '.join(str(error).split())}", advice) from None
    whose = "the model's own" if basis == OWN else "a stand-in, the nearest in E and k"
    scaled = "" if shape == (experts, top_k) else f", simulated for E={shape[0]} and k={shape[1]}, read by share"
    return curve_of(experts, top_k, points, f"simulated on calibrated routing {routing} ({whose}{scaled})", factor)


def _apart(shape: tuple[int, int], asked: tuple[int, int]) -> float:
    return sum(abs(math.log2(one / other)) for one, other in zip(shape, asked, strict=True))
