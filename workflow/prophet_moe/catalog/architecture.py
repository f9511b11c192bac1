"""A published architecture: named mixers and FFNs, blocks that join them, and the pattern of blocks that is the model.

Every parameter, every byte of the KV cache and every byte of recurrent state is counted from these fields (`params`).
What changes none of them (rotary positions, scoring functions, scaling factors, soft caps, groups of experts) has no
field.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from prophet_moe.validation import StrictModel, inconsistent, shortened

LARGEST_SIZE = 2**31
"""Upper limit of a width, a count or a context, to catch typing errors. The largest contexts are about 10^7."""
LARGEST_DEPTH = 10_000
"""Upper limit of the blocks of a model. The deepest models have some hundreds."""

Size = Annotated[int, Field(gt=0, le=LARGEST_SIZE)]
Count = Annotated[int, Field(ge=0, le=LARGEST_SIZE)]

RUN = re.compile(r"(?:([1-9]\d{0,17}) x )?([^\s,]+)")
"""A run of a pattern: `12 x LLLF` is the blocks LLLF twelve times, `LLLF` once."""


def _is_run(text: str) -> str:
    if not RUN.fullmatch(text):
        problem = f"got {shortened(repr(text))}, expected letters of blocks, such as LLLF, or a run of them: 12 x LLLF"
        raise inconsistent((), problem)
    return text


def _is_short(pattern: list[str]) -> list[str]:
    """Refuse a pattern of too many blocks before anything walks over them."""
    depth = sum(int(repeat or 1) * len(blocks) for repeat, blocks in map(_run, pattern))
    if depth > LARGEST_DEPTH:
        raise inconsistent((), f"got {depth:,} blocks, expected at most {LARGEST_DEPTH:,}")
    return pattern


def _run(text: str) -> tuple[str | None, str]:
    return RUN.fullmatch(text).groups()


def _is_letter(text: str) -> str:
    if len(text) != 1 or not RUN.fullmatch(text):
        raise inconsistent((), f"got {shortened(repr(text))}, expected one letter, no space and no comma")
    return text


Letter = Annotated[str, AfterValidator(_is_letter)]
"""Name of a block in a pattern."""
Pattern = Annotated[list[Annotated[str, AfterValidator(_is_run)]], Field(min_length=1), AfterValidator(_is_short)]
"""Runs of blocks, in the order of the layers."""


def letters(pattern: list[str]) -> Iterator[str]:
    """Yield the letter of every block of a pattern, in the order of the layers."""
    for run in pattern:
        repeat, blocks = _run(run)
        yield from blocks * int(repeat or 1)


class Indexer(StrictModel):
    """The index branch of sparse attention, which picks the tokens that a query attends to."""

    heads: Size
    """Query heads of the indexer."""
    head_dim: Size
    """Width of a head, and of the one index key that the cache keeps of a token."""
    top_k: Size | None = None
    """Tokens that a query attends to. They bound what a step reads, and change no byte of memory."""


class Softmax(StrictModel):
    """Softmax attention with a KV cache of every KV head: MHA, GQA and MQA, over all tokens or a window of them."""

    kind: Literal["softmax"]
    heads: Size
    """Query heads."""
    kv_heads: Size
    """Key and value heads, a divisor of `heads`: as many as `heads` is multi-head attention."""
    head_dim: Size
    """Width of a query or key head."""
    v_head_dim: Size | None = None
    """Width of a value head, where it is not `head_dim`."""
    window: Size | None = None
    """Tokens that the layer keeps and attends to; none given: all."""
    window_kind: Literal["sliding", "chunked"] = "sliding"
    """The window moves with the token, or restarts with every chunk. The cache holds as much of either."""
    query_rank: Size | None = None
    """Rank of compressed queries with a norm of their own (Step-3); none given: queries are projected at once."""
    bias: Literal["none", "qkv", "qkvo"] = "none"
    """Biases of the projections: none, of queries, keys and values, or of the output too."""
    qk_norm: Literal["none", "per_head", "full_width"] = "none"
    """Norm of queries and keys: none, one of `head_dim` weights for all heads, or one of all heads' width."""
    gate: Literal["none", "per_head", "full"] = "none"
    """Gate on the output of attention: none, one value a head, or one a value. Its projection counts as attention."""
    sinks: bool = False
    """Whether every head has a learned logit that no token owns."""
    key_is_value: bool = False
    """Whether values are made of the key projection (Gemma 4). The cache keeps both all the same."""
    own_kv: bool = True
    """Whether the layer has keys and values. One without reads those of an earlier layer, and keeps no cache."""
    norms_read_keys: bool = False
    """Whether a layer without keys of its own has a norm for those it reads (Hunyuan-Large)."""
    relative_buckets: Count = 0
    """Buckets of T5's relative position bias, one table per stack. 0 is no such bias."""
    indexer: Indexer | None = None
    """Index branch of block-sparse attention (MiniMax-M3), whose queries and key come from the layer's input."""

    @model_validator(mode="after")
    def _heads_agree(self) -> "Softmax":
        if self.heads % self.kv_heads:
            raise inconsistent(("kv_heads",), f"got {self.kv_heads}, expected a divisor of heads, {self.heads}")
        if self.key_is_value and self.value_dim != self.head_dim:
            raise inconsistent(("v_head_dim",), f"got {self.v_head_dim} with key_is_value, expected head_dim or none")
        if self.norms_read_keys and (self.own_kv or self.qk_norm != "per_head"):
            raise inconsistent(("norms_read_keys",), "given, expected it with qk_norm per_head and own_kv false")
        if self.window is None and self.window_kind != "sliding":
            raise inconsistent(("window_kind",), f"got {self.window_kind} without a window, expected its tokens")
        return self

    @property
    def value_dim(self) -> int:
        """Return the width of a value head."""
        return self.v_head_dim or self.head_dim


