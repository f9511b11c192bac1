"""Published routing held against the law for u(B), the distinct experts that a batch of B tokens uses.

A row of `resources/observations/routing.csv` gives u(B) by the popularity that was counted. It is predicted by the law
at the row's own effective CV, which shows how well the law's shape holds; at the CV pooled from all other models, as a
model without counts has it; and by uniform occupancy.
"""

from collections.abc import Sequence

import pandas as pd

from prophet_moe.routing.published import BATCHES, PublishedRouting
from prophet_moe.routing.published_law import predictions

KIND = "routing"
NAMED = {"own": "own_cv", "balanced_alike": "pooled_cv", "uniform_occupancy": "uniform"}
"""Ends of the names of quantities, by what the prediction rests on."""


def predicted(rows: Sequence[PublishedRouting], published: Sequence[PublishedRouting]) -> pd.DataFrame:
    """Predict u(B) of every row at every batch size, in three ways.

    Parameters
    ----------
    rows : sequence of PublishedRouting
        The observations.
    published : sequence of PublishedRouting
        What the pooled CV rests on; rows of the model that is predicted are left out of it.

    Returns
    -------
    DataFrame
        One row per observation, batch size and way: `u_8_pooled_cv` and alike, in experts, with the error in percent.
    """
    found = []
    for row in rows:
        for prediction in predictions(row, published):
            if prediction.basis not in NAMED:
                continue
            for batch, measured, unique in zip(BATCHES, row.unique, prediction.unique, strict=True):
                found.append(
                    {
                        "id": row.id,
                        "kind": KIND,
                        "quantity": f"u_{batch}_{NAMED[prediction.basis]}",
                        "engine": "",
                        "gpu": "",
                        "model": row.model,
                        "measured": measured,
                        "predicted": float(unique),
                        "unit": "experts",
                        "error_pct": 100 * (float(unique) / measured - 1),
                        "clean": row.clean,
                        "left_out": "" if row.clean else row.note,
                    }
                )
    return pd.DataFrame(found)
