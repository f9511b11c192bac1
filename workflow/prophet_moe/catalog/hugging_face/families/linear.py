"""Families with linear attention, Mamba or short convolutions in some layers: Qwen3-Next, Nemotron-3 and others."""

from collections.abc import Callable, Mapping
from functools import partial

from prophet_moe.catalog.hugging_face.config import Config, runs
from prophet_moe.catalog.hugging_face.families.common import (
    Fields,
    bias,
    grouped_attention,
    moe_ffn,
    shared_experts,
    sizes,
)
from prophet_moe.catalog.hugging_face.families.latent import (
    dense_ffn,
    experts,
    latent_mixer,
    layer_kinds,
    routed_experts,
    sparse_layers,
)
from prophet_moe.validation import shortened

LINEAR, FULL = "linear_attention", "full_attention"
"""Kinds of layers as Transformers lists them."""


def periodic_layers(config: Config, layers: int, period: str) -> list[bool]:
    """Return which layers attend to all tokens: as `layer_types` lists them, or the last one of every period."""
    every = config.size(period, default=None)
    counted = None if every is None else [(layer + 1) % every == 0 for layer in range(layers)]
    if not config.has("layer_types"):
        return counted if counted is not None else [config.size(period)]
    listed = [kind == FULL for kind in layer_kinds(config, "layer_types", layers, (LINEAR, FULL))]
    if counted not in (None, listed):
        config.refuse("layer_types", f"contradicts {period}, expected the same layers")
    return listed


def mixed_blocks(full: list[bool], sparse: list[bool]) -> Fields:
    """Return blocks and pattern of layers that mix with `linear` or `full` and have a dense FFN or experts."""
    letters = {(False, True): "L", (True, True): "F", (False, False): "l", (True, False): "f"}
    return {
        "blocks": {
            letter: {"mixer": "full" if attends else "linear", "ffn": "moe" if moe else "dense"}
            for (attends, moe), letter in letters.items()
        },
        "pattern": runs([letters[pair] for pair in zip(full, sparse, strict=True)]),
    }


def qwen3_next(config: Config, has_experts: bool = True) -> Fields:
    """Qwen3-Next and Qwen3.5: gated DeltaNet, and in every fourth layer attention with a gate in its query matrix."""
    layers = config.size("num_hidden_layers")
    config.only("use_sliding_window", False, default=False)
    config.only("attn_output_gate", True, default=True)
    config.only("output_gate_type", "swish", "silu", "sigmoid", default=None)
    config.only("mamba_ssm_dtype", "float32", default="float32")
    config.ignore("mtp_use_dedicated_embeddings")  # of the draft layers, which are left out
    full = grouped_attention(config, wide=True, qk_norm="per_head", gate="full", bias=bias(config))
    linear = {
        "kind": "gated_delta_net",
        "key_heads": config.size("linear_num_key_heads"),
        "value_heads": config.size("linear_num_value_heads"),
        "key_dim": config.size("linear_key_head_dim"),
        "value_dim": config.size("linear_value_head_dim"),
        "conv": config.size("linear_conv_kernel_dim"),
    }
    sparse = _stepped(config, layers) if has_experts else [False] * layers
    if not has_experts:
        config.only("mlp_only_layers", [], default=[])
    return sizes(config) | {
        "mixers": {"linear": linear, "full": full},
        "ffns": _qwen_ffns(config, sparse),
        **mixed_blocks(periodic_layers(config, layers, "full_attention_interval"), sparse),
    }


def _stepped(config: Config, layers: int) -> list[bool]:
    """Return which layers hold experts: every `decoder_sparse_step`-th that `mlp_only_layers` does not name."""
    step, dense = config.size("decoder_sparse_step", default=1), config.items("mlp_only_layers", default=[])
    return [layer not in dense and (layer + 1) % step == 0 for layer in range(layers)]


def _qwen_ffns(config: Config, sparse: list[bool]) -> Fields:
    ffns = {}
    if any(sparse):
        shared = config.count("shared_expert_intermediate_size")
        gated = {"shared_gate": True} if shared else {}
        ffns["moe"] = routed_experts(config) | shared_experts(1, shared) | gated
    if all(sparse):
        config.ignore("intermediate_size")  # of dense layers, which the model does not have
    else:
        ffns["dense"] = dense_ffn(config)
    return ffns


