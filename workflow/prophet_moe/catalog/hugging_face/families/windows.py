"""Families with softmax attention over windows in some layers: gpt-oss, Llama 4, Gemma 4, MiMo, Trinity and others.

A layer attends to a window (`local`) or to all tokens (`full`). Its block has the letter L or F, in lower case where
its FFN is dense.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prophet_moe.catalog.hugging_face.config import REQUIRED, Config, runs
from prophet_moe.catalog.hugging_face.families.common import (
    Fields,
    bias,
    dense,
    grouped_attention,
    moe_ffn,
    shared_count,
    shared_experts,
    sizes,
)

LOCAL, FULL = "sliding_attention", "full_attention"
KINDS = {LOCAL: "local", FULL: "full"}
"""Names of the mixers of this module by the entries of `layer_types`."""


def gpt_oss(config: Config) -> Fields:
    """gpt-oss: windows in every second layer, sinks, biases in attention, router and experts."""
    layers = config.size("num_hidden_layers")
    types = [LOCAL if layer % 2 == 0 else FULL for layer in range(layers)]
    kinds = _kinds(config, layers, types)
    base = grouped_attention(config, wide=True, bias=bias(config, default=True), sinks=True)
    config.ignore("initial_context_length", "swiglu_limit", "swiglu_alpha")
    moe = moe_ffn(
        config,
        ("num_local_experts", "num_experts"),
        top_k=("num_experts_per_tok", "experts_per_token"),
        ffn="intermediate_size",
        bias=True,
        router_bias=True,
    )
    return _model(config, _local_and_full(config, kinds, base), {"moe": moe}, _joined(kinds, [True] * layers))


def llama4(config: Config) -> Fields:
    """Llama 4: attention within chunks, with rotary positions, but for layers without; a shared expert.

    In `no_rope_layers` 1 is a layer with rotary positions, which attends within its chunk, and 0 a layer without them,
    which attends to all tokens. `intermediate_size` is an expert's, `intermediate_size_mlp` a dense layer's.
    """
    layers = config.size("num_hidden_layers")
    if "attention_chunk_size" not in config.fields:
        config.refuse("attention_chunk_size", "is missing, expected the tokens of a chunk, or null for none")
    chunk = config.size("attention_chunk_size", default=None)
    kinds = _llama4_kinds(config, layers, chunk)
    base = grouped_attention(config, wide=True, bias=bias(config))
    config.flag("use_qk_norm", default=True)
    config.ignore("attn_temperature_tuning", "attn_scale", "floor_scale", "for_llm_compressor")
    width = config.size("intermediate_size")
    moe = moe_ffn(config, "num_local_experts", ffn=width, shared_experts=1, shared_ffn=width)
    mixers = {"full": base, "local": base | {"window": chunk, "window_kind": "chunked"}}
    sparse = _llama4_sparse(config, layers)
    ffns = {"moe": moe, "dense": {"kind": "dense", "ffn": config.size("intermediate_size_mlp")}}
    return _model(config, mixers, ffns, _joined(kinds, sparse))


def _llama4_kinds(config: Config, layers: int, chunk: int | None) -> list[str]:
    interval = config.size("no_rope_layer_interval", default=4)
    given = config.items("no_rope_layers", default=None)
    rotary = config.items("no_rope_layers", length=layers, default=None) if given else None
    if rotary is None:
        rotary = [int((layer + 1) % interval != 0) for layer in range(layers)]
    for value in rotary:
        if value not in (0, 1):
            config.refuse("no_rope_layers", f"got {value!r}, expected 1 (rotary positions) or 0 (none) per layer")
    kinds = ["local" if value and chunk else "full" for value in rotary]
    types = config.items("layer_types", length=layers, default=None)
    names = {"chunked_attention": "local", "full_attention": "full"}
    if types is not None and _named(config, "layer_types", types, names) != kinds:
        config.refuse("layer_types", "contradicts no_rope_layers and attention_chunk_size, expected the same layers")
    return kinds


def _llama4_sparse(config: Config, layers: int) -> list[bool]:
    step = config.size("interleave_moe_layer_step", default=None)
    spaced = [(layer + 1) % (step or 1) == 0 for layer in range(layers)]
    found = config.items("moe_layers", default=None)
    listed = spaced if found is None else _listed(config, "moe_layers", found, layers)
    if step is not None and listed != spaced:
        config.refuse("moe_layers", f"contradicts interleave_moe_layer_step, {step}, expected the same layers")
    return listed


def gemma4(config: Config) -> Fields:
    """Gemma 4: windows in five of six layers, wider heads in the others, a dense FFN beside the experts.

    With `attention_k_eq_v` the layers without a window have no value projection. The cache keeps values all the same.
    """
    layers = config.size("num_hidden_layers")
    types = [FULL if (layer + 1) % 6 == 0 else LOCAL for layer in range(layers)]
    kinds = _kinds(config, layers, types)
    if kinds[-1] != "full":
        config.refuse("layer_types", "ends with a window, expected full_attention in the last layer")
    for name, default in (("hidden_size_per_layer_input", 256), ("num_kv_shared_layers", 0)):
        if value := config.count(name, default=default):
            config.refuse(name, f"got {value}, expected 0: a model with it is not understood")
    config.only("use_double_wide_mlp", False, default=False)
    config.only("use_bidirectional_attention", "vision", default=None)
    config.ignore("vocab_size_per_layer_input")
    base = grouped_attention(config, wide=True, bias=bias(config), qk_norm="per_head")
    mixers = _local_and_full(config, kinds, base)
    mixers["full"] = mixers["full"] | _gemma4_full(config, kinds)
    width = config.size("intermediate_size")
    if not config.flag("enable_moe_block", default=REQUIRED if config.has("num_experts") else False):
        config.ignore("num_experts", "top_k_experts", "moe_intermediate_size")
        return _model(config, mixers, {"dense": dense(config)}, _joined(kinds, [False] * layers), norms=4, tied=True)
    moe = moe_ffn(config, top_k="top_k_experts", dense_beside=width, router_scales=True)
    return _model(config, mixers, {"moe": moe}, _joined(kinds, [True] * layers), norms=7, tied=True)


def _gemma4_full(config: Config, kinds: list[str]) -> Fields:
    """Return what differs in the layers without a window."""
    same = config.flag("attention_k_eq_v", default=False)
    full = [number for number, kind in enumerate(kinds) if kind == "full"]
    written = _override(config, full, "head_dim", "num_key_value_heads")
    heads = config.size("num_global_key_value_heads", default=written.get("num_key_value_heads"))
    if same and heads is None and not written:
        config.refuse("num_global_key_value_heads", "is missing, expected the KV heads of layers without a window")
    head_dim = config.size("global_head_dim", default=written.get("head_dim", 512))
    return {"head_dim": head_dim, "key_is_value": same} | ({"kv_heads": heads} if same and heads else {})


def mimo_v2_flash(config: Config) -> Fields:
    """MiMo-V2-Flash and MiMo-V2.5: windows with sinks and KV heads of their own, values narrower than keys.

    `sliding_window_size` counts the tokens before a query, which is what a cache keeps between steps. Transformers
    writes one more, with the query, as `sliding_window`; the published file writes the same number under both names.
    """
    layers = config.size("num_hidden_layers")
    kinds = _mimo_kinds(config, layers)
    config.only("n_shared_experts", default=None)
    config.only("attention_projection_layout", "fused_qkv", "split", default="split")
    config.ignore("processor_config", "vision_model_type")
    base = grouped_attention(config, wide=True, v_head_dim=config.size("v_head_dim"), bias=bias(config, "qkv"))
    local = base | {
        "heads": config.size("swa_num_attention_heads", default=base["heads"]),
        "kv_heads": config.size("swa_num_key_value_heads"),
        "head_dim": config.size("swa_head_dim", default=base["head_dim"]),
        "v_head_dim": config.size("swa_v_head_dim", default=base["v_head_dim"]),
        "sinks": config.flag("add_swa_attention_sink_bias", default=True),
        "window": _mimo_window(config),
    }
    full = base | {"sinks": config.flag("add_full_attention_sink_bias", default=False)}
    config.ignore("attention_chunk_size", "attention_value_scale", "swa_rope_theta", "layernorm_epsilon")
    flags = _flags(config, "moe_layer_freq", layers) or [False] + [True] * (layers - 1)
    sparse = _sparse(config, layers, ["sparse" if experts else "dense" for experts in flags])
    if config.has("moe_layer_freq") and sparse != flags:
        config.refuse("mlp_layer_types", "contradicts moe_layer_freq, expected the same layers with experts")
    moe = moe_ffn(config, ("n_routed_experts", "num_local_experts"))
    return _model(config, {"full": full, "local": local}, {"moe": moe, "dense": dense(config)}, _joined(kinds, sparse))


def _mimo_kinds(config: Config, layers: int) -> list[str]:
    if not config.has("hybrid_layer_pattern"):
        return _kinds(config, layers, None)
    windows = _flags(config, "hybrid_layer_pattern", layers)
    kinds = ["local" if window else "full" for window in windows]
    if config.has("layer_types") and _kinds(config, layers, None) != kinds:
        config.refuse("layer_types", "contradicts hybrid_layer_pattern, expected the same layers")
    return kinds


def _mimo_window(config: Config) -> int:
    before, written = config.size("sliding_window_size", default=None), config.size("sliding_window", default=None)
    if before is None:
        if written is None:
            config.refuse("sliding_window_size", "is missing, expected the tokens of a window")
        return written if config.has("hybrid_layer_pattern") else written - 1
    if written not in (None, before, before + 1):
        problem = f"got {written}, but sliding_window_size is {before}; expected it, or one more with the query"
        config.refuse("sliding_window", problem)
    return before


def afmoe(config: Config) -> Fields:
    """AFMoE (Trinity): windows but in every fourth layer, gated attention, four norms, dense layers first."""
    layers = config.size("num_hidden_layers")
    every = config.size("global_attn_every_n_layers", default=4)
    types = [FULL if (layer + 1) % every == 0 else LOCAL for layer in range(layers)]
    kinds = _kinds(config, layers, types)
    base = grouped_attention(config, wide=True, bias=bias(config), qk_norm="per_head", gate="full")
    config.ignore("num_expert_groups", "num_limited_groups", "load_balance_coeff", "use_grouped_mm")
    config.ignore("mup_enabled", "route_norm", "route_scale", "score_func")
    width, shared = config.size("moe_intermediate_size"), shared_count(config, "num_shared_experts")
    moe = moe_ffn(config, ffn=width, correction_bias=True, **shared_experts(shared, shared * width))
    first = config.count("num_dense_layers")
    sparse = [layer >= first for layer in range(layers)]
    ffns = {"moe": moe, "dense": dense(config)}
    return _model(config, _local_and_full(config, kinds, base), ffns, _joined(kinds, sparse), norms=4)


def exaone_moe(config: Config) -> Fields:
    """K-EXAONE: windows in three of four layers, shared experts, a dense layer first."""
    layers = config.size("num_hidden_layers")
    pattern = config.get("sliding_window_pattern", default=None)
    if pattern is not None and not isinstance(pattern, int | str):
        config.refuse("sliding_window_pattern", f"got {pattern!r}, expected a period, or its letters L and G")
    types = None
    if isinstance(pattern, int) and pattern > 0:
        types = [FULL if (layer + 1) % pattern == 0 else LOCAL for layer in range(layers)]
    kinds = _kinds(config, layers, types)
    base = grouped_attention(config, wide=True, qk_norm="per_head")
    first = config.count("first_k_dense_replace", "first_last_k_dense_replace", default=None)
    listed = _flags(config, "is_moe_layer", layers)
    sparse = listed or [layer >= (1 if first is None else first) for layer in range(layers)]
    if listed and first is not None and listed != [layer >= first for layer in range(layers)]:
        config.refuse("is_moe_layer", f"contradicts first_k_dense_replace, {first}, expected the same layers")
    sparse = _sparse(config, layers, ["sparse" if experts else "dense" for experts in sparse])
    width, shared = config.size("moe_intermediate_size"), shared_count(config, "num_shared_experts")
    moe = moe_ffn(config, ffn=width, **shared_experts(shared, shared * width))
    ffns = {"moe": moe, "dense": dense(config)}
    return _model(config, _local_and_full(config, kinds, base), ffns, _joined(kinds, sparse))


def mellum(config: Config) -> Fields:
    """Mellum 2: `layer_types` says which layers have a window; the default of its class, none, is no checkpoint's."""
    layers = config.size("num_hidden_layers")
    kinds = _kinds(config, layers, None)
    if not config.flag("use_sliding_window", default=True) and "local" in kinds:
        config.refuse("use_sliding_window", "got False, but layer_types has windows; expected one of the two")
    base = grouped_attention(config, wide=True, bias=bias(config), qk_norm="per_head")
    config.ignore("mtp_layer_types", "mtp_mlp_layer_types")
    moe = moe_ffn(config, ("num_experts", "num_local_experts"))
    sparse = _sparse(config, layers, ["sparse"] * layers)
    ffns = {"moe": moe, "dense": dense(config)}
    return _model(config, _local_and_full(config, kinds, base), ffns, _joined(kinds, sparse))