class Latent(StrictModel):
    """Multi-head latent attention (MLA): the cache keeps one latent and one rotary key per token."""

    kind: Literal["latent"]
    heads: Size
    """Query heads."""
    q_lora_rank: Size | None
    """Rank of the compressed queries; `null` says that queries are projected at once, as in DeepSeek-V2-Lite."""
    kv_lora_rank: Size
    """Rank of the latent that holds keys and values."""
    nope_head_dim: Size
    """Width of a head's part without rotary position."""
    rope_head_dim: Size
    """Width of the rotary part. All heads share one rotary key."""
    v_head_dim: Size
    """Width of a value head."""
    gate: Literal["none", "per_head", "full"] = "none"
    """Gate on the output of attention: none, one value a head, or one a value."""
    bias: Literal["none", "qkvo"] = "none"
    """Biases of the projections down to the latents and of the output (`attention_bias` of DeepSeek-like classes).
    Queries that are projected at once have none."""
    indexer: Indexer | None = None
    """Index branch of sparse attention (DeepSeek-V3.2, GLM-5), in the layers that have one of their own."""
    sparse_top_k: Size | None = None
    """Tokens that a query attends to where the layer uses the choice of an earlier layer's indexer."""

    @model_validator(mode="after")
    def _indexer_has_queries(self) -> "Latent":
        if self.indexer and self.q_lora_rank is None:
            raise inconsistent(("indexer",), "given without q_lora_rank, where its queries come from")
        return self

    @property
    def head_dim(self) -> int:
        """Return the width of a query or key head."""
        return self.nope_head_dim + self.rope_head_dim


class Compressed(StrictModel):
    """Compressed attention of DeepSeek-V4: a window of single tokens, and one entry per `compress` tokens before.

    An entry is one vector of `head_dim` that is key and value of all heads.
    """

    kind: Literal["compressed"]
    heads: Size
    """Query heads."""
    head_dim: Size
    """Width of a head, and of an entry of the cache."""
    q_lora_rank: Size
    """Rank of the compressed queries."""
    o_lora_rank: Size
    """Rank of the output projection, per group."""
    o_groups: Size
    """Groups of heads that the output projection keeps apart."""
    window: Size
    """Tokens that are kept one by one."""
    compress: Size | None = None
    """Tokens of one compressed entry; none given: the layer keeps its window alone."""
    overlap: bool = False
    """Whether neighbouring entries overlap, so that the compressor has two sets of weights."""
    indexer: Indexer | None = None
    """Index branch over compressed entries."""
    sinks: bool = True
    """Whether every head has a learned logit that no token owns."""

    @model_validator(mode="after")
    def _heads_agree(self) -> "Compressed":
        if self.heads % self.o_groups:
            raise inconsistent(("o_groups",), f"got {self.o_groups}, expected a divisor of heads, {self.heads}")
        if self.compress is None and (self.indexer or self.overlap):
            raise inconsistent(("compress",), "missing, expected the tokens of an entry, since entries are indexed")
        return self


