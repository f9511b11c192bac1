"""What fits where: models of today, in the formats that their authors ship, on one GPU each."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from prophet_moe import params
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.memory import ModelMemory, model_memory
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.capacity.reference import most_resident
from prophet_moe.capacity.reserve import reserves_for, with_reserve
from prophet_moe.catalog import GpuSpec, ModelSpec, load_gpus
from prophet_moe.catalog.model import load_model
from prophet_moe.hardware.profile import Profile, read_profile
from prophet_moe.hardware.roofline import all_resident_seconds, layer_times, link_bound_seconds
from prophet_moe.routing.popularity_cv import PopularityCV, popularity_cv_for, popularity_cvs_of
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import write_table
from studies.current_models.study import CURRENT_MODELS, CurrentModelsSettings

AS_SHIPPED = {"architecture": "published", "precision": "shipped"}
"""What the study changes of a scenario: every model counts by its own file."""


def current_models(
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    profiles: Mapping[str, Profile],
    scenario: Scenario,
    settings: CurrentModelsSettings,
    known: Mapping[str, PopularityCV],
    reserves: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Say what fits of every model on every GPU, with all experts resident and with slots for some.

    Parameters
    ----------
    models : mapping from str to ModelSpec
        Models by name, with experts.
    gpus : mapping from str to GpuSpec
        GPUs by name.
    profiles : mapping from str to Profile
        Measured or datasheet performance by GPU.
    scenario : Scenario
        All parameters but the formats of weights, which are those that each model ships.
    settings : CurrentModelsSettings
        Batch size, and the context that slots leave room for.
    known : mapping from str to PopularityCV
        By model; models without one have the pooled one. Empty where the scenario's routing is not fitted.
    reserves : mapping from str to int, optional
        Measured runtime reserve in bytes by GPU.

    Returns
    -------
    DataFrame
        The columns of CURRENT_MODELS, smallest checkpoint first, GPUs in the order of `gpus`.
    """
    shipped, reserves = scenario.model_copy(update=AS_SHIPPED), reserves or {}
    popularity_cvs = {name: _popularity_cv(spec, known) for name, spec in models.items()} if known else {}
    grid = capacity_grid(models, gpus, [settings.batch_size], shipped, popularity_cvs, reserves)
    grid = grid[grid["case"] == ESTIMATE].set_index(["model", "gpu"])
    described = {name: _described(spec, shipped) for name, spec in models.items()}
    rows = []
    for name in sorted(models, key=lambda name: described[name]["checkpoint_bytes"]):
        memory = model_memory(models[name], shipped)
        for gpu, spec in gpus.items():
            cell = grid.loc[name, gpu]
            here = with_reserve(shipped, reserves.get(gpu))
            found = dict(_beside_context(models[name], memory, spec, profiles[gpu], cell, here, settings))
            rows.append({**cell, "model": name, "gpu": gpu, **described[name], **found})
    return _table(pd.DataFrame(rows))


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of the table from their sources, in their units; whole numbers are whole, and may be missing."""
    columns = {}
    for column in CURRENT_MODELS.columns:
        values = rows[column.source] if column.per == 1 else rows[column.source] / column.per
        columns[column.name] = values.astype("Int64") if column.kind == "integer" else values
    return pd.DataFrame(columns)


def _popularity_cv(spec: ModelSpec, known: Mapping[str, PopularityCV]) -> PopularityCV:
    moe = spec.architecture.moe
    return popularity_cv_for(spec.name, moe.experts, moe.top_k, known)


def _described(spec: ModelSpec, scenario: Scenario) -> dict[str, object]:
    precision = scenario.precision_of(spec.precision)
    return {
        "formats": precision.named(),
        "checkpoint_bytes": sum(params.weight_bytes(spec.architecture, precision).values()),
        "left_out": "; ".join(spec.left_out),
    }


def _beside_context(
    spec: ModelSpec,
    memory: ModelMemory,
    gpu: GpuSpec,
    profile: Profile,
    cell: pd.Series,
    scenario: Scenario,
    settings: CurrentModelsSettings,
) -> Iterator[tuple[str, object]]:
    """What is left for experts beside the context of the settings, and what a decode step then takes at least."""
    batch, arch = settings.batch_size, spec.architecture
    context = min(settings.context_tokens, arch.native_context)
    slots = most_resident(memory, int(cell["device_bytes"]), batch, scenario, context)
    share = np.nan if slots is None else slots / memory.experts
    yield "batch_size", batch
    yield "unified_memory", gpu.unified_memory
    yield "context", context
    yield "slots", slots
    yield "share_resident_pct", 100 * share
    yield "other_expert_bytes", cell["baseline_expert_bytes"] * (1 - share)
    unique = min(cell["unique_experts"], memory.top_k * batch)
    times = layer_times(arch, profile, batch, context, unique, scenario.precision_of(spec.precision))
    yield "all_resident_ms", 1e3 * all_resident_seconds(times)
    known = slots is not None and slots >= memory.top_k and (slots == memory.experts or not gpu.unified_memory)
    yield "slots_least_ms", 1e3 * link_bound_seconds(times, unique * (1 - share)) if known else np.nan
    yield "source", profile.source


def build(files, parameters):
    """Write table 13, what fits where."""
    models = {path.stem: load_model(path) for path in files.models}
    scenario = Scenario.model_validate(parameters["scenario"])
    settings = CurrentModelsSettings.model_validate(parameters["current_models"])
    gpus = load_gpus(files.gpus, settings.gpus)
    folder = Path(parameters["profiles"])
    profiles = {name: read_profile(folder, name, spec) for name, spec in gpus.items()}
    known = popularity_cvs_of(files.variations, scenario.routing.batching)
    reserves = reserves_for(scenario, Path(parameters["memory"]), gpus)
    table = current_models(models, gpus, profiles, scenario, settings, known, reserves)
    write_table(files.table, table, CURRENT_MODELS)
