"""Errors of predictions by quantity, engine and GPU: how many rows, median, 90th percentile, worst."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Goal = Callable[[Mapping[str, Any]], bool | None]
"""Tells of a prediction whether it is near enough; None where its quantity has no goal."""


def grouped_errors(found: "pd.DataFrame", by: tuple[str, ...], goal: Goal) -> list[dict[str, Any]]:
    """Return the errors of clean rows by groups of columns: n, median, 90th percentile, worst and how many are in goal.

    Parameters
    ----------
    found : DataFrame
        What `predicted` of a kind returns.
    by : tuple of str
        Columns that make a group, such as quantity and engine.
    goal : callable
        Whether a row is within its goal.

    Returns
    -------
    list of dict
        One entry per group, errors in percent and without their sign.
    """
    clean = found[found["clean"] & found["predicted"].notna()]
    return [
        _group(dict(zip(by, names, strict=True)), rows, goal) for names, rows in clean.groupby(list(by), sort=False)
    ]


def _group(names: dict[str, str], rows: "pd.DataFrame", goal: Goal) -> dict[str, Any]:
    errors = rows["error_pct"].abs().dropna()
    verdicts = [verdict for row in rows.to_dict("records") if (verdict := goal(row)) is not None]
    worst = rows.loc[errors.idxmax(), "id"] if len(errors) else ""
    return {
        **names,
        "n": len(rows),
        "median_pct": float(errors.median()) if len(errors) else math.nan,
        "p90_pct": float(errors.quantile(0.9)) if len(errors) else math.nan,
        "worst_pct": float(errors.max()) if len(errors) else math.nan,
        "worst_id": worst,
        "within_goal": sum(verdicts) if verdicts else None,
        "with_goal": len(verdicts),
    }


def missed(found: "pd.DataFrame", goal: Goal) -> Iterator[dict[str, Any]]:
    """Yield the clean rows that are further off than their goal allows."""
    yield from (row for row in found[found["clean"]].to_dict("records") if goal(row) is False)


def left_out(found: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return why rows were left out: a reason, the quantities, the ids."""
    out = found[~found["clean"]]
    return [
        {
            "reason": reason,
            "n": len(rows),
            "quantities": sorted(set(rows["quantity"])),
            "ids": list(dict.fromkeys(rows["id"])),
        }
        for reason, rows in out.groupby("left_out", sort=True)
    ]
