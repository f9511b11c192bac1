"""Published routing held against the law for u(B), the distinct experts that a batch of B tokens uses.

A row gives u(B) by the popularity that was counted. It is predicted by the law at the row's own effective CV, which
shows how well the law's shape holds; at the CV pooled from other models, as a model without counts has it; and by
uniform occupancy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from prophet_moe.errors import UserError
from prophet_moe.observed.context import Context
from prophet_moe.observed.schema import MEND, UNIQUE, is_missing, result_frame, result_row
from prophet_moe.routing.law_fit import Observed, fit_popularity_cv
from prophet_moe.routing.published import BATCHES, impossible_unique
from prophet_moe.routing.published_law import predictions

NAMED = {"own": "own_cv", "balanced_alike": "pooled_cv", "uniform_occupancy": "uniform"}
"""Ends of the names of quantities, by what the prediction rests on."""
NOT_CLEAN = "the source says that it is not clean"


@dataclass(frozen=True)
class Target:
    """A row that is predicted."""

    known_as: str
    experts: int
    top_k: int
    balancing: str
    domain: str
    effective_cv: float


def predicted(rows: pd.DataFrame, context: Context) -> pd.DataFrame:
    """Predict u(B) of every row at every batch size, in three ways.

    Parameters
    ----------
    rows : DataFrame
        Observations with the columns of `schema.ROUTING`; all but those that it requires may be empty.
    context : Context
        Its published routing is what the pooled CV rests on. Rows of the model that is predicted are left out of it.

    Returns
    -------
    DataFrame
        One row per observation, batch size and way: `u_8_pooled_cv` and alike, in experts. Columns of RESULT_COLUMNS.
    """
    return result_frame(cells for row in rows.to_dict("records") for cells in _row(row, context))


def within_goal(row: Mapping[str, Any]) -> bool | None:
    """Return whether a prediction is as near as this project wants: None, no quantity of routing has a goal."""
    return None


def _row(row: Mapping[str, Any], context: Context) -> Iterator[dict[str, Any]]:
    unique = tuple(float(row[name]) for name in UNIQUE)
    for name, problem in _impossible(row, unique):
        raise UserError(f"{row['id']}: {name}", problem, MEND)
    clean = is_missing(row["clean"]) or bool(row["clean"])
    for prediction in predictions(_target(row, unique, context), context.published):
        if prediction.basis not in NAMED:
            continue
        for batch, measured, distinct in zip(BATCHES, unique, prediction.unique, strict=True):
            yield result_row(
                id=row["id"],
                kind="routing",
                quantity=f"u_{batch}_{NAMED[prediction.basis]}",
                model=row["model"],
                measured=measured,
                predicted=float(distinct),
                unit="experts",
                left_out="" if clean else row["note"] or NOT_CLEAN,
            )


def _impossible(row: Mapping[str, Any], unique: tuple[float, ...]) -> Iterator[tuple[str, str]]:
    experts, top_k = int(row["experts"]), int(row["top_k"])
    if top_k > experts:
        yield "top_k", f"got {top_k}, expected at most the {experts} experts"
    else:
        yield from impossible_unique(experts, top_k, unique)


def _target(row: Mapping[str, Any], unique: tuple[float, ...], context: Context) -> Target:
    """Return what predictions need; an effective CV that is not given is fitted."""
    experts, top_k, effective_cv = int(row["experts"]), int(row["top_k"]), float(row["effective_cv"])
    if isnan(effective_cv):
        effective_cv = fit_popularity_cv(Observed(experts, top_k, BATCHES, np.array(unique), np.empty((0, experts))))
    found = None if row["stands_for"] else context.model(row["model"])
    known_as = row["stands_for"] or (found[0].name if found else row["model"])
    domain = row["domain"] or "any"
    return Target(known_as, experts, top_k, row["balancing"] or "unknown", domain, effective_cv)
