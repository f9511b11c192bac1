"""Families with softmax attention over all tokens: Mixtral, Qwen3, OLMoE, GLM-4.5, MiniMax-M2 and others."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from prophet_moe.catalog.hugging_face.config import REQUIRED, Config, runs
from prophet_moe.catalog.hugging_face.families.common import (
    Fields,
    after_dense_layers,
    bias,
    decoder,
    dense,
    grouped_attention,
    moe_ffn,
    norms_per_head,
    refuse_windows,
    shared_count,
    shared_experts,
    sparse_decoder,
    sparse_layers,
    window,
)


def mixtral(config: Config) -> Fields:
    """Mixtral: experts of `intermediate_size` in every layer."""
    moe = _experts(config, "intermediate_size")
    return decoder(config, grouped_attention(config, **window(config)), moe)


def qwen2_moe(config: Config) -> Fields:
    """Qwen1.5-MoE and Qwen2-MoE: a gated shared expert of its own width, and biases of queries, keys and values."""
    refuse_windows(config)
    shared = shared_experts(1, config.count("shared_expert_intermediate_size"))
    gate = {"shared_gate": True} if shared else {}
    mixer = grouped_attention(config, bias=bias(config, "qkv", "qkv_bias", default=True))
    return sparse_decoder(config, mixer, _experts(config) | shared | gate, _qwen_sparse(config))


def qwen3_moe(config: Config) -> Fields:
    """Qwen3-MoE, alone or inside Qwen3-VL, Qwen3-Omni and Intern-S1: no shared expert, norms of queries and keys."""
    refuse_windows(config)
    config.only("shared_expert_intermediate_size", 0, default=0)
    config.only("qkv_bias", False, default=False)
    config.only("use_qk_norm", True, default=True)
    mixer = grouped_attention(config, wide=True, bias=bias(config), qk_norm="per_head")
    return sparse_decoder(config, mixer, _experts(config), _qwen_sparse(config))


def olmoe(config: Config) -> Fields:
    """OLMoE and FlexOlmo: one norm over all heads of queries, one over all of keys."""
    config.ignore("clip_qkv")
    mixer = grouped_attention(config, multi_head=True, bias=bias(config), qk_norm="full_width")
    return decoder(config, mixer, _experts(config, "intermediate_size"))


def phimoe(config: Config) -> Fields:
    """Phi-3.5-MoE: LayerNorm, and biases of attention and of the output embedding."""
    config.ignore("input_jitter_noise")
    mixer = grouped_attention(config, bias=bias(config), **window(config))
    model = decoder(config, mixer, _experts(config, "intermediate_size"))
    return model | {"norm": "layer", "head_bias": config.flag("lm_head_bias", default=False)}


def dbrx(config: Config) -> Fields:
    """DBRX: names of its own, in two mappings. Its LayerNorms have no bias."""
    attention, ffn = config.below("attn_config"), config.below("ffn_config")
    hidden, heads = config.size("d_model"), config.size("n_heads")
    attention.ignore("clip_qkv", "model_type", "tie_word_embeddings")
    ffn.ignore("ffn_act_fn", "moe_jitter_eps", "moe_loss_weight", "moe_normalize_expert_weights")
    ffn.ignore("uniform_expert_assignment", "model_type", "tie_word_embeddings")
    ffn.only("hidden_size", hidden, default=hidden)
    config.ignore("emb_pdrop")
    if hidden % heads:
        config.refuse("n_heads", f"got {heads}, expected a divisor of d_model, {hidden}")
    kv_heads = attention.size("kv_n_heads")
    config.only("num_key_value_heads", kv_heads, default=kv_heads)
    moe = moe_ffn(ffn, "moe_num_experts", top_k="moe_top_k", ffn="ffn_hidden_size")
    attention.refuse_unread()
    ffn.refuse_unread()
    return {
        "hidden": hidden,
        "vocab": config.size("vocab_size"),
        "native_context": config.size("max_seq_len"),
        "tied_embeddings": config.flag("tie_word_embeddings", default=False),
        "mixers": {"attention": {"kind": "softmax", "heads": heads, "kv_heads": kv_heads, "head_dim": hidden // heads}},
        "ffns": {"moe": moe},
        "blocks": {"M": {"mixer": "attention", "ffn": "moe"}},
        "pattern": [f"{config.size('n_layers')} x M"],
    }


def granite_moe(config: Config) -> Fields:
    """Granite-3 MoE, with a shared expert of its own width or without."""
    config.only("normalization_function", "rmsnorm", default="rmsnorm")
    shared = shared_experts(1, config.count("shared_intermediate_size", default=0))
    mixer = grouped_attention(config, bias=bias(config))
    return decoder(config, mixer, _experts(config, "intermediate_size") | shared)


def glm4_moe(config: Config) -> Fields:
    """GLM-4.5 to GLM-4.7: dense layers first. A file has to tell what the class supposes otherwise than the models."""
    biases = bias(config, "qkv", default=REQUIRED)
    mixer = grouped_attention(config, wide=True, bias=biases, qk_norm=norms_per_head(config))
    return sparse_decoder(config, mixer, _with_shared(config, "n_shared_experts"), after_dense_layers(config))


def glm4v_moe(config: Config) -> Fields:
    """GLM-4.5V: GLM-4.5-Air, which has no norms of queries and keys."""
    config.only("use_qk_norm", False, default=False)
    mixer = grouped_attention(config, wide=True, bias=bias(config, "qkv", default=True))
    return sparse_decoder(config, mixer, _with_shared(config, "n_shared_experts"), after_dense_layers(config))


def solar_open(config: Config) -> Fields:
    """Solar-Open: GLM-4.5 without norms of queries and keys, all of whose layers hold experts."""
    config.only("first_k_dense_replace", 0, default=0)
    config.only("use_qk_norm", False, default=False)
    config.ignore("intermediate_size")
    mixer = grouped_attention(config, wide=True, bias=bias(config, "qkv"))
    return decoder(config, mixer, _with_shared(config, "n_shared_experts"))


def sarvam_moe(config: Config) -> Fields:
    """sarvam-30b: GLM-4.5 under names of Ling."""
    config.only("use_bias", False, default=False)
    config.ignore("moe_router_enable_expert_bias")
    biases = bias(config, "qkv", "use_qkv_bias", "attention_bias")
    mixer = grouped_attention(config, wide=True, bias=biases, qk_norm=norms_per_head(config, default=True))
    moe = _with_shared(config, "num_shared_experts", "n_shared_experts")
    return sparse_decoder(config, mixer, moe, after_dense_layers(config))


def bailing_moe(config: Config) -> Fields:
    """Ling and Ring, 1.0 to 2.0. The second generation tells whether queries and keys have norms, and their width."""
    second = any("V2" in str(name) for name in config.items("architectures", default=[])) or config.has("head_dim")
    config.only("use_bias", False, default=False)
    config.ignore("norm_head", "norm_softmax", "use_rmsnorm", "embedding_dropout", "output_dropout")
    config.ignore("moe_router_enable_expert_bias", "mtp_loss_scaling_factor")
    qk_norm = norms_per_head(config, default=REQUIRED if second else False)
    mixer = grouped_attention(config, wide=second, bias=bias(config, "qkv", "use_qkv_bias"), qk_norm=qk_norm)
    moe = _with_shared(config, "num_shared_experts")
    width = moe.get("shared_ffn", 0)
    config.only("moe_shared_expert_intermediate_size", moe["ffn"], width, default=width)
    return sparse_decoder(config, mixer, moe, after_dense_layers(config))


def minimax_m2(config: Config) -> Fields:
    """MiniMax-M2: experts of `intermediate_size` in every layer, norms of all heads of queries and of keys."""
    layers = config.size("num_hidden_layers")
    if any(kind != 1 for kind in config.items("attn_type_list", length=layers, default=[])):
        config.refuse("attn_type_list", "holds a layer that is not 1, expected softmax attention in every layer")
    config.only("use_qk_norm", True, default=True)
    config.only("qk_norm_type", "per_layer", default="per_layer")
    config.only("attention_bias", False, default=False)
    config.only("shared_intermediate_size", 0, default=0)
    config.only("sliding_window", default=None)
    config.ignore("use_routing_bias", "use_mtp", "mtp_transformer_layers")
    mixer = grouped_attention(config, wide=True, qk_norm="full_width")
    return decoder(config, mixer, _experts(config, "intermediate_size"))


def hunyuan_moe(config: Config) -> Fields:
    """Hunyuan-A13B: norms of queries and keys in every layer."""
    return decoder(config, _hunyuan_attention(config), _hunyuan_ffn(config))


def hunyuan_dense(config: Config) -> Fields:
    """The dense Hunyuan models of the same generation."""
    return decoder(config, _hunyuan_attention(config), dense(config))


def _hunyuan_attention(config: Config) -> Fields:
    config.only("use_cla", False, default=False)
    config.only("use_mla", False, default=False)
    config.only("use_qk_norm", True, default=True)
    _hunyuan_ignored(config)
    return grouped_attention(config, bias=bias(config), qk_norm="per_head")


def hunyuan(config: Config) -> Fields:
    """Hunyuan-Large: of every `cla_share_factor` layers the first has keys and values, which the others read."""
    shared = config.size("cla_share_factor") if config.flag("use_cla") else 1
    qk_norm = norms_per_head(config)
    _hunyuan_ignored(config)
    own = grouped_attention(config, bias=bias(config), qk_norm=qk_norm)
    model = decoder(config, own, _hunyuan_ffn(config))
    ((letter, block),) = model["blocks"].items()
    layers = config.size("num_hidden_layers")
    return model | {
        "mixers": {"attention": own, "reader": own | {"own_kv": False, "norms_read_keys": qk_norm != "none"}},
        "blocks": {letter: block, "R": block | {"mixer": "reader"}},
        "pattern": runs(["R" if layer % shared else letter for layer in range(layers)]),
    }


def _hunyuan_ffn(config: Config) -> Fields:
    """Return experts with shared ones of `intermediate_size`, or a dense FFN where there is one expert."""
    width = _same_in_all_layers(config, "intermediate_size")
    experts = _same_in_all_layers(config, "num_experts", "num_local_experts")
    top_k = _same_in_all_layers(config, "moe_topk", "num_experts_per_tok")
    routed = _same_in_all_layers(config, "moe_intermediate_size", default=width)
    shared = _same_in_all_layers(config, "num_shared_expert", default=1)
    mixed = config.flag("use_mixed_mlp_moe", default=True)
    if experts == 1:
        return {"kind": "dense", "ffn": width}
    more = shared_experts(shared, shared * width) if mixed else {}
    return moe_ffn(config, experts, top_k=top_k, ffn=routed, **more)


def _hunyuan_ignored(config: Config) -> None:
    """Mark what changes no byte in Hunyuan's files: training, routing, and a vision tower's fields without one."""
    config.only("mlp_bias", False, default=False)
    config.only("moe_layer_num_skipped", 0, default=0)
    config.only("add_classification_head", False, default=False)
    config.only("norm_type", "rms", "hf_rms", "fused", default="rms")
    config.ignore("class_num", "pool_type", "dense_list", "org_vocab_size", "capacity_factor", "moe_drop_tokens")
    config.ignore("moe_random_routing_dropped_token", "group_limited_greedy", "routed_scaling_factor", "pad_id")
    config.ignore("eod_token_id", "im_start_id", "im_end_id", "im_newline_id", "mask_init_id", "text_start_id")
    config.ignore("text_end_id", "image_token_id", "cla_share_factor", "video_start_id", "video_end_id")
    config.ignore("use_rotary_pos_emb", "position_embedding_xdrope", "xdrope_section")
    config.ignore("skip_cls_token", "num_media_embeds")
    config.ignore(*(name for name in config.fields if name.startswith(("anyres_", "vit_"))))


def _same_in_all_layers(config: Config, *names: str, **default: Any) -> int:
    """Return a number that a file may repeat for every layer."""
    values = {}
    for name in names:
        value = config.get(name, default=None)
        if isinstance(value, list):
            if not value or any(each != value[0] for each in value):
                config.refuse(name, "differs between layers, expected one value for all")
            value = value[0]
        if value is not None:
            values[name] = value
    return Config(values, config.where, config.path).size(*names, **default)


def ernie_moe(config: Config) -> Fields:
    """ERNIE-4.5: experts in a range of layers; their correction biases are parameters."""
    layers, interval = config.size("num_hidden_layers"), config.size("moe_layer_interval", default=1)
    first, last = config.count("moe_layer_start_index"), layers - 1
    if config.get("moe_layer_end_index", default=-1) != -1:
        last = config.count("moe_layer_end_index")
    if last < first:
        config.refuse("moe_layer_end_index", f"got {last}, expected at least moe_layer_start_index, {first}")
    config.only("use_bias", False, default=False)
    config.only("moe_use_aux_free", True, default=True)
    config.only("is_quantized", False, default=False)
    config.ignore("moe_capacity", "moe_gate", "moe_norm_min", "use_rmsnorm", "compression_ratio", "fuse_rms_norm")
    sparse = [first <= layer <= last and (layer + 1) % interval == 0 for layer in range(layers)]
    width = config.size("moe_intermediate_size")
    shared = config.count("moe_num_shared_experts")
    moe = moe_ffn(
        config,
        "moe_num_experts",
        top_k="moe_k",
        ffn=width,
        correction_bias=True,
        **shared_experts(shared, shared * width),
    )
    return sparse_decoder(config, grouped_attention(config), moe, sparse, tied=True)


def ernie_vl_moe(config: Config) -> NoReturn:
    """ERNIE-4.5-VL, which cannot be expressed: its experts of text and of images differ in width."""
    widths = config.get("moe_intermediate_size")
    config.refuse("moe_intermediate_size", f"got {widths}: experts of text and of images, expected one kind of experts")


def dots1(config: Config) -> Fields:
    """dots.llm1: Qwen3's attention with the experts of DeepSeek."""
    refuse_windows(config)
    moe = _with_shared(config, "n_shared_experts")
    mixer = grouped_attention(config, bias=bias(config), qk_norm="per_head")
    return sparse_decoder(config, mixer, moe, after_dense_layers(config))


