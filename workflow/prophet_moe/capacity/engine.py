"""What a serving engine holds on one GPU, line by line, and the KV cache that is left: formulas and their sources.

The terms are those of a profile (`catalog.engine`); the part of a model on one GPU is counted by `params.sharding`.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from prophet_moe import params
from prophet_moe.capacity.budget import COMPONENTS
from prophet_moe.catalog.architecture import Architecture, Latent, Softmax
from prophet_moe.catalog.engine import EngineSpec
from prophet_moe.params.cache import Cache, caches, state_bytes_per_sequence
from prophet_moe.params.sharding import ONE_GPU, Parallelism, check_parallelism, shard, stage_weights
from prophet_moe.params.weights import Weights, expert_weights
from prophet_moe.precision import FORMATS, KV_FORMATS, Precision
from prophet_moe.settings.fields import LARGEST_CONTEXT
from prophet_moe.units import GIB, MIB

ALLOCATED, KEPT_WHOLE, LARGE = 2 * MIB, MIB, 10 * MIB
"""Blocks of PyTorch's allocator: what large tensors are rounded to, the rest that is not split off, what is large."""


@dataclass(frozen=True)
class Serving:
    """A model as an engine serves it on GPUs of one kind. What is None has the engine's default."""

    engine: EngineSpec
    arch: Architecture
    precision: Precision
    total_gib: float | None = None
    """Memory of a GPU as CUDA reports it; None: unknown, so that no pool can be computed."""
    gpu: str = ""
    """Name of the GPU."""
    over: Parallelism = ONE_GPU
    stage: int = 0
    """Pipeline stage of the GPU, from 0."""
    memory_share: float | None = None
    sequences: int | None = None
    """Most sequences of a step (max_num_seqs)."""
    tokens: int | None = None
    """Most tokens of a step (max_num_batched_tokens)."""
    context: int | None = None
    """Longest sequence that is served (max_model_len)."""
    eager: bool = False
    """Whether CUDA graphs are switched off."""
    kernels: str | None = None
    """Kernels of routed experts, which decide their padding."""
    rotary_positions: int | None = None
    """Positions of the rotary table; None: the model's native context."""
    rotary_width: int | None = None
    """Rotary width; None: the rotary part of a latent head, or a whole head."""
    rotary_bytes: int = 2
    """Bytes of a sine or a cosine of the rotary table."""
    resident_experts: int | None = None
    """Experts of a layer on the GPU; None: all."""
    draft: bool = False
    """Whether the draft layers (multi-token prediction) are resident, on the last stage."""

    @property
    def large_card(self) -> bool:
        """Return whether the GPU counts as large for the engine's defaults."""
        limits = self.engine.scheduler
        excepted = any(word in self.gpu for word in limits.never_large)
        return (self.total_gib or 0) >= limits.large_card_gib and not excepted

    @property
    def fast_link(self) -> bool:
        """Return whether GPUs of this kind have a link among them beside PCIe, as far as their name and size tell."""
        named = any(word in self.gpu for word in self.engine.runtime.fast_link_cards)
        return "PCI" not in self.gpu.upper() and (named or self.large_card)

    @property
    def most_sequences(self) -> int:
        """Return the most sequences of a step."""
        limits = self.engine.scheduler
        return self.sequences or (limits.sequences_large_card if self.large_card else limits.sequences)

    @property
    def most_tokens(self) -> int:
        """Return the most tokens of a step."""
        limits = self.engine.scheduler
        least = limits.tokens_large_card if self.large_card else limits.tokens
        whole = self.context or self.arch.native_context
        follows = limits.tokens_follow_context is not None and whole <= limits.tokens_follow_context
        follows = follows or (limits.whole_latent_prompts and self.latent)
        return self.tokens or (max(whole, least) if follows else least)

    @property
    def latent(self) -> bool:
        """Return whether the model has latent attention."""
        return any(isinstance(mixer, Latent) for mixer in self.arch.mixers.values())

    @property
    def last(self) -> bool:
        """Return whether the GPU is of the last pipeline stage, which has the head."""
        return self.stage == self.over.pipeline - 1

    @property
    def share(self) -> float:
        """Return the share of the memory that the engine may use."""
        return self.memory_share or self.engine.scheduler.memory_share