HEAD_DIM = ("head_dim", "attention_head_dim")
"""Names of the width of Nemotron-H's heads, which is not their share of the stream."""
HYBRID_LETTERS = {"mamba": "M", LINEAR: "M", "moe": "E", "attention": "*", FULL: "*", "mlp": "-"}
"""Letters of Nemotron-H's layers by the names that Transformers has for them."""


def nemotron_h(config: Config) -> Fields:
    """Nemotron-H and Nemotron-3: Mamba-2, attention, experts and dense FFNs, each a layer of its own."""
    for name in ("attention_bias", "mlp_bias", "mamba_proj_bias"):
        config.only(name, False, default=False)
    config.only("mamba_ssm_cache_dtype", "float32", default="float32")
    config.only("sliding_window", default=None)
    config.only("mlp_hidden_act", "relu2", default="relu2")
    config.ignore("expand", "mamba_expand")  # channels are heads x width of a head
    config.ignore("chunk_size", "mamba_chunk_size", "mamba_hidden_act", "use_mamba_kernels", "num_logits_to_keep")
    config.ignore("residual_in_fp32", "rescale_prenorm_residual", "moe_shared_expert_overlap", "time_step_rank")
    config.ignore("mtp_hybrid_override_pattern", "mtp_layers_block_type")  # draft layers, which are left out
    for name in ("min", "max", "limit", "floor"):
        config.ignore(f"time_step_{name}", f"mamba_dt_{name}", f"mamba_dt_init_{name}")
    pattern = _hybrid_pattern(config)
    mamba = {
        "kind": "mamba2",
        "heads": config.size("mamba_num_heads"),
        "head_dim": config.size("mamba_head_dim"),
        "groups": config.size("n_groups", "mamba_n_groups"),
        "state": config.size("ssm_state_size", "mamba_d_state"),
        "conv": config.size("conv_kernel", "mamba_d_conv"),
        "conv_bias": config.flag("use_conv_bias", "mamba_conv_bias"),
        "bias": config.flag("use_bias", default=False),
    }
    return sizes(config) | {
        "mixers": {"mamba": mamba, "attention": grouped_attention(config) | {"head_dim": config.size(*HEAD_DIM)}},
        "ffns": _hybrid_ffns(config, pattern),
        "blocks": {
            "M": {"mixer": "mamba", "norms": 1},
            "*": {"mixer": "attention", "norms": 1},
            "E": {"ffn": "moe", "norms": 1},
            "-": {"ffn": "dense", "norms": 1},
        },
        "pattern": runs(pattern),
    }


def _hybrid_pattern(config: Config) -> str:
    """Return the letters of the layers, from the published pattern or from the list that Transformers makes of it."""
    patterns = {}
    if config.has("hybrid_override_pattern"):
        pattern = config.get("hybrid_override_pattern")
        if not isinstance(pattern, str):
            config.refuse("hybrid_override_pattern", f"got {shortened(repr(pattern))}, expected letters M, E, * and -")
        unknown = next((letter for letter in pattern if letter not in "ME*-"), None)
        if unknown is not None:
            config.refuse("hybrid_override_pattern", f"got the letter {unknown!r}, expected M, E, * or -")
        patterns["hybrid_override_pattern"] = pattern
    for name in ("layers_block_type", "layer_types"):
        if config.has(name):
            kinds = layer_kinds(config, name, len(config.items(name)), tuple(HYBRID_LETTERS))
            patterns[name] = "".join(HYBRID_LETTERS[kind] for kind in kinds)
    if not patterns:
        config.get("hybrid_override_pattern")
    (first, pattern), *others = patterns.items()
    for name, other in others:
        if other != pattern:
            config.refuse(name, f"contradicts {first}, expected the same layers")
    if config.size("num_hidden_layers", default=len(pattern)) != len(pattern):
        config.refuse(first, f"has {len(pattern)} layers, expected num_hidden_layers")
    return pattern


def _hybrid_ffns(config: Config, pattern: str) -> Fields:
    """Return the plain FFNs; the shared expert has a width of its own, and routed ones may act on a narrower stream."""
    ffns: Fields = {}
    if "-" in pattern:
        ffns["dense"] = {"kind": "dense", "ffn": config.size("intermediate_size"), "gated": False}
    else:
        config.ignore("intermediate_size")
    if "E" in pattern:
        config.only("n_shared_experts", 1)
        shared = config.size("moe_shared_expert_intermediate_size")
        moe = experts(config) | {"shared_ffn": shared, "gated": False}
        ffns["moe"] = moe | {"latent": config.size("moe_latent_size", default=None)}
    else:
        names = ("n_routed_experts", "n_shared_experts", "moe_intermediate_size", "num_experts_per_tok")
        config.ignore(*names, "moe_shared_expert_intermediate_size", "moe_latent_size")
    return ffns


