"""The matrices and vectors of an architecture, part by part: one `match` on the kind of mixer, one on that of FFN.

Sources of the shapes: the class of each family in Hugging Face Transformers (which the tests under tests/peers
instantiate and compare), Switch Transformer (arXiv 2101.03961), DeepSeek-V2 (2405.04434, section 2.1: MLA), Jamba
(2403.19887), Mamba (2312.00752), Mamba-2 (2405.21060), Gated DeltaNet (2412.06464), Kimi Linear (2510.26692) and
MiniMax-01 (2501.08313).
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from prophet_moe.catalog.architecture import (
    Architecture,
    Block,
    Compressed,
    Dense,
    Ffn,
    GatedDeltaNet,
    Indexer,
    KimiDelta,
    Latent,
    Lightning,
    Mamba1,
    Mamba2,
    Mixer,
    Moe,
    ShortConv,
    Softmax,
    letters,
)


class Weights(NamedTuple):
    """Equal matrices of one component, or equal vectors."""

    component: str
    rows: int
    """Outputs."""
    columns: int
    """Inputs."""
    count: int = 1
    """Matrices of this shape."""
    plain: bool = False
    """Whether they are never quantised: norms, biases, convolutions, gates of a few numbers."""
    part: str = ""
    """Part of the component that may have a format of its own: `attention_output`, `output_embedding`."""

    @property
    def parameters(self) -> int:
        """Return the number of all their weights."""
        return self.rows * self.columns * self.count

    def times(self, count: int) -> "Weights":
        """Return as many of them."""
        return self._replace(count=self.count * count)


def _vector(component: str, size: int, count: int = 1) -> Weights:
    return Weights(component, 1, size, count, plain=True)


def mixer_weights(mixer: Mixer, hidden: int) -> Iterator[Weights]:
    """Yield the weights of one mixer in a stream of `hidden` values, the tables of a whole stack left out."""

    def linear(rows: int, columns: int, count: int = 1) -> Weights:
        return Weights("attention", rows, columns, count)

    match mixer:
        case Softmax():
            yield from _softmax(mixer, hidden)
        case Latent(heads=heads, q_lora_rank=query, kv_lora_rank=latent, v_head_dim=value):
            if query is None:
                yield linear(heads * mixer.head_dim, hidden)
            else:
                yield from (linear(query, hidden), linear(heads * mixer.head_dim, query), _vector("attention", query))
            yield linear(latent + mixer.rope_head_dim, hidden)
            yield _vector("attention", latent)
            yield linear(heads * (mixer.nope_head_dim + value), latent)
            yield Weights("attention", hidden, heads * value, part="attention_output")
            yield from _gate(mixer.gate, heads, value, hidden)
            if mixer.bias == "qkvo":
                yield _vector("attention", (query or 0) + latent + mixer.rope_head_dim + hidden)
            if mixer.indexer:
                yield from _indexer(mixer.indexer, hidden, query)
        case Compressed():
            yield from _compressed(mixer, hidden)
        case Mamba1(inner=inner, state=state, conv=conv, dt_rank=rank):
            yield from _state_mixer((2 * inner, hidden), (rank + 2 * state, inner), (inner, rank), (hidden, inner))
            yield _vector("state_mixer", inner * conv + inner)  # convolution and its bias
            yield _vector("state_mixer", inner + inner * state + inner)  # step bias, transition, skip
            yield _vector("state_mixer", rank + 2 * state)  # norms
        case Mamba2(heads=heads, conv=conv):
            inner, shared = heads * mixer.head_dim, mixer.groups * mixer.state
            projected, convolved = 2 * inner + 2 * shared + heads, inner + 2 * shared
            yield from _state_mixer((projected, hidden), (hidden, inner))
            yield _vector("state_mixer", convolved * (conv + mixer.conv_bias))
            yield _vector("state_mixer", 3 * heads + inner)  # transition, skip, step bias; norm
            if mixer.bias:
                yield _vector("state_mixer", projected + hidden)
        case GatedDeltaNet(key_heads=key_heads, value_heads=value_heads, conv=conv):
            keys, values = key_heads * mixer.key_dim, value_heads * mixer.value_dim
            yield from _state_mixer((2 * keys + 2 * values, hidden), (hidden, values))
            yield Weights("state_mixer", 2 * value_heads, hidden, plain=True)  # step sizes and decay
            yield _vector("state_mixer", (2 * keys + values) * conv)
            yield _vector("state_mixer", 2 * value_heads + mixer.value_dim)  # transition, step bias; norm
        case KimiDelta(heads=heads, head_dim=head_dim, conv=conv, gate_rank=rank):
            width = heads * head_dim
            at_once = [(width, hidden)]
            decay = at_once if rank is None else [(rank, hidden), (width, rank)]
            gate = at_once if mixer.full_output_gate else decay
            yield from _state_mixer(*at_once * 3, *decay, *gate, (heads, hidden), (hidden, width))
            yield _vector("state_mixer", 3 * width * conv)
            yield _vector("state_mixer", heads + width + head_dim)  # transition, step bias, norm
            if mixer.gate_bias:
                yield _vector("state_mixer", width)
        case Lightning(heads=heads, head_dim=head_dim):
            width = heads * head_dim
            yield from _state_mixer((3 * width, hidden), (width, hidden), (hidden, width))
            yield _vector("state_mixer", width if mixer.norm == "full_width" else head_dim)
            if mixer.qk_norm == "per_head":
                yield _vector("state_mixer", head_dim, 2)
            if mixer.bias:
                yield _vector("state_mixer", 3 * width)
        case ShortConv(conv=conv):
            yield from _state_mixer((3 * hidden, hidden), (hidden, hidden))
            yield _vector("state_mixer", hidden * conv)
            if mixer.bias:
                yield _vector("state_mixer", 5 * hidden)


def _state_mixer(*shapes: tuple[int, int]) -> Iterator[Weights]:
    yield from (Weights("state_mixer", rows, columns) for rows, columns in shapes)


def _softmax(mixer: Softmax, hidden: int) -> Iterator[Weights]:
    queries, keys = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
    output = mixer.heads * mixer.value_dim
    if mixer.query_rank:
        yield Weights("attention", mixer.query_rank, hidden)
        yield _vector("attention", mixer.query_rank)
    yield Weights("attention", queries, mixer.query_rank or hidden)
    yield from key_value_weights(mixer, hidden)
    yield Weights("attention", hidden, output, part="attention_output")
    yield from _gate(mixer.gate, mixer.heads, mixer.value_dim, hidden)
    if mixer.bias != "none":
        yield _vector("attention", queries)
    if mixer.bias == "qkvo":
        yield _vector("attention", hidden)
    if mixer.qk_norm == "per_head":
        yield _vector("attention", mixer.head_dim, 2 if mixer.own_kv or mixer.norms_read_keys else 1)
    if mixer.qk_norm == "full_width":
        yield _vector("attention", queries + (keys if mixer.own_kv else 0))
    if mixer.sinks:
        yield _vector("attention", mixer.heads)
    if indexer := mixer.indexer:
        yield Weights("indexer", indexer.heads * indexer.head_dim, hidden)
        yield Weights("indexer", indexer.head_dim, hidden)
        yield _vector("indexer", 2 * indexer.head_dim)  # norms of queries and key


def key_value_weights(mixer: Softmax, hidden: int) -> Iterator[Weights]:
    """Yield the projections of keys and values and their biases."""
    keys, values = mixer.kv_heads * mixer.head_dim, mixer.kv_heads * mixer.value_dim
    projected = (keys,) if mixer.key_is_value else (keys, values)
    for width in projected if mixer.own_kv else ():
        yield Weights("attention", width, hidden)
        if mixer.bias != "none":
            yield _vector("attention", width)


def _gate(gate: str, heads: int, value_dim: int, hidden: int) -> Iterator[Weights]:
    if gate != "none":
        yield Weights("attention", heads if gate == "per_head" else heads * value_dim, hidden)


def _indexer(indexer: Indexer, hidden: int, query: int) -> Iterator[Weights]:
    yield Weights("indexer", indexer.heads * indexer.head_dim, query)
    yield Weights("indexer", indexer.head_dim, hidden)
    yield _vector("indexer", 2 * indexer.head_dim)  # LayerNorm of the key
    yield Weights("indexer", indexer.heads, hidden, plain=True)


def _compressed(mixer: Compressed, hidden: int) -> Iterator[Weights]:
    heads, width, query = mixer.heads, mixer.head_dim, mixer.q_lora_rank
    yield Weights("attention", query, hidden)
    yield Weights("attention", heads * width, query)
    yield Weights("attention", width, hidden)
    yield _vector("attention", query + width)  # norms
    yield Weights("attention", mixer.o_lora_rank, heads * width // mixer.o_groups, mixer.o_groups)
    yield Weights("attention", hidden, mixer.o_groups * mixer.o_lora_rank)
    if mixer.sinks:
        yield _vector("attention", heads)
    if mixer.compress:
        yield from _compressor("attention", mixer, width, hidden)
    if mixer.indexer:
        yield Weights("indexer", mixer.indexer.heads * mixer.indexer.head_dim, query)
        yield Weights("indexer", mixer.indexer.heads, hidden, plain=True)
        yield from _compressor("indexer", mixer, mixer.indexer.head_dim, hidden)


def _compressor(component: str, mixer: Compressed, width: int, hidden: int) -> Iterator[Weights]:
    """Yield what makes one entry of `compress` tokens: values, their gates, positions inside the entry, a norm."""
    sets = 2 if mixer.overlap else 1
    yield Weights(component, sets * width, hidden, 2)
    yield _vector(component, mixer.compress * sets * width + width)


def ffn_weights(ffn: Ffn, hidden: int) -> Iterator[Weights]:
    """Yield the weights of one FFN in a stream of `hidden` values."""
    match ffn:
        case Dense():
            yield from _ffn("dense_ffn", ffn.gated, ffn.ffn, hidden)
            if ffn.bias:
                yield _vector("dense_ffn", (2 if ffn.gated else 1) * ffn.ffn + hidden)
        case Moe():
            yield from (weights.times(ffn.experts) for weights in expert_weights(ffn, hidden))
            yield from _ffn("shared_experts", ffn.gated, ffn.shared_ffn, hidden)
            yield from _ffn("dense_ffn", ffn.gated, ffn.dense_beside, hidden)
            outputs = ffn.experts + ffn.zero_experts
            yield Weights("router", outputs, hidden, plain=True)
            vectors = outputs * (ffn.router_bias + ffn.correction_bias) + hidden * ffn.shared_gate
            vectors += (hidden + ffn.experts) * ffn.router_scales
            if vectors:
                yield _vector("router", vectors)
            if ffn.latent:
                yield Weights("latent_projections", ffn.latent, hidden)
                yield Weights("latent_projections", hidden, ffn.latent)
            if ffn.latent_norm:
                yield _vector("latent_projections", ffn.latent)


def expert_weights(moe: Moe, hidden: int) -> Iterator[Weights]:
    """Yield the weights of one routed expert."""
    width = moe.latent or hidden
    yield from _ffn("routed_experts", moe.gated, moe.ffn, width)
    if moe.bias:
        yield _vector("routed_experts", (2 if moe.gated else 1) * moe.ffn + width)


def _ffn(component: str, gated: bool, inner: int, hidden: int) -> Iterator[Weights]:
    if inner:
        yield Weights(component, inner, hidden, 2 if gated else 1)
        yield Weights(component, hidden, inner)


def block_weights(arch: Architecture, block: Block) -> Iterator[Weights]:
    """Yield the weights of one block of the decoder, with its cross-attention where there is an encoder."""
    yield from _block_weights(arch, block, crossing=arch.encoder is not None)


def _block_weights(arch: Architecture, block: Block, crossing: bool) -> Iterator[Weights]:
    hidden, norms, parts = arch.hidden, block.norms, 0
    if block.mixer is not None:
        mixer, parts = arch.mixers[block.mixer], parts + 1
        for _ in range(1 + crossing):
            yield from mixer_weights(mixer, hidden)
        norms += crossing
    if block.ffn is not None:
        parts += 1
        yield from ffn_weights(arch.ffns[block.ffn], hidden)
    yield from _norms(arch, norms)
    if streams := arch.hyper_connections:
        mixed = (2 + streams) * streams
        yield Weights("hyper_connections", mixed, streams * hidden, parts, plain=True)
        yield _vector("hyper_connections", mixed + 3, parts)
    if arch.attention_residuals:
        yield _vector("hyper_connections", 2 * hidden, parts)


def stack_weights(arch: Architecture, pattern: list[str]) -> Iterator[Weights]:
    """Yield what a stack of blocks has once: its last norm, and tables of relative positions."""
    yield from _norms(arch, 1)
    names = {arch.blocks[letter].mixer for letter in letters(pattern)}
    for name in sorted(name for name in names if name):
        mixer = arch.mixers[name]
        if isinstance(mixer, Softmax) and mixer.relative_buckets:
            yield Weights("attention", mixer.relative_buckets, mixer.heads)


def weights(arch: Architecture) -> Iterator[Weights]:
    """Yield all weights of a model but those of its draft layers."""
    yield from _stack(arch, arch.pattern, crossing=arch.encoder is not None)
    if arch.encoder:
        yield from _stack(arch, arch.encoder.pattern, crossing=False)
    yield from _embeddings(arch, both=not arch.tied_embeddings)
    if arch.head_bias:
        yield _vector("embeddings", arch.vocab)
    if streams := arch.hyper_connections:
        yield Weights("hyper_connections", streams, streams * arch.hidden, plain=True)
        yield _vector("hyper_connections", streams + 1)
    if arch.attention_residuals:
        yield _vector("hyper_connections", 2 * arch.hidden)
    for size in arch.other.values():
        yield _vector("other", size)


def draft_weights(arch: Architecture) -> Iterator[Weights]:
    """Yield the weights of the draft layers; none where the model has none."""
    draft = arch.draft
    if draft is None:
        return
    for letter, times in Counter(letters(draft.pattern)).items():
        yield from (each.times(times) for each in _block_weights(arch, arch.blocks[letter], crossing=False))
    # Of 16 bits in FP8 checkpoints too: the files of DeepSeek-V3 have the bytes that this gives.
    yield Weights("draft", arch.hidden, 2 * arch.hidden, draft.modules, plain=True)
    yield from _norms(arch, draft.norms * draft.modules)
    if draft.own_embeddings:
        yield from (each.times(draft.modules) for each in _embeddings(arch, both=True))


def _embeddings(arch: Architecture, both: bool) -> Iterator[Weights]:
    yield Weights("embeddings", arch.vocab, arch.hidden)
    if both:
        yield Weights("embeddings", arch.vocab, arch.hidden, part="output_embedding")


def _stack(arch: Architecture, pattern: list[str], crossing: bool) -> Iterator[Weights]:
    for letter, times in Counter(letters(pattern)).items():
        yield from (each.times(times) for each in _block_weights(arch, arch.blocks[letter], crossing))
    yield from stack_weights(arch, pattern)


def _norms(arch: Architecture, count: int) -> Iterator[Weights]:
    if count:
        yield _vector("norms", arch.hidden * (2 if arch.norm == "layer" else 1), count)
