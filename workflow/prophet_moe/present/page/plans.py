"""Plans of every model, GPU and batch size, grouped for the page: a recommendation, its reasons, a row a context."""

from typing import Any, NamedTuple

import pandas as pd


class PlanView(NamedTuple):
    """What the page shows of one model on one GPU at one batch size."""

    model: str
    gpu: str
    batch: int
    context: int
    """Tokens that the recommendation is for."""
    advice: str
    reasons: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Cells of COLUMNS, a row a context."""


COLUMNS = ("context", "slots a layer", "resident", "hit rate", "tokens/s", "slowdown", "prefill", "works")
"""Columns of the table of contexts."""


def views(table: pd.DataFrame) -> list[PlanView]:
    """Return the plans of the table `plans` in its order."""
    return [
        PlanView(
            model,
            gpu,
            int(batch),
            int(rows["advised_context"].iloc[0]),
            rows["advice"].iloc[0],
            tuple(rows["reasons"].iloc[0].split("; ")),
            tuple(_cells(row) for row in rows.to_dict("records")),
        )
        for (model, gpu, batch), rows in table.groupby(["model", "gpu", "batch_size"], sort=False)
    ]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    prefill = "" if pd.isna(row["prefill_s"]) else f"{_three_digits(row['prefill_s'])} s"
    works = "yes" if row["works"] else "no"
    return (
        f"{row['context']:,}",
        f"{row['slots_per_layer']:,} of {row['experts']:,}",
        f"{row['resident_share_pct']:.1f} %",
        _between(row, "hit_rate"),
        _between(row, "tokens_per_s"),
        _between(row, "slowdown"),
        prefill,
        f"{works}: {row['refusals']}" if row["refusals"] else works,
    )


def _between(row: dict[str, Any], name: str) -> str:
    if pd.isna(row[name]):
        return ""
    middle, low, high = (_three_digits(row[each]) for each in (name, f"{name}_low", f"{name}_high"))
    return middle if low == high else f"{middle} ({low} to {high})"


def _three_digits(value: float) -> str:
    """Return a number with three significant digits, or whole from 1,000 on, never in scientific notation."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