def hy_v3(config: Config) -> Fields:
    """Hy3: dense layers by number, or by `mlp_layer_types`."""
    config.ignore("enable_moe_fp32_combine", "enable_attention_fp32_softmax", "enable_lm_head_fp32", "use_grouped_mm")
    config.ignore("moe_router_enable_expert_bias", "moe_router_use_sigmoid", "route_norm")
    config.only("qk_norm", True, default=True)
    config.only("mlp_bias", False, default=False)
    moe = _with_shared(config, "num_shared_experts")
    mixer = grouped_attention(config, wide=True, bias=bias(config), qk_norm="per_head")
    return sparse_decoder(config, mixer, moe, sparse_layers(config))


def aria(config: Config) -> Fields:
    """Aria: Llama's attention, experts and shared experts of `intermediate_size`."""
    config.only("mlp_bias", False, default=False)
    mixer = grouped_attention(config, multi_head=True, bias=bias(config))
    width, shared = config.size("intermediate_size", "moe_intermediate_size"), config.count("moe_num_shared_experts")
    moe = moe_ffn(config, "moe_num_experts", top_k="moe_topk", ffn=width, **shared_experts(shared, shared * width))
    config.ignore("moe_z_loss_coeff", "moe_aux_loss_coeff")
    return decoder(config, mixer, moe)


