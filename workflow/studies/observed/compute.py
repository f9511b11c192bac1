"""Every published observation predicted, and the errors summed up by quantity, engine and GPU."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prophet_moe.observed import hit_rates, memory, routing, times
from prophet_moe.observed.context import Context, load_context
from prophet_moe.observed.errors import Goal
from prophet_moe.observed.schema import KINDS, Kind, read_observations, result_frame, result_row
from prophet_moe.tables import write_table
from prophet_moe.units import GIB
from studies.observed.study import OBSERVED, ROWS

MODULES = {"memory": memory, "times": times, "hit_rates": hit_rates, "routing": routing}
"""What predicts each kind."""
GIVEN_POOL = "kv_tokens_given_pool"
"""Quantity: tokens that the printed pool holds, by the predicted bytes of a token."""
GOALS: Mapping[str, str] = {
    "weights": f"{memory.GOALS['weights']:g} %",
    "kv_bytes_per_token": "rounding of the print",
    "kv_pool": f"{memory.POOL_GIB:g} GiB",
    "kv_tokens": f"{memory.GOALS['kv_tokens']:g} %",
    "fits": "equal",
    times.STEP_TIME: f"{times.GOAL_PCT:g} %",
    hit_rates.HIT_RATE: f"{100 * hit_rates.HIT_POINTS:g} points, {100 * hit_rates.SESSION_POINTS:g} of a recorded run",
    hit_rates.RATE: f"{hit_rates.RATE_FACTOR:g} times",
    hit_rates.PREFILL: f"{hit_rates.RATE_FACTOR:g} times",
}
"""Largest error that counts as right, in words, of the quantities that have a goal."""
TERMS: Mapping[str, tuple[str, ...]] = {
    "weights": ("weights",),
    "kv_bytes_per_token": ("cache",),
    GIVEN_POOL: ("cache",),
    "kv_pool_given_runtime": ("weights",),
    "non_torch": ("runtime.non_torch",),
    "activations": ("reservation", "scheduler"),
    "graphs": ("runtime.graphs",),
}
"""Terms of an engine's profile that a quantity of memory rests on; all of them where it is not named."""
FITTED = ("own_cv", times.LAYER_TIME, times.LINK_SPEED)
"""Ends of quantities whose predictions are fitted to what they are compared with."""
GROUPINGS = ((), ("engine",), ("gpu",))
"""Columns besides kind and quantity that errors are summed up by, in turn."""


def observed_rows(observations: Mapping[str, pd.DataFrame], context: Context) -> pd.DataFrame:
    """Predict every row of every kind.

    Parameters
    ----------
    observations : mapping from str to DataFrame
        Observations by kind, as `schema.read_observations` returns them.
    context : Context
        What predictions are made from.

    Returns
    -------
    DataFrame
        One row per observation and quantity, with the columns of ROWS.
    """
    return pd.concat([_of_kind(KINDS[name], rows, context) for name, rows in observations.items()], ignore_index=True)


def _of_kind(kind: Kind, rows: pd.DataFrame, context: Context) -> pd.DataFrame:
    found = MODULES[kind.name].predicted(rows, context)
    if kind.name == "memory":
        found = pd.concat([found, _given_pool(found, rows)])
    about = rows.set_index("id")
    points = found["quantity"].isin([hit_rates.HIT_RATE, hit_rates.OF_OTHERS])
    error = found["error_pct"].where(~points, 100 * (found["predicted"] - found["measured"]))
    fixed = _fixing(rows, context) if kind.name == "memory" else {}
    return found.assign(
        error=error,
        error_unit=np.where(points, "points", "%"),
        held_out=[_held_out(row, fixed) for row in found.to_dict("records")],
        source=found["id"].map(about["source"]),
        notes=found["id"].map(about["notes" if "notes" in about else "note"]),
    )[[column.name for column in ROWS.columns]]


