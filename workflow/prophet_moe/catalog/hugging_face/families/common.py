"""What the config.json files of many families say alike, as parts of an architecture."""

from collections.abc import Sequence
from typing import Any

from prophet_moe.catalog.hugging_face.config import REQUIRED, Config, runs

Fields = dict[str, Any]


def sizes(config: Config, tied: Any = False) -> Fields:
    """Return what every decoder has; `tied` says what a file means that does not tell whether embeddings are tied."""
    older = config.has("model_max_length") and not config.has("max_position_embeddings")
    return {
        "hidden": config.size("hidden_size"),
        "vocab": config.size("vocab_size"),
        "native_context": config.size("model_max_length" if older else "max_position_embeddings"),
        "tied_embeddings": config.flag("tie_word_embeddings", default=tied),
    }


def decoder(config: Config, mixer: Fields, ffn: Fields, tied: Any = False, norms: int = 2) -> Fields:
    """Return a decoder whose layers are all alike."""
    letter = "M" if ffn["kind"] == "moe" else "D"
    return sizes(config, tied) | {
        "mixers": {"attention": mixer},
        "ffns": {ffn["kind"]: ffn},
        "blocks": {letter: {"mixer": "attention", "ffn": ffn["kind"], "norms": norms}},
        "pattern": runs(letter * config.size("num_hidden_layers")),
    }


def sparse_decoder(config: Config, mixer: Fields, moe: Fields, sparse: Sequence[bool], tied: bool = False) -> Fields:
    """Return a decoder with experts in the layers where `sparse`, and FFNs of `intermediate_size` in the others."""
    ffns = {"moe": moe}
    if not all(sparse):
        ffns["dense"] = dense(config)
    config.ignore("intermediate_size")
    return sizes(config, tied) | {
        "mixers": {"attention": mixer},
        "ffns": ffns,
        "blocks": {"M": {"mixer": "attention", "ffn": "moe"}, "D": {"mixer": "attention", "ffn": "dense"}},
        "pattern": runs(["M" if experts else "D" for experts in sparse]),
    }


def dense(config: Config, **more: Any) -> Fields:
    """Return a dense FFN of `intermediate_size`."""
    return {"kind": "dense", "ffn": config.size("intermediate_size")} | more


def grouped_attention(config: Config, multi_head: bool = False, wide: bool = False, **more: Any) -> Fields:
    """Return softmax attention of the usual field names, with what a family adds.

    With `multi_head`, a file that does not tell its KV heads means as many as query heads. With `wide`, heads have a
    width of their own, which a file must tell; otherwise they share `hidden_size` where it does not.
    """
    heads = config.size("num_attention_heads")
    return {
        "kind": "softmax",
        "heads": heads,
        "kv_heads": config.size("num_key_value_heads", default=heads if multi_head else REQUIRED),
        "head_dim": config.size("head_dim") if wide else head_dim(config, heads),
    } | more


def head_dim(config: Config, heads: int) -> int:
    """Return the width of a head: its own field, or its share of `hidden_size`."""
    given = config.size("head_dim", "attention_head_dim", default=None)
    if given is None and config.size("hidden_size") % heads:
        config.refuse("head_dim", f"is missing, and {heads} heads cannot share hidden_size, expected a value")
    return given or config.size("hidden_size") // heads


def bias(config: Config, kind: str = "qkvo", *names: str, default: Any = False) -> str:
    """Return the biases of attention's projections: those of `kind` where the flag of the file is set."""
    return kind if config.flag(*(names or ("attention_bias",)), default=default) else "none"


def norms_per_head(config: Config, default: Any = REQUIRED) -> str:
    """Return the norms of queries and keys: one of a head's width each where `use_qk_norm` is set."""
    return "per_head" if config.flag("use_qk_norm", default=default) else "none"


def moe_ffn(
    config: Config,
    count: str | Sequence[str] | int = "num_experts",
    top_k: str | Sequence[str] | int = "num_experts_per_tok",
    ffn: str | Sequence[str] | int = "moe_intermediate_size",
    **more: Any,
) -> Fields:
    """Return an FFN of routed experts, with what a family adds: numbers, or the names of the fields that hold them."""
    numbers = {"experts": count, "top_k": top_k, "ffn": ffn}
    return {"kind": "moe"} | {key: _size(config, given) for key, given in numbers.items()} | more


def _size(config: Config, given: str | Sequence[str] | int) -> int:
    if isinstance(given, int):
        return given
    return config.size(*([given] if isinstance(given, str) else given))


def shared_experts(count: int, width: int) -> Fields:
    """Return the fields of shared experts of one width together; none where there are none."""
    return {"shared_experts": count, "shared_ffn": width} if count and width else {}


def shared_count(config: Config, *names: str) -> int:
    """Return the number of shared experts; a file without any says 0 or null, since classes suppose one or more."""
    if not any(name in config.fields for name in names):
        config.refuse(names[0], "is missing, expected the number of shared experts, or null for none")
    return config.count(*names, default=0)


def after_dense_layers(config: Config) -> list[bool]:
    """Return which layers hold experts: of those after the first `first_k_dense_replace`, every `moe_layer_freq`th."""
    layers = config.size("num_hidden_layers")
    first = config.count("first_k_dense_replace")
    every = config.size("moe_layer_freq", default=1)
    if first > layers:
        config.refuse("first_k_dense_replace", f"got {first}, expected at most num_hidden_layers, {layers}")
    return [layer >= first and layer % every == 0 for layer in range(layers)]


def sparse_layers(config: Config) -> list[bool]:
    """Return which layers hold experts: by `mlp_layer_types`, or all after the first `first_k_dense_replace`."""
    kinds = config.items("mlp_layer_types", length=config.size("num_hidden_layers"), default=None)
    if kinds is None:
        return after_dense_layers(config)
    for kind in kinds:
        if kind not in ("dense", "sparse"):
            config.refuse("mlp_layer_types", f"holds {kind!r}, expected dense or sparse")
    sparse = [kind == "sparse" for kind in kinds]
    if config.has("first_k_dense_replace") and sparse != after_dense_layers(config):
        config.refuse("mlp_layer_types", "contradicts first_k_dense_replace, expected as many dense layers first")
    return sparse


def window(config: Config) -> Fields:
    """Return the window of all layers; none where `sliding_window` is null, or no shorter than the context."""
    tokens = config.size("sliding_window", default=None)
    if tokens is None or tokens >= config.size("max_position_embeddings"):
        return {}
    return {"window": tokens}


def refuse_windows(config: Config) -> None:
    """Refuse a file whose layers differ in the tokens they attend to; `sliding_window` has no effect without them."""
    config.only("use_sliding_window", False, default=False)
    config.ignore("sliding_window", "max_window_layers")
    refuse_other_layers(config, "full_attention")


def refuse_other_layers(config: Config, kind: str) -> None:
    """Refuse `layer_types` that are not all of one kind."""
    for given in config.items("layer_types", length=config.size("num_hidden_layers"), default=[]):
        if given != kind:
            config.refuse("layer_types", f"holds {given!r}, expected {kind} in every layer of this model_type")
