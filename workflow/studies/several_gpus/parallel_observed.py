"""What one GPU of several holds as this study counts it, held against what servers of others printed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from prophet_moe.capacity.several_gpus import Spread, spread, weights_of
from prophet_moe.catalog.model import ModelSpec
from prophet_moe.observed import memory
from prophet_moe.observed.context import Context, load_context
from prophet_moe.observed.schema import KINDS, is_missing, read_observations
from prophet_moe.settings.fields import WeightFormats
from prophet_moe.settings.scenario import CALIBRATED
from prophet_moe.tables import write_table
from prophet_moe.units import GIB
from studies.several_gpus.study import HELD

QUANTITIES = ("weights", "kv_bytes_per_token", "kv_tokens")
"""Quantities of one GPU that are held against what is counted."""


def held_against(rows: pd.DataFrame, context: Context) -> pd.DataFrame:
    """Return what servers of several GPUs printed, what this study counts, and what engine profiles predict.

    Parameters
    ----------
    rows : DataFrame
        Observations of memory, `observed.schema.MEMORY`.
    context : Context
        Models, GPUs and engines.

    Returns
    -------
    DataFrame
        The columns of HELD: rows of more than one GPU with known sizes that may be used.
    """
    several = rows[rows["gpus"].fillna(1) > 1]
    found = memory.predicted(several, context)
    found = found[found["clean"] & found["predicted"].notna() & found["quantity"].isin(QUANTITIES)]
    by_id = {row["id"]: row for row in several.to_dict("records")}
    return pd.DataFrame(
        [_row(cells, by_id[cells["id"]], context) for cells in found.to_dict("records")],
        columns=[column.name for column in HELD.columns],
    ).astype({"gpus": "Int64"})


def _row(cells: dict[str, Any], row: dict[str, Any], context: Context) -> dict[str, Any]:
    known = {name: cell for name, cell in row.items() if not is_missing(cell)}
    asked = memory.case_of(known, context).asked
    held = _counted_spread(asked, context)
    measured, predicted = cells["measured"], cells["predicted"]
    counted = min(_counted(cells["quantity"], held, known), key=lambda value: abs(value - measured))
    return {
        **{name: cells[name] for name in ("id", "engine", "model", "gpu", "quantity", "unit")},
        "gpus": int(known["gpus"]),
        "layout": asked.over.named,
        "measured": measured,
        "counted": counted,
        "predicted": predicted,
        "counted_error_pct": 100 * (counted / measured - 1),
        "predicted_error_pct": 100 * (predicted / measured - 1),
    }


def _counted_spread(asked, context: Context) -> Spread:
    """Return the model of an observation in its layout and its formats."""
    spec: ModelSpec = next(spec for spec in context.models.values() if spec.architecture.mixers == asked.arch.mixers)
    precision = WeightFormats(default=asked.precision.default, **asked.precision.components)
    changed = {"precision": precision, "kv_format": asked.precision.kv, "mla_cache": asked.precision.mla_cache}
    spec = spec.model_copy(update={"architecture": asked.arch})
    # Without an engine, the weights and the cache on a GPU are those of any kind of GPU.
    gpu, listed = next(iter(context.gpus.items()))
    return spread(spec, gpu, listed, CALIBRATED.model_copy(update=changed), replace(asked.over, layers=()))


def _counted(quantity: str, held: Spread, row: dict[str, Any]) -> Iterator[float]:
    """Yield the quantity of a GPU of every pipeline stage that differs."""
    for stage in held.stages:
        each = stage.memory
        if quantity == "weights":
            yield weights_of(stage)[0] / GIB
        elif quantity == "kv_bytes_per_token":
            yield float(each.kv_bytes_per_token_growing)
        else:
            yield row["kv_cache_gib_per_gpu"] * GIB / float(each.kv_bytes_per_token_growing)


def build(files, parameters):
    """Write the rows of servers of several GPUs beside what is counted."""
    rows = read_observations(files.memory, KINDS["memory"])
    write_table(files.table, held_against(rows, load_context()), HELD)
