"""The memory of models on GPUs under a scenario and its engine: what every study and command sizes memory by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prophet_moe import params
from prophet_moe.capacity.engine import EngineBudget, Serving, cache_of, engine_budget, inside, sharded
from prophet_moe.capacity.memory import ModelMemory, device_bytes, model_memory
from prophet_moe.capacity.reserve import reserve_basis, with_reserve
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.catalog.engine import EngineSpec, load_engine
from prophet_moe.catalog.names import ModelName, load_names, named
from prophet_moe.params.sharding import ONE_GPU, Parallelism
from prophet_moe.settings.scenario import IDEAL, Scenario
from prophet_moe.units import GIB, MIB


@dataclass(frozen=True)
class EngineChoice:
    """The engine of a scenario, and what it knows of checkpoints."""

    profile: EngineSpec | None = None
    """The profile of the engine; None: `ideal`."""
    names: tuple[ModelName, ...] = ()
    """What checkpoints have of their own (config/model_names.yaml), which engines keep tables of."""

    @property
    def ideal(self) -> bool:
        """Return whether weights and caches are held as published, without an engine."""
        return self.profile is None or self.profile.name == IDEAL


PLAIN = EngineSpec(name=IDEAL, engine=IDEAL, title="weights and caches as published", evidence={})
"""The terms of no engine."""
NO_ENGINE = EngineChoice()
"""Weights and caches as published."""


def read_engine(paths: Sequence[Path | str]) -> EngineChoice:
    """Read the engine of a job from its files: the profile and the names of models; none of them is NO_ENGINE."""
    if not paths:
        return NO_ENGINE
    profile, names = map(Path, paths)
    return EngineChoice(load_engine(profile), tuple(load_names(names)))


@dataclass(frozen=True)
class Held:
    """A model on a GPU under a scenario and its engine."""

    memory: ModelMemory
    """Constants with the engine's weights and cache layout."""
    scenario: Scenario
    """The scenario with the share of memory, the workspace and the runtime reserve that count on this GPU."""
    budget: EngineBudget | None
    """The budget of the engine, every expert resident; None without an engine."""
    device_bytes: int
    """Bytes of the GPU that may be used."""
    basis: str
    """What the runtime reserve rests on: measured or assumed."""

    @property
    def runtime_bytes(self) -> int:
        """Return the bytes of workspace and runtime reserve; under an engine, of all that is no weight or cache."""
        return round((self.scenario.workspace_mib + self.scenario.runtime_reserve_mib) * MIB)


def memories_on(
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    scenario: Scenario,
    engine: EngineChoice = NO_ENGINE,
    reserves: Mapping[str, int] | None = None,
) -> dict[tuple[str, str], Held]:
    """Return the memory of every model on every GPU under a scenario and its engine.

    Parameters
    ----------
    models : mapping from str to ModelSpec
        Models by name; those that the report does not cover are left out of a scenario with reported architectures.
    gpus : mapping from str to GpuSpec
        GPUs by name.
    scenario : Scenario
        Sizes, formats, the share of memory, workspace and runtime reserve.
    engine : EngineChoice
        The engine of the scenario; its terms take the place of workspace, reserve and activations.
    reserves : mapping from str to int, optional
        Measured runtime reserve in bytes by GPU; for other GPUs the scenario's assumption counts. No engine takes it.

    Returns
    -------
    dict
        By model and GPU, in their order.
    """
    constants = {name: model_memory(spec, scenario) for name, spec in models.items()}
    return {
        (name, gpu): held_on(models[name], memory, gpu, spec, scenario, engine, (reserves or {}).get(gpu))
        for name, memory in constants.items()
        if memory is not None
        for gpu, spec in gpus.items()
    }