def kimi_linear(config: Config) -> Fields:
    """Kimi-Linear and Kimi-K3: Kimi delta attention, and latent attention in some layers, which its lists count from 1.

    In K3 queries, keys and values of all layers have gates, experts act on a narrower stream, and attention also reads
    from the outputs of earlier layers.
    """
    layers = config.size("num_hidden_layers")
    config.ignore("mla_use_nope", "use_grouped_topk", "top_k")  # rotary positions, groups; of generation
    config.ignore("attn_res_block_size", "activation_situ_beta", "activation_situ_linear_beta")
    full, linear = _kimi_layers(config, layers)
    latent, sparse = config.size("routed_expert_hidden_size", default=None), sparse_layers(config)
    gate = "full" if config.flag("mla_use_output_gate", default=False) else "none"
    narrow = {"latent": latent, "latent_norm": config.flag("latent_moe_use_norm", default=False)} if latent else {}
    return sizes(config) | {
        "attention_residuals": config.has("attn_res_block_size"),
        "mixers": {"linear": linear, "full": latent_mixer(config, gate=gate)},
        "ffns": {"moe": experts(config) | narrow, "dense": dense_ffn(config)},
        **mixed_blocks(full, sparse),
    }


def _kimi_layers(config: Config, layers: int) -> tuple[list[bool], Fields]:
    """Return which layers have latent attention, and the delta attention of the others."""
    listed = None
    if config.has("layer_types"):
        listed = [kind == FULL for kind in layer_kinds(config, "layer_types", layers, (LINEAR, FULL))]
    if not config.has("linear_attn_config"):
        if listed is None:
            config.get("linear_attn_config")
        heads, width = config.size("linear_num_heads"), config.size("linear_head_dim")
        return listed, _delta(heads, width, config.size("linear_conv_kernel_dim"), gate_rank=width)
    inner = config.below("linear_attn_config")
    attending, linear = inner.items("full_attn_layers"), inner.items("kda_layers")
    if sorted(map(str, attending + linear)) != sorted(map(str, range(1, layers + 1))):
        inner.refuse("kda_layers", f"and full_attn_layers name other layers than 1 to {layers}, each of them once")
    full = [layer + 1 in attending for layer in range(layers)]
    if listed not in (None, full):
        config.refuse("layer_types", "contradicts linear_attn_config, expected the same layers")
    inner.ignore("gate_lower_bound", "safe_gate")
    heads, width = inner.size("num_heads"), inner.size("head_dim")
    delta = _delta(heads, width, inner.size("short_conv_kernel_size"), gate_rank=width)
    delta["full_output_gate"] = inner.flag("use_full_rank_gate", default=False)
    inner.refuse_unread()
    flat = heads, width, delta["conv"]
    names = "linear_num_heads", "linear_head_dim", "linear_conv_kernel_dim"
    for name, value in zip(names, flat, strict=True):
        if config.size(name, default=value) != value:
            config.refuse(name, f"contradicts linear_attn_config, {value}")
    return full, delta


def _delta(heads: int, head_dim: int, conv: int, gate_rank: int | None) -> Fields:
    return {"kind": "kimi_delta", "heads": heads, "head_dim": head_dim, "conv": conv, "gate_rank": gate_rank}


DELTA_MARKS = ("kda_safe_gate", "kda_lower_bound", "no_kda_lora", "short_conv_kernel_size")
"""Fields that only Ling-3.0 has, whose linear layers are Kimi delta attention rather than lightning attention."""


