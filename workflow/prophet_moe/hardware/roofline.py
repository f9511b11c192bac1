"""One decode step of a model: compute time of every layer, time to fetch an expert, and what a step takes with both.

t_c of a layer is the sum over its operators, which run one after another, of max(bytes / HBM, FLOPs / peak), or of
their measured times: the weights that are always read (projections, router, shared and dense FFN, Mamba, norms),
attention over the KV cache, recurrent state read and written, and the distinct routed experts that the batch uses.
x is the time to fetch the experts that are missing. Launches, the host and activations are not counted.

An encoder-decoder decodes with its decoder alone; its context is source plus target tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prophet_moe import params
from prophet_moe.catalog import Architecture
from prophet_moe.errors import UserError
from prophet_moe.hardware.profile import AttentionShape, Basis, ExpertShape, Profile
from prophet_moe.precision import BF16, Precision

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DecoderLayer:
    """What one layer of the decoder reads, whatever the batch."""

    weights: int
    """Parameters but for the routed experts; the final norm counts with the first layer."""
    state_bytes: int
    """Bytes of recurrent state per sequence."""
    attends: bool
    moe: bool


@dataclass(frozen=True)
class LayerTimes:
    """Times of one decode step, before anything is known of what is missing."""

    compute_seconds: Floats
    """(decoder layers,): t_c, with all experts of the batch at hand."""
    head_seconds: float
    """The product with the output embedding."""
    moe: NDArray[np.bool_]
    """(decoder layers,): which hold an MoE block."""
    expert_bytes: int
    transfer_seconds_per_expert: float
    bases: Mapping[str, Basis]
    """What the times of `experts`, `attention`, `weights` and `transfers` rest on."""


def layer_times(
    arch: Architecture,
    profile: Profile,
    batch: int,
    context: int,
    unique_experts: float | Sequence[float],
    precision: Precision = BF16,
) -> LayerTimes:
    """Time the layers of a step that decodes one token in each sequence of a batch.

    Parameters
    ----------
    arch : Architecture
        The model; of an encoder-decoder the decoder decodes.
    profile : Profile
        The GPU, measured or by its datasheet.
    batch, context : int
        Sequences, and cached tokens of each.
    unique_experts : float or sequence of float
        u(B), one number or one per MoE layer of the decoder; each expert is handed batch * k / u(B) tokens, the
        average.
    precision : Precision
        Bits of weights, cache and state.

    Returns
    -------
    LayerTimes
        Seconds by layer with all experts at hand, and the seconds to fetch one expert.

    Raises
    ------
    UserError
        Where a number is impossible, such as more distinct experts than the batch can choose.

    Notes
    -----
    The head of this module has the model: each operator takes max(bytes / HBM bandwidth, FLOPs / peak), or its measured
    time.
    """
    layers = decoder_layers(arch, precision)
    moe = np.array([layer.moe for layer in layers])
    unique = np.zeros(len(layers))
    unique[moe] = unique_experts
    _check(arch, batch, context, unique[moe])

    weight_bytes, shape, attended = precision.weight_bytes, expert_shape(arch), attention_shape(arch, precision)
    attention = profile.attention_seconds(attended, batch, context, precision.kv_bytes)

    def seconds(layer: DecoderLayer, used: float) -> float:
        fixed = profile.weights_seconds(layer.weights, batch, weight_bytes)
        state = profile.roofline_seconds(2 * batch * layer.state_bytes, 0)
        experts = 0.0
        if used:
            experts = used * profile.expert_seconds(*shape, batch * arch.moe.top_k / used, weight_bytes)
        return fixed + state + layer.attends * attention + experts

    expert_bytes = params.expert_parameters(arch) * precision.weight_bits // 8
    return LayerTimes(
        np.array([seconds(layer, used) for layer, used in zip(layers, unique, strict=True)]),
        profile.weights_seconds(arch.vocab * arch.hidden, batch, weight_bytes),
        moe,
        expert_bytes,
        profile.transfer_seconds(expert_bytes),
        {
            "experts": profile.expert_basis(shape, weight_bytes),
            "attention": profile.attention_basis(attended, precision.kv_bytes),
            "weights": profile.roofline_basis,
            "transfers": profile.source,
        },
    )


def decoder_layers(arch: Architecture, precision: Precision = BF16) -> list[DecoderLayer]:
    """Describe every layer of the decoder by what the stack that ends with it has more than the one before.

    The projections of cross-attention keys and values are left out: they run once per source, not in a decode step.
    """
    stacks = [arch.model_copy(update={"layers": depth}) for depth in range(arch.layers + 1)]
    once = params.source_projections(arch)
    weights = np.diff([params.parameter_counts(stack).non_expert for stack in stacks])
    state = np.diff([params.state_bytes_per_sequence(stack, precision) for stack in stacks])
    attending, moe = (placed.layers(arch.layers) for placed in (arch.attention.placement, arch.moe.placement))
    return [
        DecoderLayer(int(weights[layer]) - once, int(state[layer]), layer in attending, layer in moe)
        for layer in range(arch.layers)
    ]


def expert_shape(arch: Architecture) -> ExpertShape:
    """Return the shape of one routed expert of `arch`."""
    return ExpertShape(arch.hidden, arch.moe.ffn, arch.moe.gated)


def attention_shape(arch: Architecture, precision: Precision = BF16) -> AttentionShape:
    """Return the shape of attention over the KV cache of `arch`.

    MLA attends in the latent (arXiv 2405.04434, section 2.1.2), or over the expanded keys and values of every head
    where the cache is decompressed.
    """
    attention = arch.attention
    if attention.kind == "MLA" and precision.mla_cache == "decompressed":
        return AttentionShape(attention.heads, attention.heads, attention.head_dim, 0, attention.v_head_dim)
    if attention.kind == "MLA":
        width = attention.kv_lora_rank + attention.rope_head_dim
        return AttentionShape(attention.heads, 1, width, attention.kv_lora_rank)
    return AttentionShape(attention.heads, attention.kv_heads, attention.head_dim, 0)


def fetch_seconds(times: LayerTimes, missing_experts: float | Sequence[float]) -> Floats:
    """(decoder layers,): x, the time to fetch `missing_experts`, one number or one per MoE layer; 0 elsewhere."""
    seconds = np.zeros(len(times.moe))
    seconds[times.moe] = np.asarray(missing_experts) * times.transfer_seconds_per_expert
    return seconds


def all_resident_seconds(times: LayerTimes) -> float:
    """Return the seconds of a step without fetches: the sum of t_c."""
    return float(times.compute_seconds.sum() + times.head_seconds)


def on_demand_seconds(times: LayerTimes, missing_experts: float | Sequence[float]) -> float:
    """Return the seconds of a step that fetches when the router asks, beside no compute: the sum of t_c + x."""
    return all_resident_seconds(times) + float(fetch_seconds(times, missing_experts).sum())


def perfect_prefetch_seconds(times: LayerTimes, missing_experts: float | Sequence[float]) -> float:
    """Return the seconds of a step whose layers each fetch beside one layer's compute: the sum of max(t_c, x).

    The least that a prefetch one layer ahead can take for these bytes, where layers are alike.
    """
    overlapped = np.maximum(times.compute_seconds, fetch_seconds(times, missing_experts))
    return float(overlapped.sum() + times.head_seconds)


def link_bound_seconds(times: LayerTimes, missing_experts: float | Sequence[float]) -> float:
    """Return the least seconds that any prefetch of these bytes takes: all compute, or the link always busy."""
    return max(all_resident_seconds(times), float(fetch_seconds(times, missing_experts).sum()))


def gain_bound(compute_seconds: Any, transfer_seconds: Any) -> Any:
    """Return (t_c + x) / max(t_c, x), the most that prefetch of equal bytes gains over on demand: 2 where equal.

    Numbers or arrays, t_c > 0.
    """
    return (compute_seconds + transfer_seconds) / np.maximum(compute_seconds, transfer_seconds)


def _check(arch: Architecture, batch: int, context: int, unique: Floats) -> None:
    for name, value in (("batch", batch), ("context", context)):
        if value < 1:
            raise UserError(f"decode step: {name}", f"got {value}, expected at least 1", "Correct it.")
    most = min(arch.moe.experts, arch.moe.top_k * batch)
    wrong = unique[~((unique > 0) & (unique <= most * (1 + 1e-9)))]
    if wrong.size:
        problem = f"got {wrong[0]:g}, expected above 0 and at most {most}, the experts that {batch} tokens can use"
        raise UserError("decode step: unique_experts", problem, "Correct it.")