@dataclass(frozen=True)
class EngineLine:
    """One line of an engine's budget on one GPU."""

    what: str
    group: str
    """weights, activations, non_torch, graphs or context."""
    bytes: float
    formula: str
    """How the bytes come about, in words and numbers."""
    term: str = ""
    """Path of the term of the profile behind it; empty where the architecture alone gives it."""


@dataclass(frozen=True)
class EngineBudget:
    """The lines of one GPU and what follows from them. Numbers that need the GPU's memory are None without it."""

    lines: tuple[EngineLine, ...]
    kv_bytes_per_token: float
    """Bytes by which the cache grows per token on this GPU."""
    usable_bytes: float | None
    """Share of the memory that the pool and the lines inside it take."""
    pool_bytes: float | None
    """KV pool; negative where the weights and reserves leave none."""
    pool_tokens: int | None
    """Tokens of a single long sequence that the pool holds."""
    max_context: int | None
    """The same, at most the longest sequence that is served or the native context."""
    fits: bool | None
    why: str
    """Why it does not fit, or what is left."""

    def group_bytes(self, group: str) -> float:
        """Return the bytes of all lines of a group."""
        return sum(line.bytes for line in self.lines if line.group == group)


def engine_budget(asked: Serving) -> EngineBudget:
    """Return what an engine holds on one GPU, and its KV pool.

    Parameters
    ----------
    asked : Serving
        Engine, model, formats, parallelism, GPU and the limits of the scheduler.

    Returns
    -------
    EngineBudget
        Lines in bytes with formula and term, then KV bytes per token, pool, tokens, context and whether it fits.
    """
    here = sharded(asked)
    lines = tuple(line for line in _lines(asked, here) if line.bytes)
    kept = cache_of(asked, here)
    per_token = float(params.growing_bytes_per_token(kept))
    if asked.total_gib is None:
        return EngineBudget(lines, per_token, None, None, None, None, None, "the memory of the GPU is unknown")
    usable, pool = _pool(asked, lines)
    states = state_bytes_per_sequence(here, asked.precision, asked.draft and asked.last)
    tokens = _tokens(pool - states, kept, asked.engine.cache.block_tokens)
    longest = asked.context or asked.arch.native_context
    fits, why = _fits(asked, lines, usable, pool, tokens)
    return EngineBudget(lines, per_token, usable, pool, tokens, min(tokens, longest), fits, why)


def sharded(asked: Serving) -> Architecture:
    """Return the part of the model on the GPU as an architecture."""
    check_parallelism(asked.arch, asked.over)
    over = engine_stages(asked.over, asked.arch, asked.engine)
    return shard(asked.arch, over, asked.stage, asked.engine.weights.vocab_multiple)


def engine_stages(over: Parallelism, arch: Architecture, engine: EngineSpec) -> Parallelism:
    """Return a way of spreading with the layers that an engine gives to every pipeline stage."""
    if over.layers or engine.weights.rest_of_layers == "before_last":
        return over
    depth = len(arch.layers())
    each = depth // over.pipeline
    return replace(over, layers=(each,) * (over.pipeline - 1) + (depth - each * (over.pipeline - 1),))


def _lines(asked: Serving, here: Architecture) -> Iterator[EngineLine]:
    yield from _weight_lines(asked, here)
    yield _activation_line(asked, here)
    yield from _runtime_lines(asked, here)


