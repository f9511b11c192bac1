"""How much the popularity of a model's experts varies: the one number of its routing that the capacity model uses."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from prophet_moe.errors import UserError
from prophet_moe.routing.rows import REBUILD, read_rows


@dataclass(frozen=True)
class Variation:
    """Standard deviation of the experts' popularity over its mean, of one model."""

    model: str
    batching: str
    """Which batches it holds for."""
    value: float
    low: float
    """Ends of its 95 % interval; NaN, both, where there is none."""
    high: float
    source: str
    """The trace or counts that it was fitted to, or the traces that it was pooled from."""


def variations_of(paths: Iterable[Path], batching: str) -> dict[str, Variation]:
    """The variations of some written tables for one way of batching, by model; of a model in several, the last."""
    return {model: found for path in paths for model, found in read_variations(path, batching).items()}


def read_variations(path: Path, batching: str) -> dict[str, Variation]:
    """The variations of a written table for one way of batching, by model; empty ends are no interval."""
    table = read_rows(path, [field.name for field in fields(Variation)])
    for name in ("value", "low", "high"):
        wrong = pd.to_numeric(table[name], errors="coerce").isna()
        if name != "value":
            wrong &= ~(table["low"].isna() & table["high"].isna())
        if wrong.any():
            line = int(wrong.idxmax())
            got = "nothing" if pd.isna(table[name][line]) else repr(table[name][line])
            problem = f"line {line + 2}: {name}: got {got}, expected a number"
            raise UserError(str(path), problem, REBUILD)
    rows = table[table["batching"] == batching].to_dict(orient="records")
    return {row["model"]: Variation(**row) for row in rows}
