"""A situation from a model of the catalogue, a GPU, a scenario and an engine; and what else would hold every expert."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from prophet_moe import params
from prophet_moe.capacity.engine import Serving, cache_of, engine_budget, sharded
from prophet_moe.capacity.memory import ModelMemory
from prophet_moe.capacity.prefill import prefill_time
from prophet_moe.capacity.reference import evaluate
from prophet_moe.catalog import Architecture, ModelSpec
from prophet_moe.catalog.link import LinkSpec
from prophet_moe.errors import UserError
from prophet_moe.hardware.estimate import Estimator, estimate_step
from prophet_moe.hardware.profile import Profile
from prophet_moe.params.sharding import Parallelism
from prophet_moe.planning.curve import HitCurve
from prophet_moe.planning.situation import MissCost, Range, Situation
from prophet_moe.planning.solve import most_slots
from prophet_moe.precision import Precision
from prophet_moe.settings.scenario import Scenario

QUANTISED = ("fp8_channel", "mxfp8", "mxfp4")
"""Formats of weights that are tried in place of the given one, wide ones first."""
GPU_COUNTS = (2, 4, 8, 16)
"""Numbers of GPUs that are tried, with tensor parallelism."""


@dataclass(frozen=True)
class Machine:
    """What a GPU and its host do; None where its bandwidths are not known."""

    estimator: Estimator
    profile: Profile
    link: LinkSpec
    compute_share: float
    """Share of the GPU's peak that the matrix products of a prompt reach."""


def situation_of(
    memory: ModelMemory,
    arch: Architecture,
    precision: Precision,
    scenario: Scenario,
    device_bytes: int,
    batch: int,
    unique: float,
    curve: HitCurve,
    cost: MissCost | None = None,
    machine: Machine | None = None,
    host_bytes: float | None = None,
) -> Situation:
    """Return the situation of a model on a GPU.

    Parameters
    ----------
    memory : ModelMemory
        The model's constants, with the engine's weights and cache where there is one.
    arch, precision : Architecture, Precision
        What times are estimated of.
    scenario : Scenario
        Reserve and activations, of this GPU and engine.
    device_bytes, batch, unique : int, int, float
        Bytes that the engine may use, sequences, and the distinct experts u(B) of a step and layer.
    curve : HitCurve
        Hit rates by slots.
    cost, machine : MissCost, Machine, optional
        None where the bandwidths of the GPU are not known: then there are no times.
    host_bytes : float, optional
        Host memory that can be pinned.

    Returns
    -------
    Situation
        The numbers that `solve` takes; neither a predictor nor a staging buffer is kept.
    """
    left = evaluate(memory, device_bytes, batch, scenario, resident=0, staging_kept=False, predictor_kept=False)
    return Situation(
        experts=int(memory.experts),
        top_k=int(memory.top_k),
        layers=int(memory.moe_layers - memory.encoder_moe_layers),
        expert_bytes=memory.expert_bytes,
        batch=batch,
        unique=unique,
        room_bytes=left["prophet_free_bytes"],
        cached_bytes=lru_cache(maxsize=None)(memory.cached_bytes),
        native_context=int(memory.native_context),
        curve=curve,
        cost=cost,
        resident=_resident(machine, arch, batch, unique, precision) if machine else None,
        prefill=_prefill(machine, arch, batch, precision, scenario) if machine and not arch.encoder else None,
        host_bytes=host_bytes,
    )


def _resident(
    machine: Machine, arch: Architecture, batch: int, unique: float, precision: Precision
) -> Callable[[int], Range]:
    @cache
    def seconds(context: int) -> Range:
        found = estimate_step(machine.estimator, arch, batch, context, unique, precision)
        return Range(found.low, found.seconds, found.high)

    return seconds


def _prefill(
    machine: Machine, arch: Architecture, batch: int, precision: Precision, scenario: Scenario
) -> Callable[[int, float], float]:
    slowed = replace(
        machine.profile,
        flops_per_second=machine.compute_share * machine.profile.flops_per_second,
        link_bytes_per_second=machine.link.share * machine.profile.link_bytes_per_second,
    )
    chunk = scenario.activation.prefill_chunk_tokens

    def seconds(context: int, resident: float) -> float:
        return prefill_time(arch, slowed, batch, context, resident, chunk, precision).seconds

    return seconds


def smaller_format(given: Precision, fits: Callable[[str], bool]) -> str | None:
    """Return the widest of the tried formats that has fewer bits for experts than the given one and fits."""
    from prophet_moe.precision import FORMATS

    bits = given.format_of("routed_experts").bits
    return next((name for name in QUANTISED if FORMATS[name].bits < bits and fits(name)), None)


def holds_all(s: Situation, context: int) -> bool:
    """Return whether every expert has a slot beside a context."""
    return most_slots(s, context) >= s.all_slots


def fewest_gpus(asked: Serving, batch: int, context: int) -> int | None:
    """Return the fewest GPUs whose tensor parallelism holds all experts and a context of every sequence.

    Numbers that do not divide the heads are passed over, as engines refuse them.
    """
    for count in GPU_COUNTS:
        spread = replace(asked, over=Parallelism(tensor=count), context=context)
        try:
            here = sharded(spread)
            budget = engine_budget(spread)
        except UserError:
            continue
        states = params.state_bytes_per_sequence(here, asked.precision)
        needed = batch * (states + sum(cache.bytes(context) for cache in cache_of(spread, here)))
        if budget.pool_bytes >= needed:
            return count
    return None


def name_for_engines(spec: ModelSpec) -> str:
    """Return what engines call the model: its repository where it is known, else its name here."""
    return spec.hugging_face or spec.name