def _weight_lines(asked: Serving, here: Architecture) -> Iterator[EngineLine]:
    terms, precision, over = asked.engine.weights, asked.precision, asked.over
    first, last = asked.stage == 0, asked.last
    held = stage_weights(here, first, last or (terms.head_on_every_stage and asked.latent))
    sizes: Counter[str] = Counter()
    for each in held:
        if each.component != "routed_experts":
            sizes[each.component] += params.stored_bytes([each], precision)
    if here.moe:
        yield _routed_line(asked, here)
    for component, what in COMPONENTS.items():
        yield EngineLine(what, "weights", sizes[component], f"counted, {over.named}")
    if asked.draft and last:
        yield EngineLine("draft layers", "weights", params.draft_bytes(here, precision), f"counted, {over.named}")
    if terms.rotary_table:
        yield _rotary_line(asked)
    if terms.absorbed_mla != "none":
        yield EngineLine(
            "absorbed matrices of latent attention",
            "weights",
            params.stored_bytes(_absorbed(here, precision, terms.absorbed_mla), precision),
            ABSORBED[terms.absorbed_mla],
            "weights.absorbed_mla",
        )
    if terms.shared_expert_copies == "one_per_gpu" and sizes["shared_experts"]:
        copies = over.attention - 1
        yield EngineLine(
            "copies of shared experts",
            "weights",
            copies * sizes["shared_experts"],
            f"the shared experts whole: {copies} shards more",
            "weights.shared_expert_copies",
        )


def _routed_line(asked: Serving, here: Architecture) -> EngineLine:
    moe, hidden = here.moe, here.hidden
    layers, term, padded = params.moe_layers(here), "", ""
    resident = moe.experts if asked.resident_experts is None else min(moe.experts, asked.resident_experts)
    padding = asked.engine.weights.padding.get(asked.kernels or asked.engine.weights.kernels or "")
    if padding and asked.precision.format_of("routed_experts") == FORMATS["mxfp4"]:
        hidden = _multiple(moe.latent or hidden, padding.hidden)
        moe = moe.model_copy(update={"ffn": _multiple(moe.ffn, padding.ffn), "latent": None})
        term, padded = "weights.padding", f", padded to {hidden} x {moe.ffn}"
    parts = list(expert_weights(moe, hidden))
    one = params.stored_bytes(parts, asked.precision)
    formula = f"{layers} layers x {resident} experts x {one:,} B{padded}"
    if not asked.engine.weights.allocator_rounds:
        return EngineLine("routed experts", "weights", layers * resident * one, formula, term)
    layer = sum(_allocated(tensor) for part in parts for tensor in _tensors(part, resident, asked.precision))
    if more := layer - resident * one:
        formula += f", rounded up by {layers} x {more:,} B"
    return EngineLine("routed experts", "weights", layers * layer, formula, term or "weights.allocator_rounds")


