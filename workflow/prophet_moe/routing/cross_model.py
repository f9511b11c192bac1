"""What traces of some models say about the routing of others: the popularity CV, pooled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prophet_moe.routing.intervals import mean_interval
from prophet_moe.routing.law import dirichlet_occupancy, power_law, uniform_occupancy
from prophet_moe.routing.law_schema import SATURATION_SHARE
from prophet_moe.routing.popularity_cv import POOLED, PopularityCV

CROSS_MODEL_LAW = "dirichlet_occupancy"
"""The law that needs one number of a model, besides E and k."""


@dataclass(frozen=True)
class LeaveOneOut:
    """A law fitted to traces of other models alone, beside the trace that was left out."""

    trace: str
    """The trace that was left out."""
    batching: str
    law: str
    parameter: float
    """The parameter of the law, pooled from the other models."""
    low: float
    high: float
    own: float
    """The parameter as fitted to the trace itself."""
    error_pct: float
    """Root mean square relative error of u(B), B > 1, percent."""
    worst_residual_pct: float


def pooled(values: Sequence[float], least: float = 0.0) -> tuple[float, float, float]:
    """Return the mean of one value a model, and the 95 % interval of one model more (Student's t).

    Not on a log scale: 0, uniform routing, is a possible value. With a single value the interval has no end.
    """
    mean, low, high = mean_interval(values, beyond=1.0)
    return (mean, least, np.inf) if len(values) == 1 else (mean, max(least, low), high)


def popularity_cvs(fits: pd.DataFrame, models: Mapping[str, tuple[int, int]], batching: str) -> list[PopularityCV]:
    """Return the popularity CV of each model: fitted to its own traces, else pooled from other models.

    Parameters
    ----------
    fits : DataFrame
        Rows of `law_schema.Fit` of all traces.
    models : mapping from str to (int, int)
        E and k by model.
    batching : str
        The way of batching whose fits count.

    Returns
    -------
    list of PopularityCV
        One per model, with a 95 % interval: of the fit, or of one model more (Student's t).

    Notes
    -----
    No popularity can vary more than when every token chooses the same k experts: sqrt(E/k - 1).
    """
    own = _fitted(fits, batching, CROSS_MODEL_LAW)
    value, low, high = pooled(own.groupby("model")["value"].mean().to_list())
    names = ", ".join(own["trace"])
    rows = []
    for model, (experts, top_k) in models.items():
        fitted = own[own["model"] == model]
        if len(fitted):
            mean = fitted[["value", "low", "high"]].mean()
            rows.append(PopularityCV(model, batching, *mean, f"fitted to {', '.join(fitted['trace'])}"))
        else:
            everywhere = PopularityCV(model, batching, value, low, high, f"{POOLED}{names}")
            rows.append(everywhere.bounded(experts, top_k))
    return rows


def leave_one_out(fits: pd.DataFrame, residuals: pd.DataFrame, batching: str) -> list[LeaveOneOut]:
    """Predict u(B) of each trace from traces of other models alone.

    Parameters
    ----------
    fits, residuals : DataFrame
        Rows of `law_schema.Fit` and `law_schema.Residual` of all traces.
    batching : str
        The way of batching whose rows count.

    Returns
    -------
    list of LeaveOneOut
        One row per trace for the cross-model law, the power law and uniform occupancy.
    """
    predictions = []
    for law in (CROSS_MODEL_LAW, "power_law", "uniform_occupancy"):
        rows = _fitted(fits, batching, law)
        for left in rows.itertuples():
            others = rows[rows["model"] != left.model].groupby("model")["value"].mean()
            if others.empty:
                continue
            seen = _of(residuals, batching, law)
            seen = seen[seen["trace"] == left.trace]
            parameter, low, high = pooled(others.to_list()) if law != "uniform_occupancy" else (np.nan,) * 3
            predicted = _predicted(law, left.experts, left.top_k, parameter, seen["batch"].to_numpy(float))
            relative = 100 * (predicted / seen["held_out"].to_numpy() - 1)
            error = float(np.sqrt(np.mean(relative[1:] ** 2)))
            worst = float(relative[np.argmax(np.abs(relative))])
            predictions.append(LeaveOneOut(left.trace, batching, law, parameter, low, high, left.value, error, worst))
    return predictions


def _predicted(law: str, experts: int, top_k: int, parameter: float, batch: np.ndarray) -> np.ndarray:
    wide = (np.full_like(batch, experts), np.full_like(batch, top_k))
    if law == "power_law":
        return power_law(*wide, parameter, batch)
    if law == "uniform_occupancy":
        return uniform_occupancy(*wide, batch)
    return dirichlet_occupancy(*wide, np.full_like(batch, parameter), batch)


def exponent_of(experts: int, top_k: int, popularity_cv: float, batches: Sequence[int]) -> tuple[float, int]:
    """Return the power law that fits the cross-model law best below saturation, and the largest B it was fitted to."""
    batch = np.array(batches, float)
    unique = _predicted(CROSS_MODEL_LAW, experts, top_k, popularity_cv, batch)
    kept = unique <= SATURATION_SHARE * experts
    x, y = np.log(batch[kept]), np.log(unique[kept] / top_k)
    return (float(x @ y / (x @ x)) if x.any() else np.nan), int(batch[kept].max(initial=1))


def _of(table: pd.DataFrame, batching: str, law: str) -> pd.DataFrame:
    return table[(table["batching"] == batching) & (table["law"] == law)]


def _fitted(fits: pd.DataFrame, batching: str, law: str) -> pd.DataFrame:
    """Return fits of one law, without traces that could not tell its parameter."""
    rows = _of(fits, batching, law)
    return rows[rows["value"].notna() | (law == "uniform_occupancy")]