def grok(config: Config) -> Fields:
    """Grok-1 and Grok-2: four norms a layer, and in Grok-2 a dense FFN beside the experts."""
    if not any(str(name).startswith("Grok1") for name in config.items("architectures")):
        config.refuse("architectures", "names no Grok, expected Grok1ForCausalLM of a checkpoint of this model_type")
    config.ignore("embedding_multiplier_scale", "output_multiplier_scale", "attn_output_multiplier", "max_attn_value")
    config.ignore("router_logit_softcapping", "attn_temperature_len", "scaling_factor", "extrapolation_factor")
    config.ignore("attn_factor", "beta_fast", "beta_slow")
    config.only("sliding_window_size", -1, default=-1)
    config.only("global_attn_every_n", 1, default=1)
    beside = config.flag("residual_moe", default=False)
    moe = _experts(config, "moe_intermediate_size" if beside else "intermediate_size")
    if beside:
        moe["dense_beside"] = config.size("intermediate_size")
    return decoder(config, grouped_attention(config), moe, tied=False if beside else REQUIRED, norms=4)


def arctic(config: Config) -> Fields:
    """Arctic: beside the experts a dense FFN as wide as the hidden state, with a norm of its own."""
    config.only("moe_layer_frequency", 1)
    config.only("parallel_attn_mlp_res", True)
    config.only("use_residual", True)
    config.ignore("enc_index", "enable_expert_tensor_parallelism", "max_sequence_length", "moe_eval_capacity_factor")
    config.ignore("moe_min_capacity", "moe_token_dropping", "moe_train_capacity_factor")
    config.only("quantization", default=None)
    mixer = grouped_attention(config, **window(config))
    moe = _experts(config, "intermediate_size") | {"dense_beside": config.size("hidden_size")}
    return decoder(config, mixer, moe, norms=3)