def laguna(config: Config) -> Fields:
    """Laguna: windows by layer, query heads by layer, a gate on attention, a shared expert, a dense layer first."""
    layers = config.size("num_hidden_layers")
    kinds = _kinds(config, layers, None)
    base = grouped_attention(config, wide=True, bias=bias(config), qk_norm="per_head", gate=_laguna_gate(config))
    heads = config.items("num_attention_heads_per_layer", length=layers, default=[base["heads"]] * layers)
    config.only("moe_apply_router_weight_on_input", False, default=False)
    config.only("use_bidirectional_attention", False, default=False)
    config.ignore("moe_routed_scaling_factor", "moe_router_logit_softcapping")
    by_kind = _local_and_full(config, kinds, base)
    named = {kind: sorted({str(its) for its, of in zip(heads, kinds, strict=True) if of == kind}) for kind in by_kind}
    mixers, used = {}, []
    for kind, its in zip(kinds, heads, strict=True):
        name = kind if len(named[kind]) == 1 else f"{kind}_{its}"
        mixers[name] = by_kind[kind] | {"heads": its}
        used.append(name)
    moe = moe_ffn(
        config, shared_experts=1, shared_ffn=config.size("shared_expert_intermediate_size"), correction_bias=True
    )
    sparse = _laguna_sparse(config, layers)
    return _model(config, mixers, {"moe": moe, "dense": dense(config)}, _joined(used, sparse))


