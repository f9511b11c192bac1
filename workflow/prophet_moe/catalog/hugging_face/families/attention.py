"""Families with softmax attention over all tokens: Mixtral, Qwen3, OLMoE, GLM-4.5, MiniMax-M2 and others."""

from collections.abc import Callable, Mapping
from typing import Any

from prophet_moe.catalog.hugging_face.config import Config, runs


def qwen3_moe(config: Config) -> dict[str, Any]:
    """Qwen3-MoE: experts in every layer, or in some by `decoder_sparse_step` and `mlp_only_layers`."""
    layers = config.size("num_hidden_layers")
    step, dense_only = config.size("decoder_sparse_step", default=1), config.items("mlp_only_layers", default=[])
    config.only("use_sliding_window", False, default=False)
    config.ignore("sliding_window")
    sparse = [layer not in dense_only and (layer + 1) % step == 0 for layer in range(layers)]
    heads, hidden = config.size("num_attention_heads"), config.size("hidden_size")
    mixer = {
        "kind": "softmax",
        "heads": heads,
        "kv_heads": config.size("num_key_value_heads", default=heads),
        "head_dim": config.size("head_dim", default=hidden // heads),
        "bias": "qkvo" if config.flag("attention_bias", default=False) else "none",
        "qk_norm": "per_head",
    }
    moe = {
        "kind": "moe",
        "experts": config.size("num_experts", "num_local_experts"),
        "top_k": config.size("num_experts_per_tok"),
        "ffn": config.size("moe_intermediate_size"),
    }
    dense = {"kind": "dense", "ffn": config.size("intermediate_size")}
    return {
        "hidden": hidden,
        "vocab": config.size("vocab_size"),
        "native_context": config.size("max_position_embeddings"),
        "tied_embeddings": config.flag("tie_word_embeddings", default=False),
        "mixers": {"attention": mixer},
        "ffns": {"moe": moe} | ({} if all(sparse) else {"dense": dense}),
        "blocks": {"M": {"mixer": "attention", "ffn": "moe"}, "D": {"mixer": "attention", "ffn": "dense"}},
        "pattern": runs(["M" if experts else "D" for experts in sparse]),
    }


FAMILIES: Mapping[str, Callable[[Config], dict[str, Any]]] = {"qwen3_moe": qwen3_moe}
