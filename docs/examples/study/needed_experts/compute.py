"""Compute how many experts a batch needs, by each law of a scenario."""

from typing import get_args

import numpy as np
import pandas as pd

from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.routing.law import unique_experts
from prophet_moe.settings.scenario import Routing
from prophet_moe.tables import write_table
from studies.needed_experts.study import NEEDED

LAWS = get_args(Routing.model_fields["law"].annotation)


def needed_by_law(models: pd.DataFrame, routing: Routing, batch_size: int) -> pd.DataFrame:
    """Return the columns of NEEDED: a row per model and law.

    Parameters
    ----------
    models : DataFrame
        A row per model: `model`, `experts` (E), `top_k` (k) and `popularity_cv`.
    routing : Routing
        The parameters of the laws; which law it names does not matter.
    batch_size : int
        Sequences that decode together, B.
    """
    columns = [models[name].to_numpy(float) for name in ("experts", "top_k", "popularity_cv")]
    batch = np.full(len(models), float(batch_size))
    parts = []
    for law in LAWS:
        needed = unique_experts(routing.model_copy(update={"law": law}), *columns, batch)
        part = models[["model", "experts"]].astype({"experts": int})
        parts.append(part.assign(law=law, batch_size=batch_size, needed=needed))
    return pd.concat(parts)[[column.name for column in NEEDED.columns]]


def build(files, parameters):
    """Write one row per model and law of routing."""
    grid = pd.read_parquet(files.grid)
    models = grid[grid["case"] == ESTIMATE].drop_duplicates("model")
    routing = Routing.model_validate(parameters["routing"])
    write_table(files.table, needed_by_law(models, routing, parameters["batch_size"]), NEEDED)