def _laguna_gate(config: Config) -> str:
    gates = {"True": "per_head", "per-head": "per_head", "per-element": "full"}
    gating = config.get("gating", default=True)
    if str(gating) not in gates:
        config.refuse("gating", f"got {gating!r}, expected true, 'per-head' or 'per-element'")
    gate = gates[str(gating)]
    for each in config.items("gating_types", default=[]):
        if each != {"per_head": "per_head", "full": "per_element"}[gate]:
            config.refuse("gating_types", f"got {each!r}, but gating is {gating!r}; expected the same in all layers")
    return gate


def _laguna_sparse(config: Config, layers: int) -> list[bool]:
    dense, step = config.items("mlp_only_layers", default=None), config.size("decoder_sparse_step", default=1)
    sparse = _sparse(config, layers, ["dense"] + ["sparse"] * (layers - 1))
    if dense is not None and sparse != [layer not in dense and (layer + 1) % step == 0 for layer in range(layers)]:
        config.refuse("mlp_only_layers", "contradicts mlp_layer_types, expected the same dense layers")
    return sparse


def cohere2_moe(config: Config) -> Fields:
    """Command A+ and North: windows but in every fourth layer, one norm for attention and FFN, which run in parallel.

    `intermediate_size` is an expert's, `prefix_dense_intermediate_size` a dense layer's.
    """
    layers = config.size("num_hidden_layers")
    first = config.count("first_k_dense_replace", default=0)
    every = config.size("sliding_window_pattern", default=4)
    every_dense = config.size("prefix_dense_sliding_window_pattern", default=1)
    periods = [(layer + 1) % every_dense for layer in range(first)]
    periods += [(layer + 1) % every for layer in range(layers - first)]
    kinds = _kinds(config, layers, [LOCAL if position else FULL for position in periods])
    for name in ("use_qk_norm", "layer_norm_bias"):
        config.only(name, False, default=False)
    config.only("use_parallel_block", True, default=True)
    config.ignore("logit_scale", "expert_selection_fn", "shared_expert_combination_strategy", "moe_gate_act")
    config.ignore("position_embedding_type", "rotary_pct", "order_of_interleaved_layers", "use_gated_activation")
    base = grouped_attention(config, wide=True, bias=bias(config))
    width, shared = config.size("intermediate_size"), config.count("num_shared_experts", default=0)
    moe = moe_ffn(config, ffn=width, **shared_experts(shared, shared * width))
    sparse = _sparse(config, layers, ["dense" if layer < first else "sparse" for layer in range(layers)])
    ffns = {"moe": moe, "dense": {"kind": "dense", "ffn": config.size("prefix_dense_intermediate_size", default=width)}}
    return _model(config, _local_and_full(config, kinds, base), ffns, _joined(kinds, sparse), norms=1, tied=True)