def bailing(config: Config) -> Fields:
    """Ling-3.0, Ling-2.5, Ling-2.6 and Ring-linear: linear attention, and in the last layer of a group another one.

    Ling-3.0 and Ling-2.5 have the same model_type and linear attention of two kinds.
    """
    layers = config.size("num_hidden_layers")
    for name in ("use_bias", "use_qkv_bias", "use_nGPT", "value_norm", "up_proj_norm", "scale_router_input"):
        config.only(name, False, default=False)
    config.only("num_kv_heads_for_linear_attn", 0, default=0)
    config.only("use_rmsnorm", True, default=True)
    config.ignore("linear_silu", "linear_rope", "use_linear_silu", "use_mla_nope", "moe_router_enable_expert_bias")
    config.ignore("embedding_dropout", "output_dropout", "mtp_use_kda")
    config.ignore("expert_swiglu_limit_list", "share_expert_swiglu_limit_list")
    full = periodic_layers(config, layers, "layer_group_size")
    if not full[-1]:
        config.refuse(
            "layer_group_size", f"does not divide num_hidden_layers, {layers}: sources read the rest two ways"
        )
    linear = _ling_delta(config) if config.has(*DELTA_MARKS) else _ling_lightning(config)
    shared = config.size("moe_shared_expert_intermediate_size", default=None)
    return sizes(config) | {
        "mixers": {"linear": linear, "full": _ling_attention(config)},
        "ffns": {"moe": experts(config, shared), "dense": dense_ffn(config)},
        **mixed_blocks(full, sparse_layers(config)),
    }


def _ling_delta(config: Config) -> Fields:
    """Return Kimi delta attention as in Ling-3.0, whose gates are projected at once."""
    config.only("no_kda_lora", True, default=True)
    config.only("use_kda_lora", False, default=False)
    config.only("group_norm_size", 1, default=1)
    config.only("use_qk_norm", True, default=True)
    config.ignore("kda_safe_gate", "kda_lower_bound")
    own = "linear_head_dim" if config.has("linear_head_dim") else "head_dim"  # Transformers writes another head_dim
    heads = config.size("linear_num_heads", default=config.size("num_attention_heads"))
    return _delta(heads, config.size(own), config.size("short_conv_kernel_size", "linear_conv_kernel_dim"), None)


