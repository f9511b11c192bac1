"""Time to prefill a batch when most experts are in host memory: every chunk of the prompt streams them once.

The tokens of a chunk need nearly all experts of every MoE layer, whatever is resident, so a decode step's few resident
experts save nothing here. A time of this module is the least that any order of copies can take: all compute, or the
link always busy, whichever is longer.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prophet_moe import params
from prophet_moe.catalog import Architecture, ModelSpec
from prophet_moe.catalog.link import LinkSpec
from prophet_moe.hardware.profile import Profile
from prophet_moe.hardware.roofline import AttentionRead, decoder_layers, head_seconds
from prophet_moe.precision import Precision
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import GB

if TYPE_CHECKING:
    import pandas as pd

LIMITS = {
    "prophet": "prophet_max_context",
    "prophet_native": "prophet_native_context",
    "baseline": "baseline_max_context",
}
"""Contexts that are prefilled, by name: columns of the capacity grid."""


@dataclass(frozen=True)
class PrefillTime:
    """Seconds to prefill a batch, and what they are made of."""

    chunks: int
    compute_seconds: float
    """Seconds of compute, which is all that a prefill takes where every expert is resident."""
    streamed_bytes: int
    """Bytes of experts that each full chunk copies from host memory."""
    streaming_seconds: float

    @property
    def seconds(self) -> float:
        """Return the least time with experts streamed beside the compute."""
        return max(self.compute_seconds, self.streaming_seconds)


def prefill_time(
    arch: Architecture, profile: Profile, batch: int, context: int, resident: float, chunk: int, precision: Precision
) -> PrefillTime:
    """Return the time to prefill a batch of prompts in chunks.

    Parameters
    ----------
    arch : Architecture
        The model.
    profile : Profile
        The GPU, whose roofline gives the compute.
    batch, context : int
        Sequences, and tokens of each, packed into chunks.
    resident : float
        Experts of every MoE layer that are on the GPU.
    chunk : int
        Tokens of a full chunk.
    precision : Precision
        Bits of weights and cache.

    Returns
    -------
    PrefillTime
        Seconds of compute and of copies, and the bytes that a full chunk copies.

    Notes
    -----
    A chunk of t tokens needs min(E, k t) experts of a layer, and copies those that are not resident. Per chunk all
    weights are read once, and attention is causal. MLA attends over expanded keys and values, as its authors prefill.

    References
    ----------
    DeepSeek-V2 (arXiv 2405.04434), section 2.1.
    """
    tokens, moe = batch * context, params.moe_layers(arch)
    full, rest = divmod(tokens, chunk)
    expert, expert_bytes = params.expert_parameters(arch), params.expert_bytes(arch, precision)

    def weights_seconds(size: int) -> float:
        always = profile.roofline_seconds(stored, 2 * always_read * size)
        if not moe:
            return always
        needed = min(arch.moe.experts, arch.moe.top_k * size)
        routed = profile.weights_seconds(needed * expert, size * arch.moe.top_k / needed, expert_bytes / expert)
        return moe * routed + always

    def missing(size: int) -> float:
        return max(0.0, min(arch.moe.experts, arch.moe.top_k * size) - resident) if moe else 0.0

    layers = decoder_layers(arch, precision)
    always_read, stored = sum(layer.weights for layer in layers), sum(layer.weight_bytes for layer in layers)
    head = head_seconds(arch, profile, batch, precision)
    compute, copied = full * weights_seconds(chunk), full * missing(chunk)
    if rest:
        compute, copied = compute + weights_seconds(rest), copied + missing(rest)
    return PrefillTime(
        full + (rest > 0),
        compute + attention_seconds(arch, profile, batch, context, precision) + head,
        round(moe * missing(chunk) * expert_bytes),
        moe * copied * profile.transfer_seconds(expert_bytes),
    )


def chunk_seconds(arch: Architecture, profile: Profile, before: int, tokens: int, precision: Precision) -> float:
    """Return the seconds of everything but routed experts of all layers, for a chunk of one prompt after `before` of
    its tokens: weights read once, causal attention, and the output of one token.
    """
    layers = decoder_layers(arch, precision)
    always_read, stored = sum(layer.weights for layer in layers), sum(layer.weight_bytes for layer in layers)
    until = [attention_seconds(arch, profile, 1, context, precision) for context in (before, before + tokens)]
    weights = profile.roofline_seconds(stored, 2 * always_read * tokens)
    return weights + until[1] - until[0] + head_seconds(arch, profile, 1, precision)


def attention_seconds(arch: Architecture, profile: Profile, batch: int, context: int, precision: Precision) -> float:
    """Return the seconds of causal attention of all layers over `batch` prompts of `context` tokens each."""
    reads = [
        read for layer in decoder_layers(arch, replace(precision, mla_cache="decompressed")) for read in layer.reads
    ]
    return sum(times * _causal_seconds(read, profile, batch, context) for read, times in Counter(reads).items())


def _causal_seconds(read: AttentionRead, profile: Profile, batch: int, context: int) -> float:
    """Return the seconds of one layer's attention of every token over the entries before it, each entry read once."""
    within = context if read.most is None else min(context, read.most * read.tokens_per_entry)
    pairs = within * (within + 1) / 2 / read.tokens_per_entry + (context - within) * (read.most or 0)
    size = batch * -(-context // read.tokens_per_entry) * read.shape.cached_values * read.value_bytes
    return profile.roofline_seconds(size, batch * pairs * read.flops)


def prefill_times(
    models: Mapping[str, ModelSpec],
    profiles: Mapping[str, Profile],
    grid: "pd.DataFrame",
    scenario: Scenario,
    compute_share: float,
    link: LinkSpec,
) -> "pd.DataFrame":
    """Return the times to prefill the longest contexts of a capacity grid.

    Parameters
    ----------
    models : mapping from str to ModelSpec
        Models by name.
    profiles : mapping from str to Profile
        Measured or datasheet performance by GPU.
    grid : DataFrame
        The capacity grid at its estimate.
    scenario : Scenario
        Precision and tokens of a prefill chunk.
    compute_share : float
        The share of the GPU's peak that matrix products reach.
    link : LinkSpec
        The way that experts are copied where the GPU was not measured. Whole layers are streamed: what a single copy
        costs beside its bytes is left out.

    Returns
    -------
    DataFrame
        One row per model, GPU, batch size and context of LIMITS that holds a token: seconds, and GB of 10^9 bytes.

    Notes
    -----
    An encoder-decoder has no rows: all experts of its encoder are resident, and its decoder starts with one token.
    """
    import pandas as pd  # slow to import, and the time of one prefill needs none

    chunk, rows = scenario.activation.prefill_chunk_tokens, []
    bounds = {
        name: replace(profile, flops_per_second=compute_share * profile.flops_per_second)
        for name, profile in profiles.items()
    }
    estimates = {name: _with_link(profile, link) for name, profile in bounds.items()}
    for configuration in grid.to_dict("records"):
        model, gpu, batch = (configuration[name] for name in ("model", "gpu", "batch_size"))
        arch, resident = models[model].architecture, configuration["resident_experts"]
        for limit, column in LIMITS.items():
            context = int(configuration[column])
            if arch.encoder or context < 1:
                continue
            precision = scenario.precision_of(models[model].precision)
            time, bound = (
                prefill_time(arch, profile, batch, context, resident, chunk, precision)
                for profile in (estimates[gpu], bounds[gpu])
            )
            rows.append(
                {"model": model, "gpu": gpu, "batch_size": batch, "limit": limit, "context": context}
                | {"chunk_tokens": chunk, "chunks": time.chunks, "resident_experts": resident}
                | {"streamed_gb_per_chunk": time.streamed_bytes / GB, "streaming_s": time.streaming_seconds}
                | {"all_resident_s": time.compute_seconds, "prophet_s": time.seconds}
                | {"slowdown": time.seconds / time.compute_seconds}
                | {"slowdown_bound": bound.seconds / bound.compute_seconds, "source": profiles[gpu].source}
            )
    return pd.DataFrame(rows)


def _with_link(profile: Profile, link: LinkSpec) -> Profile:
    """Return a profile at the bandwidth that copies reach: of a datasheet's link its share, a measured one as it is."""
    if not profile.optimistic:
        return profile
    return replace(profile, link_bytes_per_second=link.share * profile.link_bytes_per_second)
