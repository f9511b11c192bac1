"""The grid: every model on every GPU at every batch size, under one scenario."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from math import isnan

import numpy as np
import pandas as pd

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.context import cache_columns
from prophet_moe.capacity.memory import ModelMemory
from prophet_moe.capacity.record import ESTIMATE, FEWEST, MOST, fit_state
from prophet_moe.capacity.sweep import RUNTIME, evaluate
from prophet_moe.capacity.under_engine import Held
from prophet_moe.routing.popularity_cv import PopularityCV
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import MIB


def capacity_grid(configured: Configured, batch_sizes: Sequence[int]) -> pd.DataFrame:
    """Evaluate every model on every GPU at every batch size under one scenario.

    Parameters
    ----------
    configured : Configured
        Models, GPUs and the scenario. Routing that is fitted makes three cases of each row instead of ESTIMATE.
    batch_sizes : sequence of int
        Sequences decoded together.

    Returns
    -------
    DataFrame
        One row per case, model, GPU and batch size, in that order: the constants, then the metrics of `sweep.evaluate`.
        Bytes and tokens are float64, exact where whole; constants that the report leaves unknown are NaN.
    """
    held, grids = configured.held(), []
    for case, popularity_cv in _cases(configured).items():
        routed = {pair: _routed(found, popularity_cv(pair[0])) for pair, found in held.items()}
        grids.append(_grid(routed, batch_sizes, configured.scenario).assign(case=case))
    return pd.concat(grids, ignore_index=True)


def _routed(held: Held, popularity_cv: float) -> Held:
    return replace(held, memory=replace(held.memory, popularity_cv=popularity_cv))


def _cases(configured: Configured) -> dict[str, Callable[[str], float]]:
    if not configured.scenario.fits_routing:
        return {ESTIMATE: configured.popularity_cv}
    popularity_cvs = configured.popularity_cvs
    return {
        ESTIMATE: configured.popularity_cv,
        FEWEST: lambda name: _end(popularity_cvs[name], popularity_cvs[name].high),
        MOST: lambda name: _end(popularity_cvs[name], popularity_cvs[name].low),
    }


def _end(popularity_cv: PopularityCV, end: float) -> float:
    return popularity_cv.value if isnan(end) else end


def _grid(held: Mapping[tuple[str, str], Held], batch_sizes: Sequence[int], scenario: Scenario) -> pd.DataFrame:
    rows = [(model, gpu, batch) for model, gpu in held for batch in batch_sizes]
    frame = pd.DataFrame(rows, columns=["model", "gpu", "batch_size"])
    of_rows = [held[model, gpu] for model, gpu, _ in rows]

    for field in (field for field in fields(ModelMemory) if field.name != "further_caches"):
        values = [getattr(each.memory, field.name) for each in of_rows]
        frame[field.name] = np.array(values, bool if field.type is bool else np.float64)
    frame["device_bytes"] = np.array([each.device_bytes for each in of_rows], np.float64)
    frame["batch"] = frame["batch_size"].astype(np.float64)

    frame["evidence"] = [_evidence(each.memory, scenario) for each in of_rows]
    frame["routing_law"] = scenario.routing.law
    for part in ("kv_bytes_per_token_growing", "kv_bytes_bounded"):
        frame[part] = np.array([getattr(each.memory, part) for each in of_rows], np.float64)
    frame["runtime_reserve_bytes"] = [float(each.scenario.runtime_reserve_mib * MIB) for each in of_rows]
    frame["runtime_reserve_basis"] = [each.basis for each in of_rows]

    columns = {name: frame[name].to_numpy() for name in frame}
    columns |= cache_columns([each.memory.further_caches for each in of_rows])
    columns[RUNTIME] = np.array([each.runtime_bytes for each in of_rows], np.float64)
    frame = frame.assign(**evaluate(columns, scenario))
    frame["fit_state"] = fit_state(frame)
    return frame.drop(columns="batch")


def _evidence(memory: ModelMemory, scenario: Scenario) -> str:
    """Return what a row's fit and extension rest on: computed, or what the report forced or was fitted to."""
    if scenario.architecture == "published":
        return "computed"
    return "forced" if memory.forced_not_fitting else "fitted"
