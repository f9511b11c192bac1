"""The grid: every model on every GPU at every batch size, under one scenario."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace

import numpy as np
import pandas as pd

from prophet_moe.capacity.memory import ModelMemory, model_memory
from prophet_moe.capacity.record import ESTIMATE, FEWEST, MOST, fit_state
from prophet_moe.capacity.sweep import evaluate
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.routing.variation import Variation
from prophet_moe.settings import Scenario


def capacity_grid(
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    batch_sizes: Sequence[int],
    scenario: Scenario,
    variations: Mapping[str, Variation],
) -> pd.DataFrame:
    """One row per case, model, GPU and batch size, in that order: the constants, then sweep.evaluate's metrics.

    `variations` by model, where the scenario's routing is fitted: then there are three cases, else ESTIMATE alone.
    Bytes and tokens as float64, exact where whole; constants that the report leaves unknown are NaN. Models that the
    report does not cover are absent from a scenario with reported architectures.
    """
    memories = {name: model_memory(spec, scenario) for name, spec in models.items()}
    memories = {name: memory for name, memory in memories.items() if memory is not None}
    grids = []
    for case, variation in _cases(scenario, variations).items():
        routed = {name: replace(memory, variation=variation(name)) for name, memory in memories.items()}
        grids.append(_grid(routed, gpus, batch_sizes, scenario).assign(case=case))
    return pd.concat(grids, ignore_index=True)


def _cases(scenario: Scenario, variations: Mapping[str, Variation]) -> dict[str, Callable[[str], float]]:
    """By case, the variation of a model."""
    if not scenario.fits_routing:
        given = scenario.routing.variation
        return {ESTIMATE: lambda _: 0 if given == "fitted" else given}
    return {
        ESTIMATE: lambda name: variations[name].value,
        FEWEST: lambda name: variations[name].high,
        MOST: lambda name: variations[name].low,
    }


def _grid(
    memories: Mapping[str, ModelMemory], gpus: Mapping[str, GpuSpec], batch_sizes: Sequence[int], scenario: Scenario
) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([memories, gpus, batch_sizes], names=["model", "gpu", "batch_size"])
    frame = index.to_frame(index=False)

    for field in fields(ModelMemory):
        by_model = {name: getattr(memory, field.name) for name, memory in memories.items()}
        frame[field.name] = frame["model"].map(by_model).astype(bool if field.type is bool else np.float64)
    device_bytes = {name: gpu.memory_bytes(scenario.device_memory) for name, gpu in gpus.items()}
    frame["device_bytes"] = frame["gpu"].map(device_bytes).astype(np.float64)
    frame["batch"] = frame["batch_size"].astype(np.float64)

    frame["evidence"] = frame["model"].map({name: _evidence(memory, scenario) for name, memory in memories.items()})
    frame["routing_law"] = scenario.routing.law
    frame = frame.assign(**evaluate({name: frame[name].to_numpy() for name in frame}, scenario))
    frame["fit_state"] = fit_state(frame)
    return frame.drop(columns="batch")


def _evidence(memory: ModelMemory, scenario: Scenario) -> str:
    """What a row's fit and extension rest on: see docs/model.md, 'Evidence'."""
    if scenario.architecture == "published":
        return "computed"
    return "forced" if memory.forced_not_fitting else "fitted"