def held_on(
    spec: ModelSpec,
    memory: ModelMemory,
    gpu: str,
    listed: GpuSpec,
    scenario: Scenario,
    engine: EngineChoice,
    reserve: int | None = None,
    over: Parallelism = ONE_GPU,
    stage: int = 0,
) -> Held:
    """Return the memory of a model on a GPU under a scenario and its engine.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    memory : ModelMemory
        The constants of the whole model without an engine, `memory.model_memory`.
    gpu : str
        Name of the GPU.
    listed : GpuSpec
        The GPU.
    scenario : Scenario
        Sizes, formats, the share of memory, workspace and runtime reserve.
    engine : EngineChoice
        The engine of the scenario.
    reserve : int, optional
        Measured runtime reserve in bytes; no engine takes it.
    over : Parallelism
        How the model is spread over GPUs of the kind. Models of the report's constants are on one.
    stage : int
        Pipeline stage of the GPU, from 0.

    Returns
    -------
    Held
        E is the number of experts of a layer on the GPU: all in parts, or with expert parallelism some of them whole.
    """
    plain, basis = with_reserve(scenario, reserve), reserve_basis(scenario, reserve)
    if engine.ideal and over == ONE_GPU:
        return Held(memory, plain, None, device_bytes(listed, plain), basis)
    asked = serving(spec, gpu, listed, scenario, engine.profile or PLAIN, named(spec.name, list(engine.names)))
    asked = replace(asked, over=over, stage=stage)
    if engine.ideal:
        budget = engine_budget(asked)
        return Held(plain_shard(asked, memory, budget, scenario), plain, budget, device_bytes(listed, plain), basis)
    constants, here, budget = under_engine(asked, memory, scenario)
    return Held(constants, here, budget, device_bytes(listed, here), "assumed")


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
        draft=scenario.draft_layers,
    )


def under_engine(asked: Serving, memory: ModelMemory, scenario: Scenario) -> tuple[ModelMemory, Scenario, EngineBudget]:
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
    memory : ModelMemory
        The constants with the engine's weights and cache layout.
    scenario : Scenario
        With the engine's share of memory; its runtime reserve holds the engine's libraries and reservation.
    budget : EngineBudget
        The lines behind both.
    """
    budget = engine_budget(asked)
    share, reserve = _share_and_reserve(asked, budget)
    changed = {
        "usable_memory_share": share,
        "workspace_mib": 0.0,
        "runtime_reserve": "assumed",
        "runtime_reserve_mib": reserve / MIB,
    }
    return _on_gpu(asked, memory, budget), scenario.model_copy(update=changed), budget


def plain_shard(asked: Serving, memory: ModelMemory, budget: EngineBudget, scenario: Scenario) -> ModelMemory:
    """Return the memory constants of a GPU without an engine, activations by the scenario's rule among them.

    `memory` holds the constants of the whole model, `budget` is that of the GPU under `ideal`. On one GPU they are
    those of `model_memory`.
    """
    here, by_component = sharded(asked), scenario.activation.rule == "per_component"
    per_sequence = memory.activation_bytes_per_sequence
    return replace(
        _on_gpu(asked, memory, budget),
        activation_bytes_per_token=params.activation_bytes_per_token(here) if by_component else 0,
        activation_bytes_per_sequence=per_sequence if asked.last else 0,
    )


def _on_gpu(asked: Serving, memory: ModelMemory, budget: EngineBudget) -> ModelMemory:
    """Return the constants of weights and caches on one GPU, without activations."""
    here = sharded(asked)
    kept = cache_of(asked, here)
    plain = [cache for cache in kept if cache.window is None and cache.tokens_per_entry == 1]
    routed = sum(line.bytes for line in budget.lines if line.what == "routed experts")
    # A token chooses at most every expert of the GPU. A dense model keeps the one expert of no bytes.
    experts = here.moe.experts if here.moe else memory.experts
    layers_experts = params.moe_layers(here) * experts
    one = routed // layers_experts if layers_experts else params.expert_bytes(here, asked.precision)
    return replace(
        memory,
        experts=experts,
        top_k=min(memory.top_k, experts),
        moe_layers=params.moe_layers(here),
        expert_bytes=int(one),
        non_expert_bytes=round(budget.group_bytes("weights") - one * layers_experts),
        kv_bytes_per_token=sum(cache.bytes(1) for cache in plain),
        state_bytes_per_sequence=params.state_bytes_per_sequence(here, asked.precision, asked.draft and asked.last),
        further_caches=tuple(cache for cache in kept if cache not in plain),
        activation_bytes_per_token=0,
        activation_bytes_per_sequence=0,
    )


def _share_and_reserve(asked: Serving, budget: EngineBudget) -> tuple[float, float]:
    """Return the share of the card for weights and cache, and the bytes of it that everything else takes.

    What lies outside the engine's share takes from it only what the rest of the card cannot hold.
    """
    total = asked.total_gib * GIB
    taken = inside(asked.engine)
    within = sum(line.bytes for line in budget.lines if line.group in taken and line.group != "weights")
    outside = sum(line.bytes for line in budget.lines if line.group not in taken)
    return budget.usable_bytes / total, within + max(0.0, outside - (total - budget.usable_bytes))
