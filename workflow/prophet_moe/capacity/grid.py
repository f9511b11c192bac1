"""The grid: every model on every GPU at every batch size, under one scenario."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from math import isnan

import numpy as np
import pandas as pd

from prophet_moe.capacity.context import cache_columns
from prophet_moe.capacity.memory import ModelMemory, device_bytes, model_memory
from prophet_moe.capacity.record import ESTIMATE, FEWEST, MOST, fit_state
from prophet_moe.capacity.reserve import reserve_basis, with_reserve
from prophet_moe.capacity.sweep import evaluate
from prophet_moe.capacity.under_engine import UnderEngine, serving, under_engine
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.catalog.engine import EngineSpec
from prophet_moe.catalog.names import ModelName, named
from prophet_moe.params import Cache
from prophet_moe.routing.popularity_cv import PopularityCV
from prophet_moe.settings.scenario import IDEAL, Scenario
from prophet_moe.units import MIB


def capacity_grid(
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    batch_sizes: Sequence[int],
    scenario: Scenario,
    popularity_cvs: Mapping[str, PopularityCV],
    reserves: Mapping[str, int] | None = None,
    engine: EngineSpec | None = None,
    names: Sequence[ModelName] = (),
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
    engine : EngineSpec, optional
        The profile of the scenario's engine; None is `ideal`.
    names : sequence of ModelName
        What checkpoints have of their own (config/model_names.yaml), which engines keep tables of.

    Returns
    -------
    DataFrame
        One row per case, model, GPU and batch size, in that order: the constants, then the metrics of `sweep.evaluate`.
        Bytes and tokens are float64, exact where whole; constants that the report leaves unknown are NaN.
    """
    memories = {name: model_memory(spec, scenario) for name, spec in models.items()}
    memories = {name: memory for name, memory in memories.items() if memory is not None}
    grids = []
    for case, popularity_cv in _cases(scenario, popularity_cvs).items():
        routed = {name: replace(memory, popularity_cv=popularity_cv(name)) for name, memory in memories.items()}
        if engine is None or engine.name == IDEAL:
            grid = _grid(routed, gpus, batch_sizes, scenario, reserves or {})
        else:
            held = _held(models, routed, gpus, scenario, engine, names)
            parts = [_grid({m: u.memory}, {g: gpus[g]}, batch_sizes, u.scenario, {}) for (m, g), u in held.items()]
            grid = pd.concat(parts, ignore_index=True)
        grids.append(grid.assign(case=case))
    return pd.concat(grids, ignore_index=True)


def _held(
    models: Mapping[str, ModelSpec],
    memories: Mapping[str, ModelMemory],
    gpus: Mapping[str, GpuSpec],
    scenario: Scenario,
    engine: EngineSpec,
    names: Sequence[ModelName],
) -> dict[tuple[str, str], UnderEngine]:
    """Return what an engine holds of every model on every GPU, in the order of the grid."""
    return {
        (name, gpu): under_engine(
            serving(models[name], gpu, spec, scenario, engine, named(name, list(names))), memory, scenario
        )
        for name, memory in memories.items()
        for gpu, spec in gpus.items()
    }


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


def _grid(
    memories: Mapping[str, ModelMemory],
    gpus: Mapping[str, GpuSpec],
    batch_sizes: Sequence[int],
    scenario: Scenario,
    reserves: Mapping[str, int],
) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([memories, gpus, batch_sizes], names=["model", "gpu", "batch_size"])
    frame = index.to_frame(index=False)

    for field in (field for field in fields(ModelMemory) if field.name != "further_caches"):
        by_model = {name: getattr(memory, field.name) for name, memory in memories.items()}
        frame[field.name] = frame["model"].map(by_model).astype(bool if field.type is bool else np.float64)
    usable = {name: device_bytes(gpu, scenario) for name, gpu in gpus.items()}
    frame["device_bytes"] = frame["gpu"].map(usable).astype(np.float64)
    frame["batch"] = frame["batch_size"].astype(np.float64)

    frame["evidence"] = frame["model"].map({name: _evidence(memory, scenario) for name, memory in memories.items()})
    frame["routing_law"] = scenario.routing.law
    for part in ("kv_bytes_per_token_growing", "kv_bytes_bounded"):
        by_model = {name: getattr(memory, part) for name, memory in memories.items()}
        frame[part] = frame["model"].map(by_model).astype(np.float64)
    further = {name: memory.further_caches for name, memory in memories.items()}
    on_gpus = [_evaluated(rows, further, scenario, reserves.get(gpu)) for gpu, rows in frame.groupby("gpu", sort=False)]
    frame = pd.concat(on_gpus).sort_index()
    frame["fit_state"] = fit_state(frame)
    return frame.drop(columns="batch")


def _evaluated(
    rows: pd.DataFrame, further: Mapping[str, tuple[Cache, ...]], scenario: Scenario, reserve: int | None
) -> pd.DataFrame:
    """Return the configurations of one GPU with their metrics, and what its runtime reserve is and rests on."""
    here = with_reserve(scenario, reserve)
    caches = cache_columns([further[name] for name in rows["model"]])
    return rows.assign(
        runtime_reserve_bytes=float(here.runtime_reserve_mib * MIB),
        runtime_reserve_basis=reserve_basis(scenario, reserve),
        **evaluate({name: rows[name].to_numpy() for name in rows} | caches, here),
    )


def _evidence(memory: ModelMemory, scenario: Scenario) -> str:
    """Return what a row's fit and extension rest on: computed, or what the report forced or was fitted to."""
    if scenario.architecture == "published":
        return "computed"
    return "forced" if memory.forced_not_fitting else "fitted"
