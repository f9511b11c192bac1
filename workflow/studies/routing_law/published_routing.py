"""Hold the law for u(B) against the routing of published models, each predicted from the counts of all others."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from prophet_moe.routing.published import PublishedRouting, read_published
from prophet_moe.routing.published_cv import pooled
from prophet_moe.routing.published_law import predictions
from prophet_moe.tables import write_table
from studies.routing_law.study import PUBLISHED_POOLS, PUBLISHED_TRANSFER


def transfer(rows: Sequence[PublishedRouting]) -> pd.DataFrame:
    """Return the errors of every prediction of every row."""
    found = []
    for row in rows:
        told = row.model_dump(include={"model", "text", "domain", "traffic", "phase", "balancing"})
        shape = row.model_dump(include={"experts", "top_k", "clean"})
        for prediction in predictions(row, rows):
            relative = 100 * (prediction.unique / np.array(row.unique) - 1)
            bounded = not np.isnan(prediction.low)
            found.append(
                {"observation": row.id}
                | told
                | shape
                | {
                    "basis": prediction.basis,
                    "models": prediction.models,
                    "popularity_cv": prediction.parameter,
                    "low": prediction.low,
                    "high": prediction.high,
                    "own": row.effective_cv,
                    "inside": prediction.low <= row.effective_cv <= prediction.high if bounded else None,
                    "error_pct": float(np.sqrt(np.mean(relative**2))),
                    "worst_residual_pct": float(relative[np.argmax(np.abs(relative))]),
                }
            )
    return pd.DataFrame(found).astype({"inside": "boolean"})


def pools(rows: Sequence[PublishedRouting]) -> pd.DataFrame:
    """Return what the models of every way of balancing have in common, by domain of the text."""
    ways = ("any", *dict.fromkeys(row.balancing for row in rows))
    found = []
    for balancing, domain in product(ways, ("any", "web", "prompts")):
        pool = pooled(rows, domain, lambda row, way=balancing: way in ("any", row.balancing))
        if pool:
            ends = (pool.low, pool.high) if np.isfinite(pool.high) else (np.nan, np.nan)
            values = (balancing, domain, len(pool.models), pool.value, *ends, ", ".join(pool.models))
            found.append(dict(zip((column.name for column in PUBLISHED_POOLS.columns), values, strict=True)))
    return pd.DataFrame(found)


def build(files, parameters):
    """Write the table of predictions and the table of pools."""
    rows = read_published(files.observations)
    write_table(files.transfer, transfer(rows), PUBLISHED_TRANSFER)
    write_table(files.pools, pools(rows), PUBLISHED_POOLS)