class Mamba1(StrictModel):
    """Mamba-1 as in Jamba, with norms on the step size and the two projections of the state."""

    kind: Literal["mamba1"]
    inner: Size
    """Channels of the block."""
    state: Size
    """SSM state values that a channel keeps for each sequence."""
    conv: Size
    """Width of the convolution, and so the inputs of a channel that a sequence keeps."""
    dt_rank: Size
    """Rank of the projection that gives the step sizes."""


class Mamba2(StrictModel):
    """Mamba-2, as in Nemotron-3 and Granite-4."""

    kind: Literal["mamba2"]
    heads: Size
    """Heads of the state."""
    head_dim: Size
    """Channels of a head."""
    groups: Size
    """Groups of heads that share the projections into and out of the state."""
    state: Size
    """State values that a channel keeps for each sequence."""
    conv: Size
    """Width of the convolution."""
    conv_bias: bool = True
    """Whether the convolution adds a bias."""
    bias: bool = False
    """Whether the projections add biases."""


class GatedDeltaNet(StrictModel):
    """Gated DeltaNet, the linear attention of Qwen3-Next and Qwen3.5."""

    kind: Literal["gated_delta_net"]
    key_heads: Size
    """Query and key heads."""
    value_heads: Size
    """Value heads."""
    key_dim: Size
    """Width of a query or key head."""
    value_dim: Size
    """Width of a value head."""
    conv: Size
    """Width of the convolution."""


class KimiDelta(StrictModel):
    """Kimi delta attention (KDA), the linear attention of Kimi-Linear and Ling-3.0."""

    kind: Literal["kimi_delta"]
    heads: Size
    """Heads of queries, keys and values."""
    head_dim: Size
    """Width of a head."""
    conv: Size
    """Width of each of the three convolutions."""
    gate_rank: Size | None
    """Rank of the decay and of the gate on the output; `null` says that they are projected at once."""
    full_output_gate: bool = False
    """Whether the gate on the output is projected at once although the decay has the rank `gate_rank` (Kimi-K3)."""
    gate_bias: bool = False
    """Whether the gate on the output adds a bias."""


class Lightning(StrictModel):
    """Lightning attention, the linear attention of MiniMax-Text-01 and Ling-2.6."""

    kind: Literal["lightning"]
    heads: Size
    """Heads of queries, keys and values."""
    head_dim: Size
    """Width of a head."""
    qk_norm: Literal["none", "per_head"] = "none"
    """Norm of queries and keys: none, or one of `head_dim` weights for all heads."""
    norm: Literal["full_width", "per_head"] = "full_width"
    """Norm of the output: of all heads' width, or one of `head_dim` weights for all heads."""
    bias: bool = False
    """Whether the projections of queries, keys and values add a bias."""
    state_format: Literal["fp32", "bf16"] = "fp32"
    """Format of its state, as the model's class keeps it."""


class ShortConv(StrictModel):
    """The gated short convolution of LFM2, which keeps its last inputs alone."""

    kind: Literal["short_conv"]
    conv: Size
    """Width of the convolution."""
    bias: bool = False
    """Whether the projections and the convolution add biases."""


Mixer = Annotated[
    Softmax | Latent | Compressed | Mamba1 | Mamba2 | GatedDeltaNet | KimiDelta | Lightning | ShortConv,
    Field(discriminator="kind"),
]


