"""One decode step of a model: compute time of every layer, time to fetch an expert, and what a step takes with both.

t_c of a layer is the sum over its operators, which run one after another, of max(bytes / HBM, FLOPs / peak), or of
their measured times: the weights that are always read (projections, router, shared and dense FFN, Mamba, norms),
attention over the KV cache (of a window its tokens, of sparse attention those that are chosen), recurrent state read
and written, and the distinct routed experts that the batch uses.
x is the time to fetch the experts that are missing. Launches, the host and activations are not counted.

An encoder-decoder decodes with its decoder alone; its context is source plus target tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prophet_moe import params
from prophet_moe.catalog.architecture import Architecture, Block, Compressed, Latent, Mixer, Softmax, letters
from prophet_moe.errors import UserError
from prophet_moe.hardware.profile import AttentionShape, Basis, ExpertShape, Profile
from prophet_moe.params.cache import Cache, mixer_cache, mixer_state
from prophet_moe.params.weights import Weights, block_weights, key_value_weights, stack_weights
from prophet_moe.precision import BF16, Precision

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AttentionRead:
    """What attention of one layer reads of the cache of a sequence, for one new token."""

    shape: AttentionShape
    value_bytes: float
    """Bytes per value of the cache, scales included."""
    tokens_per_entry: int = 1
    """Tokens that one entry stands for."""
    most: int | None = None
    """Entries that are read at most: those of a window, or those that an index branch picks."""
    scores_only: bool = False
    """Whether entries are only scored, as an index branch does, and not summed."""

    def entries(self, context: int) -> int:
        """Return the entries that are read in a cache of `context` tokens."""
        held = -(-context // self.tokens_per_entry)
        return held if self.most is None else min(held, self.most)

    @property
    def flops(self) -> int:
        """Return the operations per entry and new token."""
        return 2 * self.shape.heads * self.shape.head_dim if self.scores_only else self.shape.flops

    def seconds(self, profile: Profile, batch: int, context: int) -> float:
        """Return the seconds for a batch of sequences of `context` tokens."""
        entries = self.entries(context)
        if self.scores_only:
            read = batch * entries
            return profile.roofline_seconds(read * self.shape.cached_values * self.value_bytes, read * self.flops)
        return profile.attention_seconds(self.shape, batch, entries, self.value_bytes)


@dataclass(frozen=True)
class DecoderLayer:
    """What one layer of the decoder reads, whatever the batch."""

    weights: int
    """Parameters but for the routed experts; the final norm counts with the first layer."""
    weight_bytes: int
    """Their bytes."""
    state_bytes: int
    """Bytes of recurrent state per sequence."""
    reads: tuple[AttentionRead, ...]
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

    shape, weight_bytes = (expert_shape(arch), expert_weight_bytes(arch, precision)) if arch.moe else (None, 0.0)
    reads = {read for layer in layers for read in layer.reads}
    attention = {read: read.seconds(profile, batch, context) for read in reads}

    def seconds(layer: DecoderLayer, used: float) -> float:
        fixed = profile.roofline_seconds(layer.weight_bytes, 2 * layer.weights * batch)
        state = profile.roofline_seconds(2 * batch * layer.state_bytes, 0)
        experts = 0.0
        if used:
            experts = used * profile.expert_seconds(*shape, batch * arch.moe.top_k / used, weight_bytes)
        return fixed + state + sum(attention[read] for read in layer.reads) + experts

    expert_bytes = params.expert_bytes(arch, precision)
    return LayerTimes(
        np.array([seconds(layer, used) for layer, used in zip(layers, unique, strict=True)]),
        head_seconds(arch, profile, batch, precision),
        moe,
        expert_bytes,
        profile.transfer_seconds(expert_bytes),
        {
            "experts": profile.expert_basis(shape, weight_bytes) if shape else profile.roofline_basis,
            "attention": _attention_basis(profile, reads),
            "weights": profile.roofline_basis,
            "transfers": profile.source,
        },
    )


def decoder_layers(arch: Architecture, precision: Precision = BF16) -> list[DecoderLayer]:
    """Describe every layer of the decoder by what the stack that ends with it has more than the one before.

    The projections of cross-attention keys and values are left out: they run once per source, not in a decode step.
    """
    by_letter = {letter: _layer(arch, block, precision) for letter, block in arch.blocks.items()}
    first, *others = [by_letter[letter] for letter in letters(arch.pattern)]
    once = list(stack_weights(arch, arch.pattern))
    weights = first.weights + sum(each.parameters for each in once)
    return [
        replace(first, weights=weights, weight_bytes=first.weight_bytes + params.stored_bytes(once, precision)),
        *others,
    ]


def _layer(arch: Architecture, block: Block, precision: Precision) -> DecoderLayer:
    parts = [each for each in block_weights(arch, block) if each.component != "routed_experts"]
    mixer = arch.mixers[block.mixer] if block.mixer else None
    if arch.encoder and mixer:
        for each in key_value_weights(mixer, arch.hidden):
            parts.remove(each)
    state = mixer_state(mixer, arch.hidden, precision) if mixer else None
    return DecoderLayer(
        sum(each.parameters for each in parts),
        params.stored_bytes(parts, precision),
        state.bytes if state else 0,
        attention_reads(mixer, precision) if mixer else (),
        block.ffn is not None and arch.ffns[block.ffn].kind == "moe",
    )


def expert_shape(arch: Architecture) -> ExpertShape:
    """Return the shape of one routed expert of `arch`."""
    return ExpertShape(arch.moe.latent or arch.hidden, arch.moe.ffn, arch.moe.gated)


def expert_weight_bytes(arch: Architecture, precision: Precision) -> float:
    """Return the bytes per weight of routed experts, scales included."""
    return params.expert_bytes(arch, precision) / params.expert_parameters(arch)


def head_seconds(arch: Architecture, profile: Profile, tokens: int, precision: Precision) -> float:
    """Return the seconds of the product of `tokens` tokens with the output embedding."""
    head = Weights("embeddings", arch.vocab, arch.hidden)
    return profile.roofline_seconds(params.stored_bytes([head], precision), 2 * head.parameters * tokens)


def attention_reads(mixer: Mixer, precision: Precision = BF16) -> tuple[AttentionRead, ...]:
    """Return what a new token reads of the cache of one layer; nothing where the mixer keeps a state alone.

    MLA attends in the latent (arXiv 2405.04434, section 2.1.2), or over the expanded keys and values of every head
    where the cache is decompressed. A layer without keys of its own reads those of an earlier one, which are as large.
    """
    held = mixer.model_copy(update={"own_kv": True}) if isinstance(mixer, Softmax) else mixer
    kept, indexer = list(mixer_cache(held, precision)), getattr(mixer, "indexer", None)
    match mixer:
        case Softmax(heads=heads, kv_heads=kv_heads, head_dim=width):
            values = 0 if mixer.value_dim == width else mixer.value_dim
            limits, shape = [mixer.window], AttentionShape(heads, kv_heads, width, 0, values)
        case Latent(heads=heads, kv_lora_rank=latent):
            limits = [indexer.top_k if indexer else mixer.sparse_top_k]
            if precision.mla_cache == "decompressed":
                shape = AttentionShape(heads, heads, mixer.head_dim, 0, mixer.v_head_dim)
            else:
                shape = AttentionShape(heads, 1, latent + mixer.rope_head_dim, latent)
        case Compressed(heads=heads, head_dim=width):
            limits, shape = [mixer.window], AttentionShape(heads, 1, width, width)
            if mixer.compress:
                limits.append(indexer.top_k if indexer else None)
        case _:
            return ()
    reads = [_read(cache, shape, most) for cache, most in zip(kept, limits, strict=False)]
    if indexer:
        width = indexer.head_dim
        scored = _read(kept[-1], AttentionShape(indexer.heads, 1, width, width))
        reads.append(replace(scored, scores_only=True))
    return tuple(reads)


def _read(cache: Cache, shape: AttentionShape, most: int | None = None) -> AttentionRead:
    """Return the read of a cache by attention of a shape, in the bytes that memory counts."""
    return AttentionRead(shape, cache.bytes_per_entry / shape.cached_values, cache.tokens_per_entry, most)


def _attention_basis(profile: Profile, reads: Iterable[AttentionRead]) -> Basis:
    """Return what times of attention rest on: measurements only where all of its reads were measured."""
    bases = {
        profile.roofline_basis if read.scores_only else profile.attention_basis(read.shape, read.value_bytes)
        for read in reads
    }
    return bases.pop() if len(bases) == 1 else profile.roofline_basis


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
    most = min(arch.moe.experts, arch.moe.top_k * batch) if arch.moe else 0
    wrong = unique[~((unique > 0) & (unique <= most * (1 + 1e-9)))]
    if wrong.size:
        problem = f"got {wrong[0]:g}, expected above 0 and at most {most}, the experts that {batch} tokens can use"
        raise UserError("decode step: unique_experts", problem, "Correct it.")
