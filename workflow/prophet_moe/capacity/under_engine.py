"""The capacity model under a serving engine: the memory constants and the scenario of one model on one GPU."""

from dataclasses import dataclass, replace

from prophet_moe import params
from prophet_moe.capacity.engine import EngineBudget, Serving, cache_of, engine_budget, inside, sharded
from prophet_moe.capacity.memory import ModelMemory
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.catalog.engine import EngineSpec
from prophet_moe.catalog.names import ModelName
from prophet_moe.settings.scenario import IDEAL, Scenario
from prophet_moe.units import GIB, MIB


@dataclass(frozen=True)
class UnderEngine:
    """A model on a GPU under an engine."""

    memory: ModelMemory
    scenario: Scenario
    budget: EngineBudget


def serving(
    spec: ModelSpec, gpu_name: str, gpu: GpuSpec, scenario: Scenario, engine: EngineSpec, own: ModelName | None = None
) -> Serving:
    """Return the question of a scenario to an engine: one model on one GPU with every expert resident.

    `own` is what the checkpoint has of its own (config/model_names.yaml).
    """
    share = scenario.usable_memory_share if scenario.usable_memory_share < 1 else None
    return Serving(
        engine,
        spec.architecture,
        scenario.precision_of(spec.precision),
        gpu.memory_bytes(scenario.device_memory) / GIB,
        gpu_name,
        memory_share=share,
        rotary_positions=own.rotary_positions if own else None,
        rotary_width=own.rotary_width if own else None,
        rotary_bytes=own.rotary_bytes if own else 2,
    )


def under_engine(asked: Serving, memory: ModelMemory, scenario: Scenario) -> UnderEngine:
    """Return the memory constants and the scenario of a model on a GPU under an engine.

    Parameters
    ----------
    asked : Serving
        What `serving` returns.
    memory : ModelMemory
        The constants without an engine, `memory.model_memory`.
    scenario : Scenario
        The scenario without an engine.

    Returns
    -------
    UnderEngine
        Constants with the engine's weights and cache layout, a scenario with its share of memory whose runtime reserve
        holds its libraries and reservation, and the budget. With the engine `ideal`, constants and scenario as given.
    """
    budget = engine_budget(asked)
    if asked.engine.name == IDEAL:
        return UnderEngine(memory, scenario, budget)
    here = sharded(asked)
    kept = cache_of(asked, here)
    plain = [cache for cache in kept if cache.window is None and cache.tokens_per_entry == 1]
    routed = sum(line.bytes for line in budget.lines if line.what == "routed experts")
    layers_experts = int(memory.moe_layers * memory.experts) if asked.arch.moe else 0
    one = routed // layers_experts if layers_experts else memory.expert_bytes
    held = budget.group_bytes("weights") - one * layers_experts
    stored = params.weight_bytes(asked.arch, asked.precision)
    further = held - sum(size for component, size in stored.items() if component != "routed_experts")
    engine_memory = replace(
        memory,
        expert_bytes=int(one),
        non_expert_bytes=memory.non_expert_bytes + round(further),
        kv_bytes_per_token=sum(cache.bytes(1) for cache in plain),
        further_caches=tuple(cache for cache in kept if cache not in plain),
        activation_bytes_per_token=0,
        activation_bytes_per_sequence=0,
    )
    share, reserve = _share_and_reserve(asked, budget)
    changed = {
        "usable_memory_share": share,
        "workspace_mib": 0.0,
        "runtime_reserve": "assumed",
        "runtime_reserve_mib": reserve / MIB,
    }
    return UnderEngine(engine_memory, scenario.model_copy(update=changed), budget)


def _share_and_reserve(asked: Serving, budget: EngineBudget) -> tuple[float, float]:
    """Return the share of the card for weights and cache, and the bytes of it that everything else takes.

    What lies outside the engine's share takes from it only what the rest of the card cannot hold.
    """
    total = asked.total_gib * GIB
    taken = inside(asked.engine)
    within = sum(line.bytes for line in budget.lines if line.group in taken and line.group != "weights")
    outside = sum(line.bytes for line in budget.lines if line.group not in taken)
    return budget.usable_bytes / total, within + max(0.0, outside - (total - budget.usable_bytes))