class Dense(StrictModel):
    """A dense FFN, which every token uses."""

    kind: Literal["dense"]
    ffn: Size
    """Inner width, the size between its matrices."""
    gated: bool = True
    """Whether the FFN is gated, with three matrices, or plain, with two."""
    bias: bool = False
    """Whether its matrices add biases."""


class Moe(StrictModel):
    """A mixture of experts: routed and shared experts, and what stands beside them."""

    kind: Literal["moe"]
    experts: Size
    """Routed experts of the layer, E."""
    top_k: Size
    """Routed experts that one token uses, k. Zero experts count among them."""
    ffn: Size
    """Inner width of one routed expert, the size between its matrices."""
    gated: bool = True
    """Whether an FFN is gated, with three matrices, or plain, with two. It holds for all FFNs of the layer."""
    zero_experts: Count = 0
    """Further outputs of the router that stand for the identity (LongCat). They have no weights."""
    shared_experts: Count = 0
    """Shared experts of the layer, which every token uses, as the model's paper counts them."""
    shared_ffn: Count = 0
    """Inner width of all shared experts together."""
    shared_gate: bool = False
    """Whether a sigmoid gate of `hidden` weights scales the shared experts' output. It is counted with the router."""
    dense_beside: Count = 0
    """Inner width of a dense FFN beside the experts (Arctic, Gemma 4, LongCat). 0 is none."""
    latent: Size | None = None
    """Width that experts act on, where it is not `hidden`: two projections lead there and back (Nemotron-3 Super)."""
    latent_norm: bool = False
    """Whether the experts' output has a norm of `latent` weights before it is projected back (Kimi-K3)."""
    bias: bool = False
    """Whether the matrices of routed experts add biases."""
    router_bias: bool = False
    """Whether the router adds a bias."""
    correction_bias: bool = False
    """Whether the router has one more number per output that corrects its choice and that the class counts as a
    parameter. Most classes keep it as a buffer, which is not counted."""
    router_scales: bool = False
    """Whether the router scales its input and its experts (Gemma 4)."""

    @model_validator(mode="after")
    def _counts_agree(self) -> "Moe":
        if self.top_k > self.experts + self.zero_experts:
            counted = f"experts, {self.experts}" + (f" and {self.zero_experts} zero experts" * (self.zero_experts > 0))
            raise inconsistent(("top_k",), f"got {self.top_k}, expected at most {counted}")
        if (self.shared_experts > 0) != (self.shared_ffn > 0):
            problem = f"got {self.shared_ffn} with shared_experts {self.shared_experts}, expected both above 0 or none"
            raise inconsistent(("shared_ffn",), problem)
        if self.latent_norm and self.latent is None:
            raise inconsistent(("latent_norm",), "given without latent, expected the width that experts act on")
        if self.shared_gate and not self.shared_experts:
            raise inconsistent(("shared_gate",), "got true without shared_experts, expected false")
        return self


ROUTED = ("experts", "top_k", "ffn", "gated", "zero_experts", "latent", "bias")
"""Fields of `Moe` that say what a routed expert is and how many a token chooses: equal in all layers of a model."""

Ffn = Annotated[Dense | Moe, Field(discriminator="kind")]


class Block(StrictModel):
    """One layer: a mixer, an FFN, or both, with their norms."""

    mixer: str | None = None
    """Name of the mixer in `mixers`; none given: the block is an FFN alone."""
    ffn: str | None = None
    """Name of the FFN in `ffns`; none given: the block is a mixer alone."""
    norms: Annotated[int, Field(ge=0, le=100)] = 2
    """Norms of the block, each of `hidden` weights. The last norm of a stack is counted beside them."""

    @model_validator(mode="after")
    def _has_a_part(self) -> "Block":
        if self.mixer is None and self.ffn is None:
            raise inconsistent(("mixer",), "missing, as is ffn, expected at least one of the two")
        return self


class Encoder(StrictModel):
    """The encoder of an encoder-decoder. The attention layers of its decoder then have cross-attention as well."""

    pattern: Pattern
    """The blocks of the encoder."""