def step3(config: Config) -> Fields:
    """Step-3: queries through a rank with a norm of its own, one KV head of all query heads, a shared expert."""
    layers = config.size("num_hidden_layers")
    heads, head_dim = config.size("num_attention_heads"), config.size("head_dim")
    mixer = {
        "kind": "softmax",
        "heads": heads,
        "kv_heads": config.only("num_attention_groups", 1, default=1),
        "head_dim": head_dim,
        "query_rank": config.size("share_q_dim"),
    }
    _step_switches(config)
    config.only("use_mfa", True, default=True)
    moe = _step_moe(config)
    sparse = _enumerated(config, layers)
    return _model(config, {"full": mixer}, {"moe": moe, "dense": dense(config)}, _joined(["full"] * layers, sparse))


def step3p5(config: Config) -> Fields:
    """Step-3.5 and Step-3.7: windows in three of four layers, with query heads of their own, and a gate per head.

    Lists by layer have further entries at their end, one for each draft layer.
    """
    layers = config.size("num_hidden_layers")
    drafts = config.count("num_nextn_predict_layers", "num_mtp_layers", default=0)
    kinds = _kinds(config, layers, None, drafts)
    base = {
        "kind": "softmax",
        "heads": config.size("num_attention_heads"),
        "kv_heads": config.size("num_attention_groups", "num_key_value_heads"),
        "head_dim": config.size("head_dim"),
        "bias": bias(config),
        "qk_norm": "per_head",
        "gate": "per_head",
    }
    config.only("use_head_wise_attn_gate", True, default=True)
    config.only("use_qk_norm", True, default=True)
    _step_switches(config)
    mixers = _local_and_full(config, kinds, base)
    if "local" in kinds:
        mixers["local"] = mixers["local"] | _step_local(config, kinds)
    config.ignore("num_sliding_attention_heads", "attention_other_setting")  # of layers with a window
    moe = _step_moe(config)
    types = config.items("mlp_layer_types", default=None)
    sparse = _enumerated(config, layers) if types is None else _sparse(config, layers, None, drafts)
    return _model(config, mixers, {"moe": moe, "dense": dense(config)}, _joined(kinds, sparse))


