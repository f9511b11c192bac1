"""The grid: every model on every GPU at every batch size, under one scenario."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from math import isnan

import numpy as np
import pandas as pd

from prophet_moe.capacity.context import cache_columns
from prophet_moe.capacity.memory import ModelMemory
from prophet_moe.capacity.record import ESTIMATE, FEWEST, MOST, fit_state
from prophet_moe.capacity.sweep import RUNTIME, evaluate
from prophet_moe.capacity.under_engine import NO_ENGINE, EngineChoice, Held, memories_on
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.routing.popularity_cv import PopularityCV
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import MIB


def capacity_grid(
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    batch_sizes: Sequence[int],
    scenario: Scenario,
    popularity_cvs: Mapping[str, PopularityCV],
    reserves: Mapping[str, int] | None = None,
    engine: EngineChoice = NO_ENGINE,
) -> pd.DataFrame:
    """Evaluate every model on every GPU at every batch size under one scenario.

    Parameters
    ----------
    models : mapping from str to ModelSpec
        Models by name; those that the report does not cover are left out of a scenario with reported architectures.
    gpus : mapping from str to GpuSpec
        GPUs by name.
    batch_sizes : sequence of int
        Sequences decoded together.
    scenario : Scenario
        The parameters that all rows share.
    popularity_cvs : mapping from str to PopularityCV
        By model; used where the scenario's routing is fitted, which makes three cases of each row instead of ESTIMATE.
    reserves : mapping from str to int, optional
        Measured runtime reserve in bytes by GPU; for other GPUs the scenario's assumption counts.
    engine : EngineChoice
        The scenario's engine.

    Returns
    -------
    DataFrame
        One row per case, model, GPU and batch size, in that order: the constants, then the metrics of `sweep.evaluate`.
        Bytes and tokens are float64, exact where whole; constants that the report leaves unknown are NaN.
    """
    held, grids = memories_on(models, gpus, scenario, engine, reserves), []
    for case, popularity_cv in _cases(scenario, popularity_cvs).items():
        routed = {pair: _routed(found, popularity_cv(pair[0])) for pair, found in held.items()}
        grids.append(_grid(routed, batch_sizes, scenario).assign(case=case))
    return pd.concat(grids, ignore_index=True)


def _routed(held: Held, popularity_cv: float) -> Held:
    return replace(held, memory=replace(held.memory, popularity_cv=popularity_cv))


def _cases(scenario: Scenario, popularity_cvs: Mapping[str, PopularityCV]) -> dict[str, Callable[[str], float]]:
    if not scenario.fits_routing:
        given = scenario.routing.variation
        return {ESTIMATE: lambda _: 0 if isinstance(given, str) else given}
    return {
        ESTIMATE: lambda name: popularity_cvs[name].value,
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
