"""Tables 1-4: pure functions of the record."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from prophet_moe.capacity.record import fit_state
from prophet_moe.capacity.summary import geometric_mean
from prophet_moe.present.price import by_model

FLOOR = {"kv_extension_factor": "memory_floor_factor"}
"""The record's KV extension in tables 1 and 4: what memory alone allows, if every expert were there in time."""
SATURATES_BELOW_PCT = 20.0
"""Mean expert savings under which a group is said to saturate quickly."""


def tables(
    record: pd.DataFrame, *, gpu: str, batch_size: int, zero_fill: bool, gained: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """Tables 1-4: 1 and 4 at one GPU and batch size, 2 ranked with missing extensions left out or as 0.

    `gained` is table 11, where time was simulated: table 2 sets what each limit of slowdown allows beside the floor.
    """
    return {
        "table1": kv_extension(record, gpu, batch_size),
        "table2": average_extension(record, zero_fill, gained),
        "table3": by_expert_count(record),
        "table4": max_context(record, gpu, batch_size),
    }


def at(record: pd.DataFrame, gpu: str, batch_size: int) -> pd.DataFrame:
    """The rows of one GPU and batch size, largest extension first, then by name."""
    rows = record[(record["gpu"] == gpu) & (record["batch_size"] == batch_size)]
    return rows.assign(fit_state=fit_state(rows)).sort_values(
        ["kv_extension_factor", "prophet_max_context", "model"], ascending=[False, False, True], ignore_index=True
    )


def kv_extension(record: pd.DataFrame, gpu: str, batch_size: int) -> pd.DataFrame:
    """Table 1: extension factor and tokens gained of every model at one GPU and batch size."""
    columns = [
        "model",
        "num_experts",
        "top_k",
        "fit_state",
        "expert_savings_pct",
        "kv_extension_factor",
        "kv_increase_tokens",
    ]
    return at(record, gpu, batch_size)[columns].rename(columns=FLOOR)


def average_extension(record: pd.DataFrame, zero_fill: bool, gained: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table 2: models ranked by mean extension over all configurations.

    A `floor` is the extension by memory alone, if every expert were there in time. Two means of it are given: over the
    rows where the baseline fits (with their count), and over all rows with 0 where it does not, as the report does;
    `zero_fill` says which one ranks. Over the fitting rows there are also the median, the geometric mean, the mean
    within the native context (contexts cut at it), and the number of rows that gain anything within it. With `gained`,
    table 11, columns mean_<strategy>_at_<limit>x say what is gained within a limit of slowdown, over the fitting rows.
    """
    rows = record.assign(fit_state=fit_state(record))
    table = pd.DataFrame([_average(model, group) for model, group in rows.groupby("model", sort=True)])
    by = "mean_floor_zero_filled" if zero_fill else "mean_floor_fitting"
    table = table.sort_values([by, "prophet_only_rows", "model"], ascending=[False, False, True], ignore_index=True)
    table.insert(0, "rank", table.index + 1)
    return table if gained is None else table.join(by_model(gained), on="model")


def _average(model: str, rows: pd.DataFrame) -> dict:
    extension = _defined_extension(rows)
    best = rows.loc[extension.idxmax()] if extension.notna().any() else None
    native = native_extension(rows)
    return {
        "model": model,
        "num_experts": rows["num_experts"].iloc[0],
        "mean_floor_fitting": extension.mean(),
        "fitting_rows": extension.count(),
        "prophet_only_rows": (rows["fit_state"] == "prophet_only").sum(),
        "rows": len(rows),
        "mean_floor_zero_filled": extension.fillna(0).mean(),
        "best_floor": extension.max(),
        "best_gpu": best["gpu"] if best is not None else None,
        "best_batch_size": best["batch_size"] if best is not None else pd.NA,
        "mean_expert_savings_pct": rows["expert_savings_pct"].mean(),
        "median_floor_fitting": extension.median(),
        "geomean_floor_fitting": geometric_mean(extension),
        "native_floor_fitting": native.mean(),
        "native_gain_rows": (native > 1).sum(),
    }


def by_expert_count(record: pd.DataFrame) -> pd.DataFrame:
    """Table 3: models grouped by their number of experts."""
    return pd.DataFrame([_group(count, rows) for count, rows in record.groupby("num_experts", sort=True)])


def _group(count: int, rows: pd.DataFrame) -> dict:
    extension = _defined_extension(rows)
    savings = rows["expert_savings_pct"].mean()
    if extension.count() == 0:
        pattern = "baseline never fits"
    elif savings < SATURATES_BELOW_PCT:
        pattern = "saturates quickly"
    else:
        pattern = "extends the context"
    return {
        "num_experts": count,
        "models": rows["model"].nunique(),
        "mean_expert_savings_pct": savings,
        "mean_dedup_factor": rows["dedup_factor"].mean(),
        "mean_floor_fitting": extension.mean(),
        "fitting_rows": extension.count(),
        "rows": len(rows),
        "mean_floor_zero_filled": extension.fillna(0).mean(),
        "pattern": pattern,
    }


def max_context(record: pd.DataFrame, gpu: str, batch_size: int) -> pd.DataFrame:
    """Table 4: longest context at one GPU and batch size: memory limit, and the same within the native context."""
    rows = at(record, gpu, batch_size)
    native = rows["seq_len"]
    return pd.DataFrame(
        {
            "model": rows["model"],
            "fit_state": rows["fit_state"],
            "native_context": native,
            "baseline_max_context": rows["baseline_max_context"],
            "prophet_max_context": rows["prophet_max_context"],
            "baseline_native_context": within(rows["baseline_max_context"], native),
            "prophet_native_context": within(rows["prophet_max_context"], native),
            "memory_floor_factor": rows["kv_extension_factor"],
        }
    )


AFFECTED = (
    "expert_savings_pct",
    "mean_expert_savings_pct",
    "memory_floor_factor",
    "kv_increase_tokens",
    "mean_floor_fitting",
    "mean_floor_zero_filled",
    "best_floor",
    "median_floor_fitting",
    "geomean_floor_fitting",
    "native_floor_fitting",
    "mean_dedup_factor",
    "prophet_max_context",
    "prophet_native_context",
)
"""Columns of tables 1-4 that depend on how many experts a batch needs."""


def with_intervals(
    table: pd.DataFrame, ends: Sequence[pd.DataFrame], without: Collection[str] = frozenset()
) -> pd.DataFrame:
    """`table` with <column>_low and _high after every AFFECTED column: the ends over the same table of other routings.

    Rows are matched by the first column that names them, `model` or `num_experts`. Without `ends`, and for the models
    `without` interval, the cells are empty.
    """
    key = "model" if "model" in table else "num_experts"
    columns = {}
    for name in table:
        columns[name] = table[name]
        if name in AFFECTED:
            others = [end.set_index(key)[name].reindex(table[key]).to_numpy(float, na_value=np.nan) for end in ends]
            values = np.array([table[name].to_numpy(float, na_value=np.nan), *others])
            shown = np.where(table[key].isin(without) | (not ends), np.nan, values)
            columns[f"{name}_low"], columns[f"{name}_high"] = np.fmin.reduce(shown), np.fmax.reduce(shown)
    return pd.DataFrame(columns)


def _defined_extension(rows: pd.DataFrame) -> pd.Series:
    return rows["kv_extension_factor"].where(rows["baseline_fits"])


def native_extension(rows: pd.DataFrame) -> pd.Series:
    """KV extension within the native context, per row: both contexts cut at it; NaN where the baseline does not fit."""
    useful = {of: within(rows[f"{of}_max_context"], rows["seq_len"]).astype(float) for of in ("baseline", "prophet")}
    return (useful["prophet"] / useful["baseline"]).where(rows["baseline_fits"].astype(bool))


def within(context: pd.Series, native: pd.Series) -> pd.Series:
    """The smaller of a context and the native one; the context where no native one is known."""
    return context.where(native.isna() | (context <= native), native)