def _step_local(config: Config, kinds: list[str]) -> Fields:
    """Return what differs in the layers with a window; where the file does not say, the query heads are unknown."""
    local = [number for number, kind in enumerate(kinds) if kind == "local"]
    written = _override(config, local, "num_attention_heads")
    heads = config.size("num_sliding_attention_heads", default=written.get("num_attention_heads"))
    if not config.has("attention_other_setting"):
        if heads is None:
            config.refuse("attention_other_setting", "is missing, expected the query heads of layers with a window")
        return {"heads": heads}
    other = config.below("attention_other_setting")
    other.only("attention_type", LOCAL, default=LOCAL)
    other.ignore("true_head_dim")
    found = {"heads": other.size("num_attention_heads")}
    if heads not in (None, found["heads"]):
        config.refuse("num_sliding_attention_heads", f"got {heads}, but attention_other_setting has {found['heads']}")
    for field, name in (("kv_heads", "num_attention_groups"), ("head_dim", "head_dim")):
        if other.has(name):
            found[field] = other.size(name)
    other.refuse_unread()
    return found


def _step_switches(config: Config) -> None:
    """Read the fields of Step models that hold for all of them, and those that change no byte."""
    for name in ("mlp_bias", "sink", "use_bidirectional_attention"):
        config.only(name, False, default=False)
    config.only("use_moe", True, default=True)
    config.only("att_impl_type", "GQA", "MFA", default=None)
    config.only("hidden_act", "silu", "swigluoai", default="silu")
    config.ignore("norm_expert_weight", "moe_router_activation", "moe_router_scaling_factor", "use_moe_router_bias")
    config.ignore("need_fp32_gate", "zero_centered", "yarn_only_types", "use_rope_layers", "partial_rotary_factors")
    config.ignore("swiglu_limits", "swiglu_limits_shared", "query_pre_attn_scalar", "max_seq_len")
    if not config.has("max_position_embeddings"):
        context = config.size("max_position_embedding", "max_seq_len")
        config.fields = {**config.fields, "max_position_embeddings": context}
    config.ignore("moe_layer_offset", "moe_every_n_layer", "mtp_layer_types", "mtp_mlp_layer_types")


