"""What fits where: models of today, in the formats that their authors ship, on one GPU each."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from prophet_moe import params
from prophet_moe.capacity.configured import Configured, read_configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.capacity.reference import most_resident
from prophet_moe.capacity.under_engine import Held
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.catalog.link import link_named, load_links
from prophet_moe.hardware.pace import Paces, read_paces
from prophet_moe.routing.popularity_cv import PopularityCV, popularity_cv_for
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import from_sources, write_table
from studies.current_models.study import CURRENT_MODELS, CurrentModelsSettings

AS_SHIPPED = {"architecture": "published", "precision": "shipped"}
"""What the study changes of a scenario: every model counts by its own file."""


def current_models(configured: Configured, paces: Mapping[str, Paces], settings: CurrentModelsSettings) -> pd.DataFrame:
    """Say what fits of every model on every GPU, with all experts resident and with slots for some.

    Parameters
    ----------
    configured : Configured
        Models with experts, GPUs, and a scenario, which gives all parameters but the formats of weights: those are what
        each model ships. Models without a popularity CV have the pooled one.
    paces : mapping from str to Paces
        Measured or estimated times by GPU, and the bounds of its datasheet.
    settings : CurrentModelsSettings
        Batch size, and the context that slots leave room for.

    Returns
    -------
    DataFrame
        The columns of CURRENT_MODELS, smallest checkpoint first, GPUs in their order.
    """
    models, known = configured.models, configured.popularity_cvs
    popularity_cvs = {name: _popularity_cv(spec, known) for name, spec in models.items()} if known else {}
    scenario = configured.scenario.model_copy(update=AS_SHIPPED)
    shipped = replace(configured, scenario=scenario, popularity_cvs=popularity_cvs)
    grid = capacity_grid(shipped, [settings.batch_size])
    grid = grid[grid["case"] == ESTIMATE].set_index(["model", "gpu"])
    held = shipped.held()
    described = {name: _described(spec, scenario) for name, spec in models.items()}
    rows = []
    for name in sorted(models, key=lambda name: described[name]["checkpoint_bytes"]):
        for gpu, spec in configured.gpus.items():
            cell = grid.loc[name, gpu]
            found = dict(_beside_context(models[name], held[name, gpu], spec, paces[gpu], cell, settings))
            rows.append({**cell, "model": name, "gpu": gpu, **described[name], **found})
    return from_sources(pd.DataFrame(rows), CURRENT_MODELS)


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
    held: Held,
    gpu: GpuSpec,
    paces: Paces,
    cell: pd.Series,
    settings: CurrentModelsSettings,
) -> Iterator[tuple[str, object]]:
    """What is left for experts beside the context of the settings, and what a decode step then takes at least."""
    batch, arch = settings.batch_size, spec.architecture
    context = min(settings.context_tokens, arch.native_context)
    memory, scenario = held.memory, held.scenario
    slots = most_resident(memory, held.device_bytes, batch, scenario, context)
    share = np.nan if slots is None else slots / memory.experts
    yield "batch_size", batch
    yield "unified_memory", gpu.unified_memory
    yield "context", context
    yield "slots", slots
    yield "share_resident_pct", 100 * share
    yield "other_expert_bytes", cell["baseline_expert_bytes"] * (1 - share)
    unique = min(cell["unique_experts"], memory.top_k * batch)
    precision = scenario.precision_of(spec.precision)
    known = slots is not None and slots >= memory.top_k and (slots == memory.experts or not gpu.unified_memory)
    for suffix, pace in (("", paces.best), ("_bound", paces.bound)):
        resident = pace.step_seconds(arch, batch, context, unique, precision)
        copies = len(arch.moe_layers) * unique * (1 - share)
        copying = copies * pace.copy_seconds(params.expert_bytes(arch, precision)) if known else np.nan
        yield f"all_resident{suffix}_ms", 1e3 * resident
        yield f"slots_least{suffix}_ms", 1e3 * np.maximum(resident, copying)
    yield "times", paces.best.basis


def build(files, parameters):
    """Write table 13, what fits where."""
    settings = CurrentModelsSettings.model_validate(parameters["current_models"])
    configured = read_configured(files, parameters, settings.gpus)
    link = link_named(parameters["link"], load_links(files.links))
    paces = read_paces(Path(parameters["profiles"]), files.operators[0].parent, configured.gpus, link)
    write_table(files.table, current_models(configured, paces, settings), CURRENT_MODELS)
