"""Times of a simulated device: a model's layers on a GPU, as `hardware.roofline` has them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prophet_moe import params
from prophet_moe.cachesim.simulation import Times
from prophet_moe.catalog import Architecture
from prophet_moe.errors import UserError
from prophet_moe.hardware.profile import Profile
from prophet_moe.hardware.roofline import all_resident_seconds, expert_shape, layer_times
from prophet_moe.routing.trace import Router
from prophet_moe.settings import Scenario, Simulation
from prophet_moe.units import MB


def times_of(
    arch: Architecture,
    profile: Profile,
    layers: int,
    batch: int,
    context: int,
    *,
    weight_bits: int = 16,
    kv_bits: int = 16,
    chunk_mb: float = np.inf,
) -> Times:
    """Times of `layers` MoE layers of a model, each with its share of everything that is no routed expert.

    A trace can have more or fewer layers than the model whose times it is given: a layer takes as long. Experts come
    from host memory; `chunk_mb` of a copy are not interrupted.
    """
    step = layer_times(
        arch, profile, batch, min(context, arch.native_context), 1, weight_bits=weight_bits, kv_bits=kv_bits
    )
    shape, weight_bytes = expert_shape(arch), weight_bits / 8
    moe_layers = int(step.moe.sum())
    together = profile.expert_seconds(*shape, batch * arch.moe.top_k, weight_bytes)
    other = all_resident_seconds(step) / moe_layers - together
    work = [0.0, *(profile.expert_seconds(*shape, tokens, weight_bytes) for tokens in range(1, batch + 1))]
    chunk = step.transfer_seconds_per_expert * chunk_mb * MB / expert_bytes(arch, weight_bits)
    return Times(np.full(layers, other), np.array(work), (step.transfer_seconds_per_expert,), chunk)


def timed_as(
    architecture: Mapping[str, Any],
    profile: Profile,
    router: Router,
    context: int,
    scenario: Scenario,
    plan: Simulation,
) -> Callable[[int], Times]:
    """By batch size the times of a trace's layers on a GPU; a model of other experts than the trace is a UserError."""
    arch = Architecture.model_validate(architecture)
    for name in ("experts", "top_k"):
        expected, got = getattr(router, name), getattr(arch.moe, name)
        if got != expected:
            problem = f"{name} is {got}, expected {expected}, as the trace of {router.model} has"
            raise UserError("the model that a trace is timed with", problem, "See simulation.timed_as.")
    bits = {"weight_bits": scenario.weight_bits, "kv_bits": scenario.kv_bits}
    return lambda batch: times_of(
        arch, profile, len(router.layers), batch, context, **bits, chunk_mb=plan.copy_chunk_mb
    )


def expert_bytes(arch: Architecture, weight_bits: int = 16) -> int:
    """Bytes of a routed expert."""
    return params.expert_parameters(arch) * weight_bits // 8