def _step_moe(config: Config) -> Fields:
    return moe_ffn(
        config,
        ("moe_num_experts", "n_routed_experts", "num_experts"),
        top_k=("moe_top_k", "num_experts_per_tok"),
        shared_experts=config.only("n_shared_experts", 1, default=1),
        shared_ffn=config.size("share_expert_dim", "share_expert_dims"),
    )


def _enumerated(config: Config, layers: int) -> list[bool]:
    """Return which layers `moe_layers_enum`, a list or its text, names."""
    found = config.get("moe_layers_enum", default=None)
    if found is None:
        first = config.count("first_k_dense_replace", default=None)
        if first is None:
            config.refuse("moe_layers_enum", "is missing, expected the numbers of the layers with experts")
        return [layer >= first for layer in range(layers)]
    numbers = found.split(",") if isinstance(found, str) else found
    if not isinstance(numbers, list):
        config.refuse("moe_layers_enum", f"got {found!r}, expected numbers of layers")
    if not all(str(number).strip().isdecimal() for number in numbers):
        config.refuse("moe_layers_enum", f"got {found!r}, expected numbers of layers")
    sparse = _listed(config, "moe_layers_enum", [int(number) for number in numbers], layers)
    if not any(sparse):
        config.refuse("moe_layers_enum", "names no layer, expected those with experts")
    first = config.count("first_k_dense_replace", default=None)
    if first is not None and sparse != [layer >= first for layer in range(layers)]:
        config.refuse("moe_layers_enum", f"contradicts first_k_dense_replace, {first}, expected the same layers")
    return sparse