def _ling_lightning(config: Config) -> Fields:
    """Return lightning attention, whose output's norm has groups and one weight per value."""
    heads, hidden = config.size("num_attention_heads"), config.size("hidden_size")
    width = config.size("head_dim", default=hidden // heads)
    if width != hidden // heads:
        config.refuse("head_dim", "is not hidden_size / num_attention_heads: the width of linear layers is not known")
    config.size("group_norm_size")
    norm = "per_head" if config.flag("use_qk_norm") else "none"
    return {"kind": "lightning", "heads": heads, "head_dim": width, "qk_norm": norm}


def _ling_attention(config: Config) -> Fields:
    """Return the attention of the last layer of a group: latent with a gate per head, latent, or softmax."""
    if config.has("kv_lora_rank"):
        gated = config.has(*DELTA_MARKS)
        if gated:
            config.only("gated_attention_proj_granularity_type", "head_wise", default="head_wise")
        return latent_mixer(config, gate="per_head" if gated else "none")
    return grouped_attention(config, qk_norm="per_head" if config.flag("use_qk_norm") else "none")


def minimax(config: Config) -> Fields:
    """MiniMax-Text-01 and MiniMax-M1: lightning attention, and softmax attention where `attn_type_list` has a 1."""
    layers, heads = config.size("num_hidden_layers"), config.size("num_attention_heads")
    config.only("sliding_window", default=None)
    config.only("attention_bias", False, default=False)
    config.only("shared_intermediate_size", 0, [0], default=0)
    config.ignore("shared_moe_mode", "postnorm", "block_size")
    for part in ("full_attn", "linear_attn", "mlp"):
        config.ignore(f"{part}_alpha_factor", f"{part}_beta_factor")
    for part in ("full_attention", "linear_attention", "mlp"):
        config.ignore(f"layernorm_{part}_alpha", f"layernorm_{part}_beta")
    full = grouped_attention(config, wide=True)
    moe = moe_ffn(config, ("num_local_experts", "num_experts"), ffn="intermediate_size")
    lightning = {"kind": "lightning", "heads": heads, "head_dim": full["head_dim"], "state_format": "bf16"}
    return sizes(config) | {
        "mixers": {"linear": lightning, "full": full},
        "ffns": {"moe": moe},
        **mixed_blocks(_minimax_layers(config, layers), [True] * layers),
    }


def _minimax_layers(config: Config, layers: int) -> list[bool]:
    """Return which layers have softmax attention."""
    if not config.has("layer_types"):
        return [kind == 1 for kind in layer_kinds(config, "attn_type_list", layers, (0, 1))]
    listed = [kind == FULL for kind in layer_kinds(config, "layer_types", layers, (LINEAR, FULL))]
    if config.has("attn_type_list") and [kind == 1 for kind in config.items("attn_type_list")] != listed:
        config.refuse("attn_type_list", "contradicts layer_types, expected the same layers")
    return listed


def lfm2(config: Config, has_experts: bool = True) -> Fields:
    """LFM2: short convolutions, attention in some layers, and from some layer on experts."""
    layers, hidden = config.size("num_hidden_layers"), config.size("hidden_size")
    for name in ("block_dim", "conv_dim", "conv_dim_out"):
        if config.size(name, default=hidden) != hidden:
            config.refuse(name, f"differs from hidden_size, {hidden}")
    config.get("num_attention_heads", "num_heads")
    config.only("block_use_swiglu", True, default=True)
    config.ignore("use_expert_bias", "block_norm_eps", "block_mlp_init_scale", "block_out_init_scale", "use_pos_enc")
    config.ignore("block_use_xavier_init", "conv_use_xavier_init")
    if config.has("tie_embedding"):
        config.get("tie_word_embeddings", "tie_embedding")
    tied = config.flag("tie_embedding", default=True)
    convolution = {
        "kind": "short_conv",
        "conv": config.size("conv_L_cache"),
        "bias": config.flag("conv_bias", default=False),
    }
    sparse = [False] * layers
    ffns: Fields = {"dense": {"kind": "dense", "ffn": _lfm2_width(config, has_experts)}}
    if has_experts:
        dense = config.count("num_dense_layers")
        sparse = [layer >= dense for layer in range(layers)]
        ffns["moe"] = routed_experts(config)
    return sizes(config, tied) | {
        "mixers": {
            "linear": convolution,
            "full": grouped_attention(config, qk_norm="per_head"),
        },
        "ffns": ffns,
        **mixed_blocks(_lfm2_layers(config, layers), sparse),
    }


def _lfm2_layers(config: Config, layers: int) -> list[bool]:
    """Return which layers have attention: as `layer_types` lists them, or by their numbers, counted from 0."""
    numbers = config.items("full_attn_idxs", default=None)
    numbered = None if numbers is None else [layer in numbers for layer in range(layers)]
    if not config.has("layer_types"):
        return numbered if numbered is not None else config.items("layer_types")
    listed = [kind == FULL for kind in layer_kinds(config, "layer_types", layers, ("conv", FULL))]
    if numbered not in (None, listed):
        config.refuse("full_attn_idxs", "contradicts layer_types, expected the same layers")
    return listed


def _lfm2_width(config: Config, has_experts: bool) -> int:
    """Return the width of a dense FFN, which dense models shrink to two thirds and round up unless told not to."""
    if has_experts:
        config.only("block_auto_adjust_ff_dim", False, default=False)
        config.ignore("block_multiple_of", "block_ffn_dim_multiplier")
        return config.size("intermediate_size", "block_ff_dim")
    width = config.size("block_ff_dim", default=None) or config.size("intermediate_size")
    config.ignore("intermediate_size")  # the older name, block_ff_dim, goes first
    multiple, factor = config.size("block_multiple_of"), config.get("block_ffn_dim_multiplier")
    if not config.flag("block_auto_adjust_ff_dim"):
        return width
    return multiple * -(-int(factor * int(2 * width / 3)) // multiple)


FAMILIES: Mapping[str, Callable[[Config], Fields]] = {
    "qwen3_next": qwen3_next,
    "qwen3_5_moe_text": qwen3_next,
    "qwen3_5_moe": qwen3_next,
    "qwen3_5_text": partial(qwen3_next, has_experts=False),
    "qwen3_5": partial(qwen3_next, has_experts=False),
    "nemotron_h": nemotron_h,
    "kimi_linear": kimi_linear,
    "bailing_hybrid": bailing,
    "bailing_moe_linear": bailing,
    "bailing_moe_v2_5": bailing,
    "bailing_moe_v3": bailing,
    "bailing_moe_v3_vl": bailing,
    "minimax": minimax,
    "minimax_text_01": minimax,
    "minimax_m1": minimax,
    "lfm2_moe": lfm2,
    "lfm2": partial(lfm2, has_experts=False),
}

REFUSED: Mapping[str, str] = {
    "glm5_next_text": "its indexer compresses keys of several tokens to one with weights of its own",
    "falcon_h1": "attention and Mamba stand beside each other in every layer",
}
"""Families with linear attention that no schema of this project expresses, with the reason."""
