"""Averages of the KV extension by model: over all configurations, and within the native context."""

import pandas as pd

from prophet_moe.capacity.record import fit_state
from prophet_moe.capacity.summary import geometric_mean
from prophet_moe.present.price import by_model


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
    extension = defined_extension(rows)
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


def defined_extension(rows: pd.DataFrame) -> pd.Series:
    """Return the KV extension of each row, NaN where the baseline does not fit."""
    return rows["kv_extension_factor"].where(rows["baseline_fits"])


def native_extension(rows: pd.DataFrame) -> pd.Series:
    """KV extension within the native context, per row: both contexts cut at it; NaN where the baseline does not fit."""
    useful = {of: within(rows[f"{of}_max_context"], rows["seq_len"]).astype(float) for of in ("baseline", "prophet")}
    return (useful["prophet"] / useful["baseline"]).where(rows["baseline_fits"].astype(bool))


def within(context: pd.Series, native: pd.Series) -> pd.Series:
    """The smaller of a context and the native one; the context where no native one is known."""
    return context.where(native.isna() | (context <= native), native)