def minimax_m3(config: Config) -> Fields:
    """MiniMax-M3: block-sparse attention with an index branch, dense layers first, a shared expert.

    `intermediate_size` is an expert's, `dense_intermediate_size` a dense layer's.
    """
    layers = config.size("num_hidden_layers")
    for name, only in (("attention_output_gate", False), ("use_qk_norm", True)):
        config.only(name, only, default=only)
    config.only("qk_norm_type", "per_head", default="per_head")
    config.ignore("use_gemma_norm", "use_routing_bias", "index_local_blocks", "swiglu_limit", "swiglu_alpha")
    base = grouped_attention(config, wide=True, qk_norm="per_head")
    indexer, indexed = _minimax_m3_indexer(config, layers)
    mixers = {"full": base, "sparse": base | {"indexer": indexer}}
    moe = moe_ffn(
        config,
        ("num_local_experts", "num_experts"),
        ffn=("intermediate_size", "moe_intermediate_size"),
        shared_experts=config.only("n_shared_experts", 1, default=1),
        shared_ffn=config.size("shared_intermediate_size"),
    )
    sparse = _flags(config, "moe_layer_freq", layers)
    types = ["sparse" if experts else "dense" for experts in sparse] if sparse else None
    sparse = _sparse(config, layers, types)
    first = config.count("first_k_dense_replace", default=None)
    if first is not None and sparse != [layer >= first for layer in range(layers)]:
        config.refuse("first_k_dense_replace", f"got {first}, which contradicts moe_layer_freq")
    kinds = ["sparse" if own else "full" for own in indexed]
    ffns = {"moe": moe, "dense": {"kind": "dense", "ffn": config.size("dense_intermediate_size")}}
    return _model(config, mixers, ffns, _joined(kinds, sparse))


def _minimax_m3_indexer(config: Config, layers: int) -> tuple[Fields, list[bool]]:
    """Return the index branch, and which layers have one."""
    names = {"minimax_m3_sparse": "sparse", "full_attention": "full"}
    types = config.items("layer_types", length=layers, default=None)
    indexed = types and [kind == "sparse" for kind in _named(config, "layer_types", types, names)]
    if not config.has("sparse_attention_config"):
        if indexed is None:
            config.refuse("sparse_attention_config", "is missing, as is layer_types, expected which layers are sparse")
        blocks, tokens = config.size("index_topk_blocks"), config.size("index_block_size")
        heads, head_dim = config.size("index_n_heads"), config.size("index_head_dim")
        return {"heads": heads, "head_dim": head_dim, "top_k": blocks * tokens}, indexed
    inner = config.below("sparse_attention_config")
    inner.only("use_sparse_attention", True, default=True)
    inner.ignore("sparse_init_block", "sparse_local_block", "sparse_score_type", "sparse_disable_index_value")
    listed = _flags(inner, "sparse_attention_freq", layers)
    if listed is None:
        inner.refuse("sparse_attention_freq", "is missing, expected 0 or 1 per layer")
    if indexed not in (None, listed):
        config.refuse("layer_types", "contradicts sparse_attention_freq, expected the same layers")
    heads, head_dim = inner.size("sparse_num_index_heads"), inner.size("sparse_index_dim")
    tokens = inner.size("sparse_topk_blocks") * inner.size("sparse_block_size")
    inner.refuse_unread()
    config.ignore("index_n_heads", "index_head_dim", "index_topk_blocks", "index_block_size")
    return {"heads": heads, "head_dim": head_dim, "top_k": tokens}, listed


def _local_and_full(config: Config, kinds: list[str], base: Fields) -> dict[str, Fields]:
    """Return the mixer of layers without a window, and that of layers with one where there are some.

    A window that no layer has is without effect.
    """
    if "local" not in kinds:
        config.ignore("sliding_window")
        return {"full": base}
    return {"full": base, "local": base | {"window": config.size("sliding_window")}}


def _kinds(config: Config, layers: int, default: list[str] | None, drafts: int = 0) -> list[str]:
    """Return whether a layer is `local` or `full`; without a default, the file must say it.

    `layer_types` decides where it is there. It may have entries of draft layers after those of the model's.
    """
    types = config.items("layer_types", default=None)
    if types is None:
        if default is None:
            config.refuse("layer_types", "is missing, expected which layers have a window")
        types = default
    elif len(types) != layers + drafts or not drafts:
        types = config.items("layer_types", length=layers)
    return _named(config, "layer_types", types[:layers], KINDS)


def _sparse(config: Config, layers: int, default: list[str] | None, drafts: int = 0) -> list[bool]:
    """Return which layers hold experts, by `mlp_layer_types`, which must not contradict other fields."""
    types = config.items("mlp_layer_types", default=default)
    if types is None:
        config.refuse("mlp_layer_types", "is missing, expected which layers hold experts")
    if types is not default and (len(types) != layers + drafts or not drafts):
        types = config.items("mlp_layer_types", length=layers)
    return _named(config, "mlp_layer_types", types[:layers], {"sparse": True, "dense": False})