class Draft(StrictModel):
    """Draft layers (multi-token prediction), which guess further tokens. A scenario says whether they are resident."""

    pattern: Pattern
    """The blocks of all draft layers."""
    modules: Size = 1
    """Draft modules, each with a projection of two hidden states to one and its norms."""
    norms: Annotated[int, Field(ge=0, le=100)] = 3
    """Norms of a module beside those of its blocks: of the hidden state, of the embedding, and the last one."""
    own_embeddings: bool = False
    """Whether a module has an input and an output embedding of its own."""


class Architecture(StrictModel):
    """A published architecture; every parameter is counted from these fields."""

    hidden: Size
    """Width of the residual stream, the size of a token's hidden state."""
    vocab: Size
    """Tokens of the vocabulary, rows of the embedding."""
    native_context: Size
    """Context that the model was trained for, in tokens. Of an encoder-decoder it is a source's."""
    tied_embeddings: bool = False
    """Whether the output embedding is the input embedding, so that it is counted once."""
    norm: Literal["rms", "layer"] = "rms"
    """Norms of blocks and stacks: `rms` has a weight per value, `layer` (LayerNorm) a weight and a bias."""
    head_bias: bool = False
    """Whether the output embedding adds a bias."""
    hyper_connections: Count = 0
    """Residual streams beside each other (DeepSeek-V4). 0 is the usual one."""
    attention_residuals: bool = False
    """Whether every mixer, every FFN and the output weigh the outputs of earlier layers (Kimi-K3), each with a norm and
    a query of `hidden` weights."""
    mixers: dict[str, Mixer] = {}
    """What mixes tokens, by a name of your own: attention and what stands in its place."""
    ffns: dict[str, Ffn] = {}
    """FFNs by a name of your own, dense and with experts."""
    blocks: Annotated[dict[Letter, Block], Field(min_length=1)]
    """Kinds of layers by a letter of your own."""
    pattern: Pattern
    """The blocks of the decoder in the order of its layers: `[3 x D, 58 x M]`, or `[12 x LLLF]`."""
    encoder: Encoder | None = None
    """The encoder of an encoder-decoder."""
    draft: Draft | None = None
    """Draft layers, counted apart."""
    other: dict[str, Size] = {}
    """Further weights by what they are, such as a vision tower: always resident, of 16 bits."""

    @model_validator(mode="after")
    def _names_are_defined(self) -> "Architecture":
        for letter, block in self.blocks.items():
            for part, name, defined in (("mixer", block.mixer, self.mixers), ("ffn", block.ffn, self.ffns)):
                if name is not None and name not in defined:
                    known = ", ".join(defined) or "there are none"
                    problem = f"got {name!r}, expected a name under {part}s: {known}"
                    raise inconsistent(("blocks", letter, part), problem)
        used: Counter[str] = Counter()
        for where, pattern in self._patterns():
            counted = Counter(letters(pattern))
            unknown = next((letter for letter in counted if letter not in self.blocks), None)
            if unknown is not None:
                known = ", ".join(self.blocks)
                raise inconsistent(where, f"got the letter {unknown!r}, expected letters of blocks: {known}")
            used += counted
        self._all_used(used)
        return self

    def _all_used(self, used: Counter[str]) -> None:
        for letter in self.blocks:
            if letter not in used:
                raise inconsistent(("blocks", letter), "is in no pattern, expected a definition that is used")
        blocks = self.blocks.values()
        named = {"mixers": {b.mixer for b in blocks}, "ffns": {b.ffn for b in blocks}}
        for part, names in named.items():
            for name in getattr(self, part):
                if name not in names:
                    raise inconsistent((part, name), "is in no block, expected a definition that is used")

    @model_validator(mode="after")
    def _layers_agree(self) -> "Architecture":
        mixers = {name for _, name in self._mixed(self.pattern)}
        if not any(not isinstance(self.mixers[name], Softmax) or self.mixers[name].own_kv for name in mixers):
            raise inconsistent(("pattern",), "has no block with a mixer that keeps a cache or a state, expected one")
        if self.encoder:
            odd = next((name for name in self.mixers if not isinstance(self.mixers[name], Softmax)), None)
            if odd is not None:
                kind = self.mixers[odd].kind
                raise inconsistent(("mixers", odd), f"got {kind} with an encoder, expected softmax")
        for where, pattern in self._patterns():
            self._every_layer_mixes(where, pattern)
        self._experts_are_alike()
        self._keys_are_there()
        return self

    def _experts_are_alike(self) -> None:
        """Refuse MoE layers whose routed experts differ: what counts and simulates experts knows one kind."""
        moes = {name: ffn for name, ffn in self.ffns.items() if isinstance(ffn, Moe)}
        for name, ffn in moes.items():
            for key in ROUTED:
                here, expected = getattr(ffn, key), getattr(self.moe, key)
                if here != expected:
                    problem = (
                        f"got {here}, expected {expected} as in ffns.{next(iter(moes))}: one kind of routed experts"
                    )
                    raise inconsistent(("ffns", name, key), problem)

    def _keys_are_there(self) -> None:
        """Refuse a layer that reads the keys and values of an earlier layer where no earlier one has any."""
        for number, letter in enumerate(letters(self.pattern)):
            mixer = self.mixers.get(self.blocks[letter].mixer)
            if isinstance(mixer, Softmax) and mixer.own_kv:
                return
            if isinstance(mixer, Softmax):
                problem = f"block {number}, {letter!r}, has own_kv false, expected an earlier layer that has keys"
                raise inconsistent(("pattern",), problem)

    def _every_layer_mixes(self, where: tuple[str, ...], pattern: list[str]) -> None:
        """Refuse an FFN alone that follows an FFN: where mixers and FFNs alternate, a layer lost its mixer."""
        previous_mixes = False
        for number, letter in enumerate(letters(pattern)):
            block = self.blocks[letter]
            if block.mixer is None and not previous_mixes:
                problem = f"block {number}, {letter!r}, is an FFN without a mixer in it or before it, expected one"
                raise inconsistent(where, problem)
            previous_mixes = block.mixer is not None and block.ffn is None

    def _mixed(self, pattern: list[str]) -> list[tuple[str, str]]:
        return [(letter, self.blocks[letter].mixer) for letter in set(letters(pattern)) if self.blocks[letter].mixer]

    def _patterns(self) -> Iterator[tuple[tuple[str, ...], list[str]]]:
        yield ("pattern",), self.pattern
        if self.encoder:
            yield ("encoder", "pattern"), self.encoder.pattern
        if self.draft:
            yield ("draft", "pattern"), self.draft.pattern

    def layers(self) -> list[Block]:
        """Return the blocks of the decoder, layer by layer."""
        return [self.blocks[letter] for letter in letters(self.pattern)]

    def keeps_cache(self, mixer: str) -> bool:
        """Return whether a mixer keeps something of its tokens, rather than a state alone."""
        found = self.mixers[mixer]
        return found.own_kv if isinstance(found, Softmax) else isinstance(found, Latent | Compressed)

    @property
    def moe(self) -> Moe | None:
        """Return the experts of the model, which are alike in all its MoE layers; None of a dense model."""
        return next((ffn for ffn in self.ffns.values() if isinstance(ffn, Moe)), None)

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Return the numbers of the decoder's blocks that hold experts, counted from 0."""
        moe = {letter for letter, block in self.blocks.items() if block.ffn and self.ffns[block.ffn].kind == "moe"}
        return tuple(number for number, letter in enumerate(letters(self.pattern)) if letter in moe)


def with_top_k(arch: Architecture, top_k: int) -> Architecture:
    """Return the architecture with another number of experts per token, as a run that uses fewer has it."""
    ffns = {name: f.model_copy(update={"top_k": top_k}) if isinstance(f, Moe) else f for name, f in arch.ffns.items()}
    return arch.model_copy(update={"ffns": ffns})


def first_layers(arch: Architecture, count: int) -> Architecture:
    """Return the first `count` layers of the decoder, and of the encoder where there is one."""

    def cut(pattern: list[str]) -> list[str]:
        return ["".join(islice(letters(pattern), count))]

    kept: dict[str, Pattern | Encoder] = {"pattern": cut(arch.pattern)}
    if arch.encoder:
        kept["encoder"] = Encoder(pattern=cut(arch.encoder.pattern))
    return arch.model_copy(update=kept)
