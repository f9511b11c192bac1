"""How much the popularity of a model's experts varies: the one number of its routing that the capacity model uses."""

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
    high: float
    source: str
    """The trace that it was fitted to, or the traces that it was pooled from."""


def read_variations(path: Path, batching: str) -> dict[str, Variation]:
    """The variations of a written table for one way of batching, by model."""
    table = read_rows(path, [field.name for field in fields(Variation)])
    for name in ("value", "low", "high"):
        numbers = pd.to_numeric(table[name], errors="coerce")
        if numbers.isna().any():
            line = int(numbers.isna().idxmax())
            problem = f"line {line + 2}: {name}: got {table[name][line]!r}, expected a number"
            raise UserError(str(path), problem, REBUILD)
    rows = table[table["batching"] == batching].to_dict(orient="records")
    return {row["model"]: Variation(**row) for row in rows}
