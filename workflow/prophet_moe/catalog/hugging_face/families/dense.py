"""Dense families: Llama, Mistral, Qwen2, Qwen3, Phi-3 and others. Their memory is answered for all the same."""

from collections.abc import Callable, Mapping

from prophet_moe.catalog.hugging_face.config import Config
from prophet_moe.catalog.hugging_face.families.common import (
    Fields,
    bias,
    decoder,
    dense,
    grouped_attention,
    refuse_windows,
    window,
)


def llama(config: Config) -> Fields:
    """Llama 1 to 3, the many checkpoints that took its name, and Granite, which scales what Llama does."""
    mixer = grouped_attention(config, multi_head=True, bias=bias(config))
    return decoder(config, mixer, dense(config, bias=config.flag("mlp_bias", default=False)))


def mistral(config: Config) -> Fields:
    """Mistral: a window in its first version, none since; a file has to tell, since the class supposes a window."""
    if "sliding_window" not in config.fields:
        config.refuse("sliding_window", "is missing, expected the tokens of the window, or null")
    return decoder(config, grouped_attention(config, **window(config)), dense(config))


def qwen2(config: Config) -> Fields:
    """Qwen1.5 to Qwen2.5, which always have biases of queries, keys and values, and MiMo-7B."""
    refuse_windows(config)
    config.only("attention_bias", True, default=True)
    config.ignore("use_mrope")
    config.ignore("dual_chunk_attention_config")
    return decoder(config, grouped_attention(config, multi_head=True, bias="qkv"), dense(config))


def qwen3(config: Config) -> Fields:
    """Qwen3: norms of queries and keys, and heads of their own width."""
    refuse_windows(config)
    return decoder(config, grouped_attention(config, wide=True, bias=bias(config), qk_norm="per_head"), dense(config))


def phi3(config: Config) -> Fields:
    """Phi-3 and Phi-4-mini, with a window in some sizes."""
    config.only("attention_bias", False, default=False)
    config.ignore("embd_layer", "interpolate_factor", "full_attn_mod")
    config.only("lm_head_bias", False, default=False)
    return decoder(config, grouped_attention(config, multi_head=True, **window(config)), dense(config))


def olmo2(config: Config) -> Fields:
    """OLMo-2: one norm over all heads of queries, one over all of keys."""
    mixer = grouped_attention(config, multi_head=True, bias=bias(config), qk_norm="full_width")
    return decoder(config, mixer, dense(config))


def gemma(config: Config) -> Fields:
    """Gemma 1: tied embeddings, heads of their own width."""
    config.ignore("use_bidirectional_attention")
    return decoder(config, grouped_attention(config, wide=True, bias=bias(config)), dense(config), tied=True)


def seed_oss(config: Config) -> Fields:
    """Seed-OSS: biases of queries, keys and values."""
    config.only("attention_out_bias", False, default=False)
    config.only("mlp_bias", False, default=False)
    config.ignore("residual_dropout")
    return decoder(config, grouped_attention(config, wide=True, bias=bias(config, "qkv", default=True)), dense(config))


def smollm3(config: Config) -> Fields:
    """SmolLM3: some of its layers have no rotary position, which changes no byte."""
    refuse_windows(config)
    config.ignore("no_rope_layers", "no_rope_layer_interval")
    mixer = grouped_attention(config, bias=bias(config))
    return decoder(config, mixer, dense(config, bias=config.flag("mlp_bias", default=False)), tied=True)


FAMILIES: Mapping[str, Callable[[Config], Fields]] = {
    "gemma": gemma,
    "granite": llama,
    "llama": llama,
    "mimo": qwen2,
    "mistral": mistral,
    "olmo2": olmo2,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3_vl_text": qwen3,
    "seed_oss": seed_oss,
    "smollm3": smollm3,
}
"""Readers by `model_type`."""
