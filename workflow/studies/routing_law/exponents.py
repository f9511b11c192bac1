"""Table 5: measured exponents of u(B) and those of the report."""

from collections.abc import Mapping

import pandas as pd

from prophet_moe.routing.cross_model import exponent_of
from prophet_moe.routing.law_schema import BATCHES, REPORTED_EXPONENT
from prophet_moe.routing.popularity_cv import PopularityCV

BATCHING = "staggered"
"""The batches of continuous serving."""


def exponents(
    fits: pd.DataFrame,
    of: Mapping[str, PopularityCV],
    models: Mapping[str, tuple[int, int]],
    reported: Mapping[str, float],
) -> pd.DataFrame:
    """Table 5: exponents of k B^a, fitted to every trace; and, for models that the report names, what the law implies.

    The report's exponent is in a column of its own; for traces it is the common one. Intervals are over sequences for
    a trace, and over the routing of other models for a model. `of` is the popularity CV of each model.
    """
    rows = []
    measured = fits[(fits["batching"] == BATCHING) & (fits["law"] == "power_law")]
    for fit in measured.itertuples():
        rows.append(
            {
                "name": fit.trace,
                "basis": "measured",
                "num_experts": fit.experts,
                "top_k": fit.top_k,
                "exponent": fit.value,
                "low": fit.low,
                "high": fit.high,
                "largest_batch": fit.largest_batch,
                "r_squared": fit.r_squared,
                "held_out_error_pct": fit.held_out_error_pct,
                "reported_exponent": REPORTED_EXPONENT,
            }
        )
    for model in (name for name in reported if name in models):
        # A larger popularity CV, fewer experts, a smaller exponent.
        (value, largest), (high, _), (low, _) = (
            exponent_of(*models[model], number, BATCHES) for number in (of[model].value, of[model].low, of[model].high)
        )
        rows.append(
            {
                "name": model,
                "basis": of[model].source,
                "num_experts": models[model][0],
                "top_k": models[model][1],
                "exponent": value,
                "low": low,
                "high": high,
                "largest_batch": largest,
                "reported_exponent": reported[model],
            }
        )
    return pd.DataFrame(rows)