def _named(config: Config, field: str, values: Sequence[Any], names: Mapping[str, Any]) -> list[Any]:
    for value in values:
        if not isinstance(value, str) or value not in names:
            config.refuse(field, f"got {value!r}, expected {' or '.join(names)}")
    return [names[value] for value in values]


def _flags(config: Config, field: str, layers: int) -> list[bool] | None:
    """Return a list of 0 and 1 per layer as truth values; None where the field is missing."""
    values = config.items(field, length=layers, default=None)
    for value in values or []:
        if value not in (0, 1):
            config.refuse(field, f"got {value!r}, expected 0 or 1 per layer")
    return values and [bool(value) for value in values]


def _listed(config: Config, field: str, numbers: Sequence[Any], layers: int) -> list[bool]:
    """Return which layers a list of numbers, counted from 0, names."""
    for number in numbers:
        if not isinstance(number, int) or not 0 <= number < layers:
            config.refuse(field, f"got {number!r}, expected numbers of layers below {layers}")
    return [layer in numbers for layer in range(layers)]


def _override(config: Config, layers: list[int], *names: str) -> Fields:
    """Return the fields that Transformers writes for some layers (`per_layer_config`); {} where there are none."""
    written = config.get("per_layer_config", default=None)
    if not written:
        return {}
    fields = {str(layer): its for layer, its in written.items()} if isinstance(written, Mapping) else {}
    fields = {layer.lstrip("0") or "0": its for layer, its in fields.items()}  # Transformers writes 05 beside 11
    found = fields.get(str(layers[0]), {}) if layers else {}
    if sorted(fields) != sorted(map(str, layers)) or any(its != found for its in fields.values()):
        config.refuse("per_layer_config", f"expected the same fields for each of the layers {layers}")
    if not isinstance(found, Mapping) or set(found) - set(names):
        config.refuse("per_layer_config", f"got {found!r}, expected fields among {', '.join(names)}")
    return dict(found)


def _joined(mixers: list[str], sparse: list[bool]) -> list[tuple[str, str]]:
    return [(mixer, "moe" if experts else "dense") for mixer, experts in zip(mixers, sparse, strict=True)]


def _model(
    config: Config,
    mixers: dict[str, Fields],
    ffns: dict[str, Fields],
    layers: list[tuple[str, str]],
    norms: int = 2,
    tied: bool = False,
) -> Fields:
    """Return an architecture of layers that are a mixer and an FFN each, given by their names."""
    blocks: dict[str, Fields] = {}
    lettered: dict[tuple[str, str], str] = {}
    for mixer, ffn in layers:
        if (mixer, ffn) not in lettered:
            wanted = mixer[0].upper() if ffn == "moe" else mixer[0]
            letter = next(free for free in wanted + string.ascii_letters if free not in blocks)
            lettered[mixer, ffn] = letter
            blocks[letter] = {"mixer": mixer, "ffn": ffn, "norms": norms}
    return sizes(config, tied) | {
        "mixers": mixers,
        "ffns": ffns,
        "blocks": blocks,
        "pattern": runs([lettered[layer] for layer in layers]),
    }


FAMILIES: Mapping[str, Callable[[Config], Fields]] = {
    "afmoe": afmoe,
    "cohere2_moe": cohere2_moe,
    "exaone_moe": exaone_moe,
    "gemma4": gemma4,
    "gemma4_text": gemma4,
    "gpt_oss": gpt_oss,
    "laguna": laguna,
    "llama4": llama4,
    "llama4_text": llama4,
    "mellum": mellum,
    "mimo_v2": mimo_v2_flash,
    "mimo_v2_flash": mimo_v2_flash,
    "minimax_m3": minimax_m3,
    "minimax_m3_vl": minimax_m3,
    "minimax_m3_vl_text": minimax_m3,
    "step3_text": step3,
    "step3_vl": step3,
    "step3p5": step3p5,
    "step3p7": step3p5,
}