def _given_pool(found: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return tokens of the printed pools: as printed, and by the predicted bytes of a token."""
    pools = rows.set_index("id")["kv_cache_gib_per_gpu"] * GIB
    usable = found[found["clean"] & (found["quantity"] == "kv_bytes_per_token")]
    return result_frame(
        result_row(
            **{name: row[name] for name in ("id", "kind", "engine", "gpu", "model")},
            quantity=GIVEN_POOL,
            measured=pools[row["id"]] / row["measured"],
            predicted=pools[row["id"]] / row["predicted"],
            unit="tokens",
        )
        for row in usable.to_dict("records")
    )


def _fixing(rows: pd.DataFrame, context: Context) -> dict[str, list[str]]:
    """Return by row the terms of its engine's profile that it fixed or checked."""
    engines = {row["id"]: context.engine(row["engine"], row["engine_version"]) for row in rows.to_dict("records")}
    return {
        name: [term for term, evidence in engine.evidence.items() if name in evidence.rows]
        for name, engine in engines.items()
        if engine
    }


def _held_out(row: Mapping[str, Any], fixed: Mapping[str, list[str]]) -> bool:
    """Return whether no constant of a prediction was fitted to its row."""
    if row["kind"] == "memory":
        starts = TERMS.get(row["quantity"], ("",))
        return not any(term.startswith(starts) for term in fixed.get(row["id"], ()))
    if row["quantity"] == hit_rates.HIT_RATE:
        return not row["basis"].endswith(hit_rates.FITTED_TO_IT)
    return not row["quantity"].endswith(FITTED)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of OBSERVED: errors of clean rows by kind and quantity, and of these by engine and by GPU."""
    clean = rows[rows["clean"] & rows["predicted"].notna()]
    found = []
    for (kind, quantity), of_quantity in clean.groupby(["kind", "quantity"], sort=False):
        goal: Goal = MODULES[kind].within_goal
        for by in GROUPINGS:
            for names, group in of_quantity.groupby(list(by), sort=True) if by else [((), of_quantity)]:
                about = dict(zip(by, names, strict=True))
                if not by or about[by[0]]:
                    found.append({"kind": kind, "quantity": quantity, **about, **_errors(group, goal)})
    return (
        pd.DataFrame(found, columns=[column.name for column in OBSERVED.columns])
        .fillna({"engine": "", "gpu": "", "goal": ""})
        .astype({"within_goal": "Int64"})
    )


def _errors(rows: pd.DataFrame, goal: Goal) -> dict[str, Any]:
    errors = rows["error"].abs()
    worst = rows.loc[errors.idxmax()] if errors.notna().any() else rows.iloc[0]
    verdicts = list(_verdicts(rows, goal))
    return {
        "n": len(rows),
        "held_out": int(rows["held_out"].sum()),
        "error_unit": worst["error_unit"],
        "median_error": errors.median(),
        "median_error_held_out": errors[rows["held_out"]].median(),
        "p90_error": errors.quantile(0.9),
        "worst_error": worst["error"],
        "worst_id": worst["id"],
        "worst_notes": worst["notes"],
        "goal": GOALS[worst["quantity"]] if verdicts else "",
        "within_goal": sum(verdicts) if verdicts else None,
        "share_within_goal_pct": 100 * sum(verdicts) / len(verdicts) if verdicts else np.nan,
    }


def _verdicts(rows: pd.DataFrame, goal: Goal) -> Iterator[bool]:
    for row in rows.to_dict("records"):
        verdict = goal(row)
        if verdict is not None:
            yield verdict


def build(files, parameters):
    """Write table 14, the errors, and the rows that they are of."""
    context = load_context()
    observations = {name: read_observations(_path(files, name), kind) for name, kind in KINDS.items()}
    rows = observed_rows(observations, context)
    write_table(files.rows, rows, ROWS)
    write_table(files.table, summary(rows), OBSERVED)


def _path(files: Any, name: str) -> Path:
    return next(Path(path) for path in files.files if Path(path) == Path(f"resources/observations/{name}.csv"))