def _tensors(part: Weights, experts: int, precision: Precision) -> Iterator[int]:
    """Yield the bytes of the tensors that hold a matrix of all experts of a layer: its numbers, and its scales."""
    stored = experts * params.stored_bytes([part], precision)
    bits = 16 if part.plain else precision.format_of("routed_experts").bits
    numbers = min(stored, experts * part.parameters * bits // 8)
    yield numbers
    yield stored - numbers


def _allocated(size: int) -> int:
    """Return the bytes that PyTorch counts for a tensor: a block of 2 MiB stays whole where at most 1 MiB is over."""
    whole = _multiple(size, ALLOCATED)
    return whole if size >= LARGE and whole - size <= KEPT_WHOLE else size


def _multiple(size: int, of: int) -> int:
    return -(-size // of) * of


def _rotary_line(asked: Serving) -> EngineLine:
    positions = asked.rotary_positions or asked.arch.native_context
    width = asked.rotary_width or max((_rotary_width(mixer) for mixer in asked.arch.mixers.values()), default=0)
    size = positions * width * asked.rotary_bytes
    formula = f"{positions:,} positions x {width} x {asked.rotary_bytes} B"
    return EngineLine("table of rotary positions", "weights", size, formula, "weights.rotary_table")


def _rotary_width(mixer) -> int:
    if isinstance(mixer, Latent):
        return mixer.rope_head_dim
    return mixer.head_dim if isinstance(mixer, Softmax) else 0


def _absorbed(here: Architecture, precision: Precision, kind: str) -> Iterator[Weights]:
    """Yield the further matrices of every latent layer, as process_weights_after_loading of vLLM makes them."""
    bits = precision.format_of("attention").bits
    for mixer in (here.mixers.get(block.mixer) for block in here.layers()):
        if not isinstance(mixer, Latent):
            continue
        heads, latent, queries = mixer.heads, mixer.kv_lora_rank, mixer.q_lora_rank or here.hidden
        if kind == "products":
            # 8 bits are quantised again in the same blocks; any other format becomes that of the activations.
            yield Weights("attention", heads * latent, queries, plain=bits != 8)
            yield Weights("attention", here.hidden, heads * latent, plain=bits != 8)
            yield Weights("attention", heads * mixer.rope_head_dim, queries, plain=True)
        if bits < 16:
            yield Weights("attention", heads * (mixer.nope_head_dim + mixer.v_head_dim), latent, plain=True)


def _activation_line(asked: Serving, here: Architecture) -> EngineLine:
    terms = asked.engine.reservation
    in_flight = asked.most_tokens if terms.forward else asked.most_sequences
    chunk = min(in_flight, terms.moe_chunk_tokens or in_flight)
    per_token = params.activation_bytes_per_token(here)
    forward = chunk * per_token
    counted = asked.most_sequences if terms.logits_of == "sequences" else asked.most_tokens
    vocab = asked.arch.vocab
    sampling = vocab * counted * terms.logits_bytes if asked.last else 0
    if sampling > forward:
        formula = f"{vocab:,} entries x {counted:,} {terms.logits_of} x {terms.logits_bytes:g} B"
        return EngineLine("sampling", "activations", sampling, formula, "reservation.logits_bytes")
    formula = f"{chunk:,} tokens x {per_token:,} B"
    return EngineLine("forward pass", "activations", forward, formula, "reservation.forward")


def _runtime_lines(asked: Serving, here: Architecture) -> Iterator[EngineLine]:
    terms, linked = asked.engine.runtime, asked.over.experts_over > 1 and asked.fast_link
    name = "non_torch_fast_link_gib" if linked else "non_torch_gib"
    size = getattr(terms, name)
    yield EngineLine("libraries and communication", "non_torch", size * GIB, FITTED, f"runtime.{name}")
    layers, each = len(here.layers()), 0 if asked.eager else terms.graphs_gib_per_layer
    formula = f"{layers} layers x {each:g} GiB, {FITTED}"
    yield EngineLine("CUDA graphs", "graphs", layers * each * GIB, formula, "runtime.graphs_gib_per_layer")
    yield EngineLine("CUDA context and driver", "context", terms.context_gib * GIB, FITTED, "runtime.context_gib")


ABSORBED = {
    "products": "query x key and value x output of every head, rotary queries, and up-projections in 16 bits",
    "up_projections": "up-projections of keys and values once more, in 16 bits",
}
"""How further matrices of latent attention come about."""
FITTED = "fitted to logs of others"
"""How a term without a formula comes about."""
INSIDE = {
    "rest_of_share": ("weights", "activations", "non_torch"),
    "rest_of_free": ("weights",),
    "rest_of_card": ("weights", "activations", "non_torch", "graphs", "context"),
}
"""Groups of lines that the share of memory must hold beside the pool, by the kind of pool."""


def inside(engine: EngineSpec) -> tuple[str, ...]:
    """Return the groups of lines that are taken from the share of memory that the engine may use."""
    groups = INSIDE[engine.scheduler.pool]
    return (*groups, "graphs") if engine.runtime.graphs_in_budget and "graphs" not in groups else groups


def _pool(asked: Serving, lines: tuple[EngineLine, ...]) -> tuple[float, float]:
    """Return the bytes that the engine may use, and those of the pool among them."""
    device = asked.total_gib * GIB
    if asked.engine.scheduler.pool == "rest_of_free":
        device -= sum(line.bytes for line in lines if line.group in ("context", "non_torch"))
    usable = asked.share * device
    groups = inside(asked.engine)
    return usable, usable - sum(line.bytes for line in lines if line.group in groups)


def _tokens(pool: float, kept: tuple[Cache, ...], block: int) -> int:
    """Return the tokens of one sequence that a pool holds, in whole blocks; 0 where it holds none."""
    if pool <= 0 or not kept:
        return LARGEST_CONTEXT if pool > 0 else 0
    growing = params.growing_bytes_per_token(kept)
    if not growing:
        return LARGEST_CONTEXT if pool >= params.bounded_bytes(kept) else 0
    low, high = 0, min(LARGEST_CONTEXT, math.floor(pool / float(growing)) + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(c.bytes(middle) for c in kept) <= pool else (low, middle - 1)
    return low // block * block


def cache_of(asked: Serving, here: Architecture) -> tuple[Cache, ...]:
    """Return what the engine caches of a sequence on one GPU, in the engine's own layout."""
    terms, precision = asked.engine.cache, asked.precision
    sparse = any(isinstance(mixer, Latent) and mixer.indexer for mixer in here.mixers.values())
    if terms.sparse_mla and sparse and precision.kv == "fp8":
        precision = replace(precision, kv="fp8_sparse_mla")
    if terms.decompressed_mla:
        precision = replace(precision, mla_cache="decompressed")
    kept = caches(here, precision, asked.draft and asked.last)
    if terms.latent_multiple > 1:
        kept = tuple(_padded(cache, here, precision, terms.latent_multiple) for cache in kept)
    if terms.window_beside_batch:
        kept = tuple(replace(cache, window=_window(cache.window, asked)) for cache in kept)
    return kept


def printed_cache(asked: Serving, kept: tuple[Cache, ...]) -> tuple[Cache, ...]:
    """Return the cache that an engine's printed number of tokens rests on, which may count windows as full layers."""
    full = asked.engine.cache.windows_count_as_full
    return tuple(replace(cache, window=None) for cache in kept) if full else kept


def _window(window: int | None, asked: Serving) -> int | None:
    """Return the tokens that a layer with a window keeps, with those of a step beside it."""
    terms = asked.engine.cache
    return (
        None
        if window is None
        else _multiple(window - 1 + asked.most_tokens, terms.window_multiple) + terms.window_spare
    )


def _padded(cache: Cache, here: Architecture, precision: Precision, multiple: int) -> Cache:
    """Return the cache of a latent with its entry padded; other caches as they are."""
    mixer = next((mixer for mixer in here.mixers.values() if isinstance(mixer, Latent)), None)
    if cache.kind != "latent" or mixer is None or precision.kv == "fp8_sparse_mla":
        return cache
    values = _multiple(mixer.kv_lora_rank + mixer.rope_head_dim, multiple)
    return replace(cache, bytes_per_entry=KV_FORMATS[precision.kv].bits_of(values) // 8)


def _fits(asked: Serving, lines: tuple[EngineLine, ...], usable: float, pool: float, tokens: int) -> tuple[bool, str]:
    weights = sum(line.bytes for line in lines if line.group == "weights")
    taken = inside(asked.engine)
    outside = sum(line.bytes for line in lines if line.group not in taken)
    device = asked.total_gib * GIB
    if weights > device:
        return False, f"the weights alone take {weights / GIB:.2f} of {asked.total_gib:.2f} GiB"
    if pool <= 0:
        return False, f"{-pool / GIB:.2f} GiB lack before any KV cache"
    if usable + outside > device:
        return (
            False,
            f"{(usable + outside - device) / GIB:.2f} GiB lack beside the share of memory that the engine takes",
        )
    if not tokens:
        return False, "the KV pool holds no block"
    if asked.context and tokens < asked.context:
        return False, f"the KV pool holds {tokens:,} tokens, {asked.context:,} are asked"
    return True, f"{pool / GIB:.2f} GiB are left for the KV cache"
