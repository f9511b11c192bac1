"""Families that mix softmax attention with Mamba and hold an FFN in every layer: Jamba and Granite-4."""

from collections.abc import Callable, Mapping

from prophet_moe.catalog.hugging_face.config import Config, runs
from prophet_moe.catalog.hugging_face.families.common import (
    Fields,
    bias,
    dense,
    grouped_attention,
    moe_ffn,
    shared_experts,
    sizes,
)

JAMBA_BLOCKS = {
    "M": {"mixer": "mamba", "ffn": "moe"},
    "D": {"mixer": "mamba", "ffn": "dense"},
    "A": {"mixer": "attention", "ffn": "moe"},
    "a": {"mixer": "attention", "ffn": "dense"},
}
JAMBA_LETTERS = {(False, True): "M", (False, False): "D", (True, True): "A", (True, False): "a"}
"""Letters of blocks by whether they attend and hold experts."""
GRANITE_KINDS = {"mamba": "M", "linear_attention": "M", "attention": "A", "full_attention": "A"}
"""Letters of blocks by what `layer_types` says; Transformers 5 renames both kinds."""


def jamba(config: Config) -> Fields:
    """Jamba: attention in one layer of `attn_layer_period`, experts in one of `expert_layer_period`."""
    hidden, width = config.size("hidden_size"), config.size("intermediate_size")
    config.ignore("use_mamba_kernels", "use_mambapy", "use_associative_scan", "calc_logits_for_entire_prompt")
    config.only("mamba_conv_bias", True, default=True)
    config.only("mamba_proj_bias", False, default=False)
    config.only("mamba_inner_layernorms", True, default=True)
    config.only("sliding_window", default=None)
    rank = config.get("mamba_dt_rank")
    mamba = {
        "kind": "mamba1",
        "inner": config.size("mamba_expand") * hidden,
        "state": config.size("mamba_d_state"),
        "conv": config.size("mamba_d_conv"),
        "dt_rank": -(-hidden // 16) if rank == "auto" else config.size("mamba_dt_rank"),
    }
    experts = config.size("num_experts", "num_local_experts")
    moe = moe_ffn(config, experts, ffn=width)
    attends = _every(config, "attn_layer_period", "attn_layer_offset")
    sparse = [experts > 1 and given for given in _every(config, "expert_layer_period", "expert_layer_offset")]
    letters = [JAMBA_LETTERS[both] for both in zip(attends, sparse, strict=True)]
    return sizes(config) | {
        "mixers": {"mamba": mamba, "attention": grouped_attention(config)},
        "ffns": {"moe": moe, "dense": dense(config)},
        "blocks": JAMBA_BLOCKS,
        "pattern": runs(letters),
    }


def granite_hybrid(config: Config) -> Fields:
    """Granite-4: Mamba-2 or attention by `layer_types`; without routed experts its shared expert is a dense FFN."""
    config.only("normalization_function", "rmsnorm", default="rmsnorm")
    config.ignore("position_embedding_type", "mamba_chunk_size", "time_step_limit", "init_method")
    layers, hidden = config.size("num_hidden_layers"), config.size("hidden_size")
    kinds = config.items("layer_types", "layers_block_type", length=layers)
    for kind in kinds:
        if kind not in tuple(GRANITE_KINDS):
            config.refuse("layer_types", f"holds {kind!r}, expected one of {', '.join(GRANITE_KINDS)}")
    shared, experts = config.count("shared_intermediate_size"), config.count("num_local_experts", "num_experts")
    if experts:
        ffn = moe_ffn(config, experts, ffn="intermediate_size", **shared_experts(1, shared))
    else:
        config.ignore("num_experts_per_tok", "intermediate_size")
        ffn = {"kind": "dense", "ffn": config.size("shared_intermediate_size")}
    return sizes(config) | {
        "mixers": {
            "mamba": _mamba2(config, hidden),
            "attention": grouped_attention(config, bias=bias(config)),
        },
        "ffns": {"ffn": ffn},
        "blocks": {"M": {"mixer": "mamba", "ffn": "ffn"}, "A": {"mixer": "attention", "ffn": "ffn"}},
        "pattern": runs([GRANITE_KINDS[kind] for kind in kinds]),
    }


def _mamba2(config: Config, hidden: int) -> Fields:
    inner, heads = config.size("mamba_expand") * hidden, config.size("mamba_n_heads")
    if inner % heads:
        config.refuse("mamba_n_heads", f"got {heads}, expected a divisor of mamba_expand x hidden_size, {inner}")
    config.only("mamba_d_head", "auto", inner // heads, default="auto")
    return {
        "kind": "mamba2",
        "heads": heads,
        "head_dim": inner // heads,
        "groups": config.size("mamba_n_groups"),
        "state": config.size("mamba_d_state"),
        "conv": config.size("mamba_d_conv"),
        "conv_bias": config.flag("mamba_conv_bias", default=True),
        "bias": config.flag("mamba_proj_bias", default=False),
    }


def _every(config: Config, period: str, offset: str) -> list[bool]:
    """Return which layers are the `offset`-th of every `period`."""
    step, first = config.size(period), config.count(offset)
    if first >= step:
        config.refuse(offset, f"got {first}, expected less than {period}, {step}")
    return [layer % step == first for layer in range(config.size("num_hidden_layers"))]


FAMILIES: Mapping[str, Callable[[Config], Fields]] = {"granitemoehybrid": granite_hybrid, "jamba": jamba}
"""Readers by `model_type`."""
