"""Tables 1-4: pure functions of the record."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from prophet_moe.capacity.record import fit_state, read_record
from prophet_moe.files import write_csv
from prophet_moe.present.averages import average_extension, defined_extension, within

FLOOR = {"kv_extension_factor": "memory_floor_factor"}
"""The record's KV extension in tables 1 and 4: what memory alone allows, if every expert were there in time."""
SATURATES_BELOW_PCT = 20.0
"""Mean expert savings under which a group is said to saturate quickly."""


def tables(
    record: pd.DataFrame, *, gpu: str, batch_size: int, zero_fill: bool, gained: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """Tables 1-4: 1 and 4 at one GPU and batch size, 2 ranked with missing extensions left out or as 0.

    `gained` is table 11, if time was simulated. Table 2 then also has the KV extension within each limit of slowdown.
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


def by_expert_count(record: pd.DataFrame) -> pd.DataFrame:
    """Table 3: models grouped by their number of experts."""
    return pd.DataFrame([_group(count, rows) for count, rows in record.groupby("num_experts", sort=True)])


def _group(count: int, rows: pd.DataFrame) -> dict:
    extension = defined_extension(rows)
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


def build(files, parameters):
    """Write the four tables as CSV."""
    gained = pd.read_csv(files.gained[0]) if files.gained else None
    for name, table in tables(read_record(files.record), **parameters, gained=gained).items():
        write_csv(getattr(files, name), table)
