"""Memory by context, savings by batch size, and the batch from which all experts are needed."""

from collections.abc import Mapping, Sequence

import pandas as pd

from prophet_moe.capacity.configured import Configured, read_configured
from prophet_moe.capacity.memory import ModelMemory, device_bytes
from prophet_moe.capacity.reference import evaluate, resident_experts, unique_experts
from prophet_moe.capacity.reserve import with_reserve
from prophet_moe.capacity.saturation import power_law_batch, saturating_batch
from prophet_moe.settings.scenario import Routing, Scenario
from prophet_moe.tables import write_table
from prophet_moe.units import GB
from studies.memory_figures.study import MEMORY_BY_CONTEXT, SATURATION, SAVINGS_BY_BATCH, MemoryFiguresSettings

REPORTS_LAW = Routing(law="power_law")
"""The law of the reports, with their exponent."""


def memory_by_context(
    configured: Configured, names: Sequence[str], gpu: str, settings: MemoryFiguresSettings
) -> pd.DataFrame:
    """Return the columns of MEMORY_BY_CONTEXT: all memory of the baseline and of Prophet at each context.

    Parameters
    ----------
    configured : Configured
        Models, GPUs and the scenario.
    names : sequence of str
        Models that are shown.
    gpu : str
        Name of the GPU.
    settings : MemoryFiguresSettings
        Batch size and contexts.
    """
    here, batch = with_reserve(configured.scenario, configured.reserves.get(gpu)), settings.context_batch
    device, memories = device_bytes(configured.gpus[gpu], here), configured.constants()
    rows = []
    for name in names:
        memory = memories[name]
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
    gpu = parameters["reference"]["gpu"]
    configured = read_configured(files, parameters, [gpu])
    memories, scenario = configured.constants(), configured.scenario
    by_context = memory_by_context(configured, parameters["context_models"], gpu, settings)
    write_table(files.contexts, by_context, MEMORY_BY_CONTEXT)
    write_table(files.savings, savings_by_batch(memories, scenario, settings.savings_batches), SAVINGS_BY_BATCH)
    write_table(files.saturation, saturation(memories, scenario), SATURATION)
