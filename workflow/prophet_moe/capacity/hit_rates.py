"""Hit rates of caches of experts, as the frontier simulated them, for configurations that were not simulated."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prophet_moe.errors import UserError
from prophet_moe.validation import REBUILD

SIMULATED = "on_demand"
"""Without prediction the hit rate follows from routing and capacity alone, whatever the GPU and the precision."""


@dataclass(frozen=True)
class HitRates:
    """Share of a layer-step's distinct experts that are resident without prediction, of a model at one batch size."""

    model: str
    """Whose rows of the frontier they are."""
    trace: str
    """The routing that was replayed."""
    experts: int
    points: Sequence[tuple[float, float]]
    """Resident experts of a layer and the hit rate, ascending, from the fewest that were simulated to all."""

    def at(self, resident: float) -> float | None:
        """Return the hit rate with `resident` experts, linear between points; None below the fewest simulated."""
        if resident < self.points[0][0]:
            return None
        for (low, before), (high, after) in zip(self.points, self.points[1:], strict=False):
            if resident <= high:
                return before + (after - before) * (resident - low) / (high - low)
        return self.points[-1][1]


def read_hit_rates(path: Path, batch: int) -> dict[str, HitRates]:
    """Return the hit rates of a written frontier at one batch size, by model; empty where there is no such file.

    A file that is no frontier is a UserError.
    """
    if not path.exists():
        return {}
    points: dict[str, dict[float, float]] = {}
    traces = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                if row["strategy"] == SIMULATED and int(row["batch_size"]) == batch:
                    resident, rate = float(row["resident_experts"]), float(row["hit_rate"])
                    if not (0 <= rate <= 1 and 0 < resident < math.inf):
                        raise ValueError(f"hit_rate: got {rate} at {resident} resident experts")
                    points.setdefault(row["model"], {})[resident] = rate
                    traces[row["model"]] = row["trace"]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(str(path), f"is no frontier: {' '.join(str(error).split())}", REBUILD) from None
    return {
        model: HitRates(model, traces[model], int(max(found)), sorted(found.items())) for model, found in points.items()
    }


def hit_rates_for(
    model: str, experts: int, top_k: int, available: Mapping[str, HitRates], top_k_of: Mapping[str, int]
) -> HitRates | None:
    """Return the hit rates of `model`, else of one with its E and k, whose routing is the same; None without either.

    `top_k_of` names k of the models whose architecture is known.
    """
    if model in available and available[model].experts == experts:
        return available[model]
    alike = (rates for name, rates in available.items() if rates.experts == experts and top_k_of.get(name) == top_k)
    return next(alike, None)
