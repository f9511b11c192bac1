"""The matrices of a model by the names that checkpoints give them, and lists of such names as quantisers write them."""

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate
from typing import Any, NamedTuple

from prophet_moe.catalog.architecture import (
    Architecture,
    Compressed,
    Dense,
    Ffn,
    GatedDeltaNet,
    KimiDelta,
    Latent,
    Lightning,
    Mamba1,
    Mamba2,
    Mixer,
    Moe,
    ShortConv,
    Softmax,
)
from prophet_moe.catalog.hugging_face.config import Config
from prophet_moe.validation import shortened

PREFIXES = ("model.", "model.language_model.", "language_model.model.", "backbone.", "")
"""What checkpoints write before `layers`."""
HOLDERS = {
    "attention": ("self_attn", "attn", "attention", "mixer"),
    "state_mixer": ("linear_attn", "self_attn", "attention", "mamba", "mixer", "conv", "short_conv"),
    "dense_ffn": ("mlp", "feed_forward", "ffn", "mixer", "mlps.0", "mlps.1", "residual_mlp"),
    "shared_experts": tuple(
        f"{ffn}{shared}"
        for ffn in ("mlp.", "block_sparse_moe.", "feed_forward.", "ffn.", "mixer.", "moe.", "")
        for shared in ("shared_experts", "shared_expert", "share_expert", "shared_mlp")
    ),
    "routed_experts": tuple(f"{ffn}.experts.0" for ffn in ("mlp", "block_sparse_moe", "feed_forward", "ffn", "mixer"))
    + tuple(f"{ffn}.experts" for ffn in ("mlp", "block_sparse_moe", "feed_forward", "moe"))
    + ("moe",),
}
"""Where the matrices of a component are inside a layer."""
BESIDE = ("experts.0", "experts", "moe.experts")
"""Where routed experts are that have a dense FFN under `mlp` beside them (Gemma 4)."""
HARMLESS = re.compile(
    r"lm_head|output|\w*embed\w*|\w*norm\w*|router\w*|gate|\w+_gate|\w*bias|conv1d|A_log|D|dt_\w+|rotary\w*|"
    r"indexers?_proj|weights_proj|in_proj_(ba|a|b)|eh_proj|sinks|\w*_scale"
)
"""Last words of modules that no format touches: norms, routers, biases, gates of a few numbers, the embeddings."""
LEFT_OUT = re.compile(
    r"vision|visual|audio|projector|patch_merge|multi_modal|mm_|mtp|nextn|talker|code2wav|img|image|decoder"
)
"""Words of modules that are no part of the language model."""
SAFE_PATTERN = re.compile(
    r"(?:[\w\-/:]|\\[.d]|\.\*|\.\+|\.|\^|\$|\\d\+|\[0-9\]\+?|\((?:\?:)?[\w.\\]+(?:\|[\w.\\]+)*\)|\[(?:0-\d|\d-9|\d)+\])*"
)
"""Regular expressions that are tried in time: words, alternatives and a few gaps, nothing repeated."""
MOST_GAPS = 6
"""Upper limit of the gaps (`.*`) of a name."""


COMPRESSED = (
    "wq_a|q_a_proj|fused_wqa_wkv",
    "wq_b|q_b_proj",
    "wkv|kv_proj|fused_wqa_wkv",
    "wo_a|o_a_proj",
    "wo_b|o_b_proj",
)
"""Matrices of DeepSeek-V4's attention."""
LATENT = ("fc1_latent_proj|routed_expert_down_proj", "fc2_latent_proj|routed_expert_up_proj")
"""Projections to the width of experts and back, of Nemotron-3-Super and Kimi-K3."""


class Part(NamedTuple):
    """One matrix of one layer, or equal ones, such as those of all experts."""

    component: str
    names: tuple[str, ...]
    """Names that families give it, without what stands before `layers`."""


HEAD = Part("output_embedding", ("lm_head", "model.lm_head", "language_model.lm_head"))
"""The output embedding."""


