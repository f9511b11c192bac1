"""Popularity CV: the coefficient of variation of the popularity of a model's experts.

Published tables, the config key `routing.variation` and the fitted parameter of the law call it `variation`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from prophet_moe.errors import UserError
from prophet_moe.validation import REBUILD, read_csv

POOLED = "pooled from "
"""How the source of a popularity CV begins that no trace of the model itself gave."""


@dataclass(frozen=True)
class PopularityCV:
    """Popularity CV of one model: standard deviation of the popularity of its experts over its mean."""

    model: str
    batching: str
    """The way of batching that it holds for."""
    value: float
    low: float
    """Ends of its 95 % interval; NaN, both, where there is none."""
    high: float
    source: str
    """The trace or counts that it was fitted to, or the traces that it was pooled from."""

    @property
    def pooled(self) -> bool:
        """Return whether it rests on traces of other models alone."""
        return self.source.startswith(POOLED)

    def bounded(self, experts: int, top_k: int) -> "PopularityCV":
        """Return the same, no larger than if every token chose the same k of E experts: sqrt(E/k - 1)."""
        most = math.sqrt(experts / top_k - 1)
        return replace(self, value=min(self.value, most), low=min(self.low, most), high=min(self.high, most))


def popularity_cvs_of(paths: Iterable[Path], batching: str) -> dict[str, PopularityCV]:
    """Read the popularity CVs of several tables for one way of batching, by model; the last table wins."""
    return {
        model: popularity_cv for path in paths for model, popularity_cv in read_popularity_cvs(path, batching).items()
    }


def read_popularity_cvs(path: Path, batching: str) -> dict[str, PopularityCV]:
    """Read the popularity CVs of a written table for one way of batching, by model; empty ends are no interval."""
    if not path.exists():
        raise UserError(str(path), "no such file", "Build it: snakemake --cores 8")
    names = [field.name for field in fields(PopularityCV)]
    rows = [dict(zip(names, cells, strict=True)) for cells in read_csv(path, names)]
    for line, row in enumerate(rows, start=2):
        bounded = row["low"] or row["high"]
        for name in ("value", "low", "high"):
            unbounded = name != "value" and not bounded
            row[name] = math.nan if unbounded else _number(row[name], f"line {line}: {name}", path)
    return {row["model"]: PopularityCV(**row) for row in rows if row["batching"] == batching}


def _number(cell: str, place: str, path: Path) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise UserError(str(path), f"{place}: got {repr(cell) if cell else 'nothing'}, expected a number", REBUILD)
    return number


def pooled_for(model: str, experts: int, top_k: int, available: Mapping[str, PopularityCV]) -> PopularityCV | None:
    """Return the pooled popularity CV for a `model` that `available` lacks; None where no row of it is pooled.

    Of the pooled rows, each cut at its own model's bound, the largest is the one that was cut least.
    """
    pooled = [popularity_cv for popularity_cv in available.values() if popularity_cv.pooled]
    if not pooled:
        return None
    widest = {name: max(getattr(row, name) for row in pooled) for name in ("value", "low", "high")}
    return replace(pooled[0], model=model, **widest).bounded(experts, top_k)


def popularity_cv_for(model: str, experts: int, top_k: int, known: Mapping[str, PopularityCV]) -> PopularityCV | None:
    """Return the popularity CV of a `model` that `known` has, within its bound, else the pooled one; None without."""
    if model in known:
        return known[model].bounded(experts, top_k)
    return pooled_for(model, experts, top_k, known)