def switch(config: Config) -> Fields:
    """Switch Transformer: an encoder-decoder with experts in every few layers, one of which a token uses."""
    hidden, heads = config.size("d_model"), config.size("num_heads")
    config.ignore("expert_capacity", "router_dtype", "router_ignore_padding_tokens", "router_type")
    config.ignore("batch_prioritized_routing", "add_router_probs", "num_selected_experts", "dense_act_fn")
    config.ignore("feed_forward_proj", "dropout_rate", "relative_attention_max_distance")
    config.ignore("output_past", "encoder_sparse_step", "decoder_sparse_step")
    config.only("is_gated_act", False, default=False)
    encoder, decoder_layers = config.size("num_layers"), config.size("num_decoder_layers")
    mixer = {
        "kind": "softmax",
        "heads": heads,
        "kv_heads": heads,
        "head_dim": config.size("d_kv"),
        "relative_buckets": config.size("relative_attention_num_buckets"),
    }
    ffn = {"ffn": config.size("d_ff"), "gated": False}
    moe = {
        "kind": "moe",
        "experts": config.size("num_experts"),
        "top_k": 1,
        "router_bias": config.flag("router_bias", default=False),
    }
    return {
        "hidden": hidden,
        "vocab": config.size("vocab_size"),
        "native_context": config.size("n_positions", default=SWITCH_INPUTS),
        "tied_embeddings": config.flag("tie_word_embeddings", default=True),
        "mixers": {"attention": mixer},
        "ffns": {"moe": moe | ffn, "dense": {"kind": "dense"} | ffn},
        "blocks": {"M": {"mixer": "attention", "ffn": "moe"}, "D": {"mixer": "attention", "ffn": "dense"}},
        "pattern": _switch_pattern(config, decoder_layers, "num_sparse_decoder_layers"),
        "encoder": {"pattern": _switch_pattern(config, encoder, "num_sparse_encoder_layers")},
    }


