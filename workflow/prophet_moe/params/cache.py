"""What an architecture keeps per sequence: a list of caches that grow with the context or end at a window, and states.

Source of the sizes: the caches of Hugging Face Transformers 5 (which tests/peers run and measure); DeepSeek-V2 (arXiv
2405.04434, section 2.1) for MLA, and the layout of sparse MLA in vLLM.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from prophet_moe.catalog.architecture import (
    Architecture,
    Compressed,
    GatedDeltaNet,
    KimiDelta,
    Latent,
    Lightning,
    Mamba1,
    Mamba2,
    Mixer,
    ShortConv,
    Softmax,
    letters,
)
from prophet_moe.errors import UserError
from prophet_moe.precision import BF16, KV_FORMATS, STATE_BITS, Precision

CONVOLUTION_BITS = 16
"""Bits of a value in the window of a convolution, as Transformers and engines keep it."""


@dataclass(frozen=True)
class Cache:
    """What some layers keep alike: entries of some tokens each, of all tokens or of the last ones."""

    kind: str
    """What is kept: `attention`, `latent`, `index_key`, `compressed`."""
    layers: int
    """Layers that keep it."""
    bytes_per_entry: int
    """Bytes of an entry in one layer."""
    tokens_per_entry: int = 1
    """Tokens that one entry stands for."""
    window: int | None = None
    """Tokens that are kept; None: all."""

    def bytes(self, tokens: int) -> int:
        """Return the bytes that a sequence of `tokens` keeps in all these layers."""
        kept = tokens if self.window is None else min(tokens, self.window)
        return self.layers * self.bytes_per_entry * -(-kept // self.tokens_per_entry)


@dataclass(frozen=True)
class State:
    """What some layers keep of a sequence, whatever its length."""

    kind: str
    """Kind of the mixer."""
    layers: int
    """Layers that keep it."""
    convolution_values: int
    """Values of the windows of convolutions in one layer, of 16 bits."""
    recurrent_values: int
    """Values of the recurrent state in one layer."""
    recurrent_bits: int
    """Bits of such a value."""

    @property
    def bytes(self) -> int:
        """Return the bytes that a sequence keeps in all these layers."""
        bits = self.convolution_values * CONVOLUTION_BITS + self.recurrent_values * self.recurrent_bits
        return self.layers * bits // 8


def mixer_cache(mixer: Mixer, precision: Precision) -> Iterator[Cache]:
    """Yield what one layer of a mixer keeps per token; nothing where it keeps a state alone."""
    kv = KV_FORMATS[precision.kv]

    def of(*vectors: int) -> int:
        return sum(kv.bits_of(values) for values in vectors) // 8

    sparse = precision.kv == "fp8_sparse_mla"
    if sparse and isinstance(mixer, Softmax | Compressed):
        problem = f"is a layout of latent attention, the model has a mixer of kind {mixer.kind}"
        raise UserError("KV cache: fp8_sparse_mla", problem, "Choose fp8, or another format.")
    match mixer:
        case Softmax(kv_heads=heads) if mixer.own_kv:
            size = of(heads * mixer.head_dim, heads * mixer.value_dim)
            yield Cache("attention", 1, size, window=mixer.window)
            if mixer.indexer:
                yield Cache("index_key", 1, of(mixer.indexer.head_dim), window=mixer.window)
        case Latent(heads=heads, kv_lora_rank=latent, rope_head_dim=rotary):
            if precision.mla_cache == "decompressed":
                yield Cache("attention", 1, of(heads * mixer.head_dim, heads * mixer.v_head_dim))
            elif sparse:
                yield Cache("latent", 1, latent + 4 * -(-latent // 128) + 2 * rotary)
            else:
                yield Cache("latent", 1, of(latent, rotary))
            if mixer.indexer:
                key = mixer.indexer.head_dim
                yield Cache("index_key", 1, key + 4 if sparse else of(key))
        case Compressed(head_dim=width, compress=tokens):
            yield Cache("attention", 1, of(width), window=mixer.window)
            if tokens:
                yield Cache("compressed", 1, of(width), tokens)
            if tokens and mixer.indexer:
                yield Cache("index_key", 1, of(mixer.indexer.head_dim), tokens)


def mixer_state(mixer: Mixer, hidden: int, precision: Precision = BF16) -> State | None:
    """Return the state that one layer of a mixer keeps per sequence; None where it keeps a cache alone."""
    own = mixer.state_format if isinstance(mixer, Lightning) else "fp32"
    bits = STATE_BITS[own if precision.state == "own" else precision.state]
    match mixer:
        case Mamba1(inner=inner, conv=conv):
            values = inner * conv, inner * mixer.state
        case Mamba2(heads=heads, head_dim=head_dim, conv=conv):
            inner = heads * head_dim
            values = (inner + 2 * mixer.groups * mixer.state) * conv, inner * mixer.state
        case GatedDeltaNet(key_heads=key_heads, value_heads=value_heads, conv=conv):
            width = 2 * key_heads * mixer.key_dim + value_heads * mixer.value_dim
            values = width * conv, value_heads * mixer.key_dim * mixer.value_dim
        case KimiDelta(heads=heads, head_dim=head_dim, conv=conv):
            values = 3 * heads * head_dim * conv, heads * head_dim * head_dim
        case Lightning(heads=heads, head_dim=head_dim):
            values = 0, heads * head_dim * head_dim
        case ShortConv(conv=conv):
            values = hidden * conv, 0
        case _:
            return None
    return State(mixer.kind, 1, *values, bits)


def caches(arch: Architecture, precision: Precision = BF16, draft: bool = False) -> tuple[Cache, ...]:
    """Return what the decoder keeps per sequence and token, equal layers together, with that of its draft layers.

    In an encoder-decoder a target token costs self-attention K and V and a source token costs cross-attention K and V,
    which have the same size: its context is source plus target tokens.
    """
    found: Counter[Cache] = Counter()
    for mixer, layers in _mixers(arch, draft):
        for cache in mixer_cache(mixer, precision):
            found[cache] += layers
    return tuple(replace(cache, layers=layers) for cache, layers in found.items())


def states(arch: Architecture, precision: Precision = BF16, draft: bool = False) -> tuple[State, ...]:
    """Return the states that the decoder keeps per sequence, equal layers together."""
    found: Counter[State] = Counter()
    for mixer, layers in _mixers(arch, draft):
        if state := mixer_state(mixer, arch.hidden, precision):
            found[state] += layers
    return tuple(replace(state, layers=layers) for state, layers in found.items())


def state_bytes_per_sequence(arch: Architecture, precision: Precision = BF16, draft: bool = False) -> int:
    """Return the bytes of recurrent state and of convolutions that a sequence keeps, whatever its length."""
    return sum(state.bytes for state in states(arch, precision, draft))


def growing_bytes_per_token(kept: tuple[Cache, ...]) -> Fraction:
    """Return by how many bytes per token the cache of a sequence grows once every window is full."""
    growing = (cache for cache in kept if cache.window is None)
    return sum((Fraction(c.layers * c.bytes_per_entry, c.tokens_per_entry) for c in growing), Fraction())


def bounded_bytes(kept: tuple[Cache, ...]) -> int:
    """Return the bytes that the windows of a sequence hold once they are full."""
    return sum(cache.bytes(cache.window) for cache in kept if cache.window is not None)


def _mixers(arch: Architecture, draft: bool) -> Iterator[tuple[Mixer, int]]:
    count = Counter(letters(arch.pattern))
    if draft and arch.draft:
        count += Counter(letters(arch.draft.pattern))
    for letter, layers in count.items():
        if name := arch.blocks[letter].mixer:
            yield arch.mixers[name], layers
