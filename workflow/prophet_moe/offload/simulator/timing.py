"""Times of a simulated device: a model's layers on a GPU, as a pace of `hardware.pace` has them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prophet_moe import params
from prophet_moe.catalog.architecture import Architecture, with_top_k
from prophet_moe.errors import UserError
from prophet_moe.hardware.pace import Pace
from prophet_moe.offload.simulator.batching import DecodeBatches
from prophet_moe.offload.simulator.prefetch import true_needs
from prophet_moe.offload.simulator.simulation import Times
from prophet_moe.precision import Precision
from prophet_moe.routing.trace import Router
from prophet_moe.units import MB


def times_of(
    arch: Architecture,
    pace: Pace,
    layers: int,
    batch: int,
    context: int,
    precision: Precision,
    chunk_mb: float,
) -> Times:
    """Return times of `layers` MoE layers of a model, each with its share of everything that is no routed expert.

    A trace can have more or fewer layers than the model whose times it is given: a layer takes as long. Experts come
    from host memory; `chunk_mb` of a copy are not interrupted.
    """
    step = pace.step_seconds(arch, batch, min(context, arch.native_context), 1, precision)
    other = step / len(arch.moe_layers) - pace.expert_seconds(arch, batch * arch.moe.top_k, precision)
    work = [0.0, *(pace.expert_seconds(arch, tokens, precision) for tokens in range(1, batch + 1))]
    size = params.expert_bytes(arch, precision)
    copy = pace.copy_seconds(size)
    return Times(np.full(layers, other), np.array(work), (copy,), copy * chunk_mb * MB / size)


def requests_of(replayed: Sequence[DecodeBatches]) -> float:
    """Return the distinct experts that a layer of batches needs at a step, mean."""
    accessed = sum(len(true_needs(batches).ids) for batches in replayed)
    return accessed / sum(len(batches.rows) * batches.layers for batches in replayed)


def proxy_times(
    arch: Architecture,
    pace: Pace,
    layers: int,
    batch: int,
    context: int,
    unique_experts: float,
    requests: float,
    precision: Precision,
    chunk_mb: float,
) -> Times:
    """Return times of a model on the routing of a proxy trace that has another number of experts.

    Where the model's layer needs `unique_experts` u(B) and the trace's `requests`, each expert of the trace stands for
    unique_experts / requests of the model: compute and bytes of a step are the model's, hit rates the trace's.
    """
    own = times_of(arch, pace, layers, batch, context, precision, chunk_mb)
    share = unique_experts / requests
    tokens = batch * arch.moe.top_k / unique_experts
    expert = share * pace.expert_seconds(arch, tokens, precision)
    return Times(
        own.non_expert_seconds,
        np.array([0.0, *[expert] * batch]),
        (share * own.transfer_seconds[0],),
        own.chunk_seconds,
    )


def timing_model(
    architecture: Mapping[str, Any],
    pace: Pace,
    router: Router,
    context: int,
    precision: Precision,
    chunk_mb: float,
) -> Callable[[int], Times]:
    """Return a function from batch size to times on a GPU; a model of other experts than the trace is a UserError.

    The run that was traced may have used fewer experts of a token than the model: then the model is timed with as many.
    """
    arch, timed = Architecture.model_validate(architecture), "the model that a trace is timed with"
    if not arch.moe_layers:
        problem = f"has no layer with experts, expected {router.experts} experts, as the trace of {router.model} has"
        raise UserError(timed, problem, "See replay.timed_as.")
    expected = {"experts": f"{router.experts}", "top_k": f"at least {router.top_k}"}
    fits = {"experts": arch.moe.experts == router.experts, "top_k": arch.moe.top_k >= router.top_k}
    for name in fits:
        if not fits[name]:
            problem = (
                f"{name} is {getattr(arch.moe, name)}, expected {expected[name]}, as the trace of {router.model} has"
            )
            raise UserError(timed, problem, "See replay.timed_as.")
    arch = with_top_k(arch, router.top_k)
    return lambda batch: times_of(arch, pace, len(router.layers), batch, context, precision, chunk_mb)