SWITCH_INPUTS = 512
"""Tokens of a source that Switch was trained with (t5x, t5_1_1 base_c4_pretrain.gin). Its config.json has none."""


def _switch_pattern(config: Config, layers: int, field: str) -> list[str]:
    """Return the pattern of a stack, which has experts in one of every layers / sparse layers, the second first."""
    sparse = config.count(field)
    if sparse > layers:
        config.refuse(field, f"got {sparse}, expected at most the {layers} layers of the stack")
    step = layers // sparse if sparse else 0
    return runs(["M" if step and (step == 1 or layer % step == 1) else "D" for layer in range(layers)])


def _experts(config: Config, *ffn: str) -> Fields:
    """Return experts of the usual field names, with their width from one of the fields `ffn`."""
    return moe_ffn(
        config,
        ("num_experts", "num_local_experts", "n_routed_experts"),
        ffn=ffn or ("moe_intermediate_size", "expert_hidden_dim"),
    )


def _with_shared(config: Config, *count: str) -> Fields:
    """Return experts with as many shared experts as a field counts, each as wide as a routed one."""
    moe = _experts(config)
    shared = shared_count(config, *count)
    return moe | shared_experts(shared, shared * moe["ffn"])


def _qwen_sparse(config: Config) -> list[bool]:
    """Return which layers hold experts: every `decoder_sparse_step`-th, but those of `mlp_only_layers`."""
    layers, step = config.size("num_hidden_layers"), config.size("decoder_sparse_step", default=1)
    sparse = [(layer + 1) % step == 0 for layer in range(layers)]
    for layer in config.items("mlp_only_layers", default=[]):
        if not isinstance(layer, int) or not 0 <= layer < layers:
            config.refuse("mlp_only_layers", f"holds {layer!r}, expected numbers of layers below {layers}")
        sparse[layer] = False
    return sparse


FAMILIES: Mapping[str, Callable[[Config], Fields]] = {
    "arctic": arctic,
    "aria_moe_lm": aria,
    "aria_text": aria,
    "bailing_moe": bailing_moe,
    "bailing_moe_v2": bailing_moe,
    "dbrx": dbrx,
    "dots1": dots1,
    "ernie4_5_moe": ernie_moe,
    "ernie4_5_moe_vl": ernie_vl_moe,
    "ernie4_5_vl_moe": ernie_vl_moe,
    "ernie4_5_vl_moe_text": ernie_vl_moe,
    "flex_olmo": olmoe,
    "git": grok,
    "glm4_moe": glm4_moe,
    "glm4v_moe_text": glm4v_moe,
    "granitemoe": granite_moe,
    "granitemoeshared": granite_moe,
    "grok-1": grok,
    "hunyuan": hunyuan,
    "hunyuan_v1_dense": hunyuan_dense,
    "hunyuan_v1_moe": hunyuan_moe,
    "hy_v3": hy_v3,
    "minimax_m2": minimax_m2,
    "mixtral": mixtral,
    "olmoe": olmoe,
    "phimoe": phimoe,
    "qwen2_moe": qwen2_moe,
    "qwen3_moe": qwen3_moe,
    "qwen3_omni_moe_text": qwen3_moe,
    "qwen3_vl_moe_text": qwen3_moe,
    "sarvam_moe": sarvam_moe,
    "solar_open": solar_open,
    "switch_transformers": switch,
}
"""Readers by `model_type`."""