def parts(arch: Architecture) -> Iterator[Part]:
    """Yield the matrices of the decoder that a quantiser can convert, layer by layer."""
    for number, block in enumerate(arch.layers()):
        inside = [*_mixer(arch.mixers[block.mixer])] if block.mixer else []
        inside += _ffn(arch.ffns[block.ffn]) if block.ffn else []
        for component, names in inside:
            yield Part(component, tuple(f"layers.{number}.{name}" for name in names))


def _at(component: str, *matrices: str, holders: Sequence[str] | None = None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each matrix, given by its names with bars between them, at all places of its component."""
    for matrix in matrices:
        places = holders or HOLDERS[component]
        yield component, tuple(f"{place}.{name}" for place in places for name in matrix.split("|"))


def _output(names: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from _at("attention_output", names, holders=HOLDERS["attention"])


def _mixer(mixer: Mixer) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the matrices of a mixer: their component and their names inside the layer."""
    match mixer:
        case Softmax():
            yield from _at("attention", "q_proj|qkv_proj")
            yield from _output("o_proj|out_proj|dense")
            if mixer.own_kv:
                yield from _at("attention", "k_proj|qkv_proj")
            if mixer.own_kv and not mixer.key_is_value:
                yield from _at("attention", "v_proj|qkv_proj")
            if mixer.query_rank:
                yield from _at("attention", "wq")
            if mixer.indexer:
                names = ("index_q_proj|indexer.q_proj", "index_k_proj|indexer.k_proj")
                yield from _at("indexer", *names, holders=HOLDERS["attention"])
        case Latent():
            names = ("q_proj",) if mixer.q_lora_rank is None else ("q_a_proj|fused_qkv_a_proj_with_mqa", "q_b_proj")
            yield from _at("attention", *names, "kv_a_proj_with_mqa|kv_a_proj|fused_qkv_a_proj_with_mqa")
            yield from _at("attention", "kv_b_proj")
            yield from _output("o_proj|dense")
            if mixer.indexer:
                yield from _at("indexer", "indexer.wq_b", "indexer.wk", holders=HOLDERS["attention"])
        case Compressed():
            yield from _at("attention", *COMPRESSED)
            if mixer.indexer:
                yield from _at("indexer", "indexer.wq_b|indexer.q_b_proj", holders=HOLDERS["attention"])
        case Mamba1():
            yield from _at("state_mixer", "in_proj", "out_proj", "x_proj", "dt_proj")
        case Mamba2():
            yield from _at("state_mixer", "in_proj", "out_proj")
        case GatedDeltaNet():
            yield from _at("state_mixer", "in_proj_qkvz|in_proj_qkv", "in_proj_qkvz|in_proj_z", "out_proj")
        case KimiDelta():
            yield from _at("state_mixer", "q_proj", "k_proj", "v_proj", "o_proj")
        case Lightning():
            yield from _at("state_mixer", "qkv_proj|query_key_value|q_proj", "out_proj|dense|o_proj")
        case ShortConv():
            yield from _at("state_mixer", "in_proj", "out_proj")
    if getattr(mixer, "gate", "none") != "none":
        yield from _at("attention", "g_proj|gate_proj|q_proj")


def _ffn(ffn: Ffn) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the matrices of an FFN: their component and their names inside the layer."""
    gate = ("gate_proj|w1|gate_up_proj",) if ffn.gated else ()
    matrices = (*gate, "up_proj|w3|gate_up_proj", "down_proj|w2")
    match ffn:
        case Dense():
            yield from _at("dense_ffn", *matrices)
        case Moe():
            yield from _at("routed_experts", *matrices, holders=BESIDE if ffn.router_scales else None)
            if ffn.shared_experts:
                yield from _at("shared_experts", *matrices)
            if ffn.dense_beside:
                yield from _at("dense_ffn", *matrices)
            if ffn.latent:
                yield from _at("latent_projections", *LATENT, holders=("mixer", "mlp", "block_sparse_moe"))


class Names:
    """A list of modules as a quantiser writes it: names, with gaps (`*`), or regular expressions (`re:`).

    A name covers the module and all inside it. A name without `layers` covers whatever has its words in a row.
    """

    def __init__(
        self, entries: Sequence[Any], where: Config, field: str, layers: int | None, strict: bool = True
    ) -> None:
        """Keep the entries of a field; with `strict`, each must be a module of the model, or one that is left out."""
        self.exact: set[str] = set()
        self.of_layer: dict[str, list[re.Pattern]] = {}
        self.words: list[str] = []
        self.patterns: list[re.Pattern] = []
        for entry in dict.fromkeys(map(str, entries)):
            if entry.startswith("re:"):
                self._keep_pattern(entry[3:], where, field)
            elif not LEFT_OUT.search(entry):
                self._keep_name(entry, where, field)
            if strict and not _known(entry, layers):
                where.refuse(field, f"names {shortened(repr(entry))}, which is no module that is known")

    def _keep_pattern(self, text: str, where: Config, field: str) -> None:
        if not SAFE_PATTERN.fullmatch(text) or text.count(".*") + text.count(".+") > MOST_GAPS:
            where.refuse(field, f"got the pattern {shortened(repr(text))}, which is not understood")
        self.patterns.append(re.compile(text))

    def _keep_name(self, entry: str, where: Config, field: str) -> None:
        if entry.count("*") > MOST_GAPS:
            where.refuse(field, f"got {shortened(repr(entry))}, expected at most {MOST_GAPS} gaps")
        start = entry.find("layers.")
        text = entry[start:].removesuffix(".weight") if start >= 0 else entry
        if "*" not in text:
            if start >= 0:
                self.exact.add(text)
            else:
                self.words.append(f".{text}.")
            return
        inside = re.compile(f"{translate(text)}|{translate(text + '.*')}")
        number = re.match(r"layers\.(\d+)\.", text)
        if number:
            self.of_layer.setdefault(number[1], []).append(inside)
        elif start >= 0:
            self.of_layer.setdefault("", []).append(inside)
        else:
            self.patterns.append(inside)

    def cover(self, part: Part) -> bool:
        """Return whether a part is in the list, by any of its names."""
        return any(self._covers(name) for name in part.names)

    def _covers(self, name: str) -> bool:
        pieces = name.split(".")
        if self.exact and any(".".join(pieces[:end]) in self.exact for end in range(2, len(pieces) + 1)):
            return True
        if any(words in f".{name}." for words in self.words):
            return True
        number = pieces[1] if len(pieces) > 1 else ""
        if any(each.match(name) for key in ("", number) for each in self.of_layer.get(key, ())):
            return True
        return any(each.match(prefix + name) for each in self.patterns for prefix in PREFIXES)


MATRICES = """
    q_proj k_proj v_proj o_proj qkv_proj out_proj dense wq g_proj gate_proj up_proj down_proj gate_up_proj w1 w2 w3
    q_a_proj q_b_proj kv_a_proj_with_mqa kv_a_proj kv_b_proj fused_qkv_a_proj_with_mqa indexer index_q_proj index_k_proj
    wq_a wq_b wkv fused_wqa_wkv wk wo_a wo_b kv_proj o_a_proj o_b_proj in_proj x_proj dt_proj in_proj_qkvz in_proj_qkv
    in_proj_z query_key_value fc1_latent_proj fc2_latent_proj
    routed_expert_down_proj routed_expert_up_proj layers model language_model backbone
"""
PLACES = ".".join(place for places in (*HOLDERS.values(), BESIDE) for place in places)
WORDS = frozenset(MATRICES.split()) | frozenset(PLACES.split("."))
"""Words of the names of modules that are looked up."""


def _known(entry: str, layers: int | None) -> bool:
    """Return whether an entry names modules that are looked up, or such that no format touches."""
    text = re.sub(r"^re:|[\^$]", "", entry).replace("\\", "")
    if LEFT_OUT.search(text):
        return True
    number = re.search(r"layers\.(\d+)(\.|$|\*)", text)
    if number and layers is not None and int(number[1]) >= layers:
        return True  # a draft layer
    if choice := re.search(r"\(\??:?([^()]+)\)", text):
        return all(_known(text[: choice.start()] + one + text[choice.end() :], layers) for one in choice[1].split("|"))
    words = [word for word in re.split(r"[^\w]+", text) if word and not word.isdecimal() and word != "d"]
    if not words:
        return False
    return bool(HARMLESS.fullmatch(words[-1])) or all(word in WORDS for word in words)
