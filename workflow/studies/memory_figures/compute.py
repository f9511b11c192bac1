"""Memory by context, savings by batch size, and the batch from which all experts are needed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from prophet_moe.capacity.memory import ModelMemory, device_bytes, model_memory
from prophet_moe.capacity.reference import evaluate, resident_experts, unique_experts
from prophet_moe.capacity.reserve import reserves_for, with_reserve
from prophet_moe.capacity.saturation import power_law_batch, saturating_batch
from prophet_moe.catalog import GpuSpec, ModelSpec, load_gpus
from prophet_moe.catalog.model import load_model
from prophet_moe.routing.popularity_cv import PopularityCV, popularity_cvs_of
from prophet_moe.settings.scenario import Routing, Scenario
from prophet_moe.tables import write_table
from prophet_moe.units import GB
from studies.memory_figures.study import MEMORY_BY_CONTEXT, SATURATION, SAVINGS_BY_BATCH, MemoryFiguresSettings

REPORTS_LAW = Routing(law="power_law")
"""The law of the reports, with their exponent."""


def memories_of(
    models: Mapping[str, ModelSpec], scenario: Scenario, known: Mapping[str, PopularityCV]
) -> dict[str, ModelMemory]:
    """Return the memory constants of the models that a scenario covers, with their popularity CV."""
    given = scenario.routing.variation
    found = {name: model_memory(spec, scenario) for name, spec in models.items()}
    unfitted = 0.0 if isinstance(given, str) else given
    return {
        name: replace(memory, popularity_cv=known[name].value if scenario.fits_routing else unfitted)
        for name, memory in found.items()
        if memory is not None
    }


def memory_by_context(
    memories: Mapping[str, ModelMemory],
    gpu: str,
    spec: GpuSpec,
    scenario: Scenario,
    settings: MemoryFiguresSettings,
    reserve: int | None = None,
) -> pd.DataFrame:
    """Return the columns of MEMORY_BY_CONTEXT: all memory of the baseline and of Prophet at each context.

    Parameters
    ----------
    memories : mapping from str to ModelMemory
        What `memories_of` returns, of the models that are shown.
    gpu : str
        Name of the GPU.
    spec : GpuSpec
        Its description.
    scenario : Scenario
        Routing law, rule for resident experts, activations and reserves.
    settings : MemoryFiguresSettings
        Batch size and contexts.
    reserve : int, optional
        Measured runtime reserve of the GPU, bytes.
    """
    here, batch = with_reserve(scenario, reserve), settings.context_batch
    device = device_bytes(spec, here)
    rows = []
    for name, memory in memories.items():
        found = evaluate(memory, device, batch, here)
        for context in settings.contexts:
            cache = batch * memory.cached_bytes(context)
            totals = {f"{side}_total_gb": (device - found[f"{side}_free_bytes"] + cache) / GB for side in SIDES}
            row = {"model": name, "gpu": gpu, "batch_size": batch, "context": context, "kv_cache_gb": cache / GB}
            rows.append(row | totals | {"gpu_memory_gb": device / GB})
    return pd.DataFrame(rows)


SIDES = ("baseline", "prophet")


def savings_by_batch(
    memories: Mapping[str, ModelMemory], scenario: Scenario, batch_sizes: Sequence[int]
) -> pd.DataFrame:
    """Return the columns of SAVINGS_BY_BATCH: expert savings of a layer by the scenario's law, and by the report's."""
    rows = []
    for name, memory in memories.items():
        experts, top_k = memory.experts, memory.top_k
        for batch in batch_sizes:
            unique = unique_experts(scenario.routing, experts, top_k, memory.popularity_cv, batch)
            resident = resident_experts(scenario, memory, batch, unique)
            asked = unique_experts(REPORTS_LAW, experts, top_k, 0, batch)
            row = {"model": name, "num_experts": experts, "top_k": top_k, "batch_size": batch}
            savings = {
                "savings_pct": 100 * (1 - resident / experts),
                "power_law_savings_pct": 100 * (1 - asked / experts),
            }
            rows.append(row | savings)
    return pd.DataFrame(rows)


def saturation(memories: Mapping[str, ModelMemory], scenario: Scenario) -> pd.DataFrame:
    """Return the columns of SATURATION: from which batch on all experts are needed, by both laws."""
    rows = [
        {
            "model": name,
            "num_experts": memory.experts,
            "top_k": memory.top_k,
            "power_law_batch": power_law_batch(memory.experts, memory.top_k, REPORTS_LAW.exponent),
            "saturating_batch": saturating_batch(memory, scenario),
        }
        for name, memory in memories.items()
    ]
    return pd.DataFrame(rows).astype({"saturating_batch": "Int64"})


def build(files, parameters):
    """Write the tables of contexts, savings and saturation."""
    settings = MemoryFiguresSettings.model_validate(parameters["memory_figures"])
    scenario, gpu = Scenario.model_validate(parameters["scenario"]), parameters["reference"]["gpu"]
    gpus = load_gpus(files.gpus, [gpu])
    known = popularity_cvs_of(files.variations, scenario.routing.batching)
    memories = memories_of({path.stem: load_model(path) for path in files.models}, scenario, known)
    reserve = reserves_for(scenario, Path(parameters["memory"]), gpus).get(gpu)
    shown = {name: memories[name] for name in parameters["context_models"]}
    by_context = memory_by_context(shown, gpu, gpus[gpu], scenario, settings, reserve)
    write_table(files.contexts, by_context, MEMORY_BY_CONTEXT)
    write_table(files.savings, savings_by_batch(memories, scenario, settings.savings_batches), SAVINGS_BY_BATCH)
    write_table(files.saturation, saturation(memories, scenario), SATURATION)
