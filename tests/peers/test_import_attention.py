"""Models with softmax attention over all tokens, imported from a config.json, against their Transformers class."""

import pytest
from importing import check_cache, check_counts

DECODER = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128,
}
"""Small sizes under the names that nearly all families have."""
QWEN = {"max_window_layers": 3, "sliding_window": 64, "use_sliding_window": False}
QWEN3 = QWEN | {
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 32,
    "num_experts_per_tok": 2,
    "head_dim": 16,
    "norm_topk_prob": True,
}
DEEPSEEK = {
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "norm_topk_prob": True,
    "num_experts_per_tok": 2,
    "routed_scaling_factor": 2.5,
    "topk_group": 1,
}
GRANITE = {"embedding_multiplier": 12.0, "logits_scaling": 6.0, "num_local_experts": 8, "num_experts_per_tok": 2}
PUBLISHED = {
    "mixtral": {"num_experts_per_tok": 2, "num_local_experts": 8, "sliding_window": None},
    "mixtral window": {"num_experts_per_tok": 2, "num_local_experts": 8, "sliding_window": 6},
    "qwen2_moe": QWEN
    | {
        "decoder_sparse_step": 1,
        "mlp_only_layers": [0],
        "moe_intermediate_size": 32,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "shared_expert_intermediate_size": 48,
    },
    "qwen3_moe": QWEN3 | {"attention_bias": False, "mlp_only_layers": [1], "num_experts": 8},
    "qwen3_moe bias": QWEN3 | {"attention_bias": True, "decoder_sparse_step": 2, "num_experts": 8},
    "olmoe": {"clip_qkv": None, "num_experts": 8, "num_experts_per_tok": 2, "attention_bias": True},
    "flex_olmo": {"num_experts": 7, "num_experts_per_tok": 5, "attention_bias": False},
    "phimoe": {
        "attention_bias": True,
        "input_jitter_noise": 0.01,
        "lm_head_bias": True,
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
        "router_jitter_noise": 0.01,
        "sliding_window": 512,
    },
    "granitemoe": GRANITE | {"attention_bias": True, "tie_word_embeddings": True},
    "granitemoeshared": GRANITE | {"shared_intermediate_size": 48},
    "granitemoehybrid": GRANITE
    | {
        "layer_types": ["mamba", "mamba", "attention", "mamba"],
        "mamba_chunk_size": 16,
        "mamba_conv_bias": True,
        "mamba_d_conv": 4,
        "mamba_d_head": 32,
        "mamba_d_state": 16,
        "mamba_expand": 2,
        "mamba_n_groups": 1,
        "mamba_n_heads": 4,
        "mamba_proj_bias": False,
        "normalization_function": "rmsnorm",
        "position_embedding_type": "nope",
        "shared_intermediate_size": 48,
        "tie_word_embeddings": True,
    },
    "granitemoehybrid dense": GRANITE
    | {
        "layer_types": ["attention"] * 4,
        "mamba_d_conv": 4,
        "mamba_d_state": 16,
        "mamba_expand": 2,
        "mamba_n_groups": 1,
        "mamba_n_heads": 4,
        "num_experts_per_tok": 0,
        "num_local_experts": 0,
        "position_embedding_type": "rope",
        "shared_intermediate_size": 48,
        "tie_word_embeddings": True,
    },
    "jamba dense": {
        "attn_layer_offset": 1,
        "attn_layer_period": 3,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_d_conv": 4,
        "mamba_d_state": 16,
        "mamba_dt_rank": 4,
        "mamba_expand": 2,
        "num_experts": 1,
        "num_experts_per_tok": 2,
        "use_mamba_kernels": False,
    },
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 3,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_conv_bias": True,
        "mamba_d_conv": 4,
        "mamba_d_state": 16,
        "mamba_dt_rank": 4,
        "mamba_expand": 2,
        "mamba_proj_bias": False,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_logits_to_keep": 1,
        "sliding_window": None,
        "use_mamba_kernels": False,
    },
    "glm4_moe": DEEPSEEK | {"attention_bias": True, "head_dim": 16, "num_nextn_predict_layers": 1, "use_qk_norm": True},
    "glm4_moe air": DEEPSEEK
    | {"attention_bias": False, "head_dim": 16, "num_nextn_predict_layers": 1, "use_qk_norm": False},
    "solar_open": DEEPSEEK | {"first_k_dense_replace": 0, "head_dim": 16, "attention_bias": True},
    "sarvam_moe": {
        "first_k_dense_replace": 1,
        "head_dim": 16,
        "moe_intermediate_size": 32,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "num_shared_experts": 1,
        "use_qk_norm": True,
        "use_qkv_bias": True,
    },
    "minimax_m2": {
        "attn_type_list": [1, 1, 1, 1],
        "head_dim": 16,
        "mtp_transformer_layers": 1,
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
        "num_mtp_modules": 3,
        "qk_norm_type": "per_layer",
        "rotary_dim": 8,
        "shared_intermediate_size": 0,
        "use_mtp": True,
        "use_qk_norm": True,
        "use_routing_bias": True,
    },
    "hunyuan_v1_moe": {
        "attention_bias": False,
        "attention_head_dim": 8,
        "head_dim": 8,
        "moe_intermediate_size": [96, 96, 96, 96],
        "moe_topk": [2, 2, 2, 2],
        "num_experts": 8,
        "num_shared_expert": [1, 1, 1, 1],
        "use_cla": False,
        "use_mixed_mlp_moe": True,
        "use_qk_norm": True,
    },
    "ernie4_5_moe": {
        "moe_capacity": [8, 8, 8],
        "moe_gate": "topk",
        "moe_intermediate_size": 32,
        "moe_k": 2,
        "moe_layer_end_index": 2,
        "moe_layer_interval": 1,
        "moe_layer_start_index": 1,
        "moe_num_experts": 8,
        "moe_num_shared_experts": 2,
        "moe_use_aux_free": True,
        "num_nextn_predict_layers": 1,
        "tie_word_embeddings": True,
        "use_bias": False,
    },
    "dots1": DEEPSEEK | {"attention_bias": True, "max_window_layers": 4, "sliding_window": 6},
    "hy_v3": {
        "enable_moe_fp32_combine": False,
        "expert_hidden_dim": 32,
        "first_k_dense_replace": 1,
        "head_dim": 16,
        "moe_intermediate_size": 32,
        "moe_router_enable_expert_bias": True,
        "moe_router_use_sigmoid": True,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "num_nextn_predict_layers": 1,
        "num_shared_experts": 2,
        "qk_norm": True,
        "route_norm": True,
        "router_scaling_factor": 2.826,
    },
    "aria_text": {"moe_num_experts": 8, "moe_topk": 2, "moe_num_shared_experts": 2, "attention_bias": True},
    "llama": {"attention_bias": True, "mlp_bias": True, "pretraining_tp": 1},
    "granite": {"attention_bias": False, "embedding_multiplier": 12.0, "mlp_bias": False, "tie_word_embeddings": True},
    "hunyuan_v1_dense": {"attention_head_dim": 16, "cla_share_factor": 2, "head_dim": 16, "use_cla": False},
    "seed_oss": {"attention_bias": True, "attention_out_bias": False, "head_dim": 16, "residual_dropout": 0.1},
    "smollm3": QWEN | {"no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0]},
    "mistral": {"sliding_window": 6, "head_dim": 16},
    "qwen2": QWEN,
    "qwen3": QWEN | {"attention_bias": True, "head_dim": 16},
    "phi3": {"sliding_window": 6, "original_max_position_embeddings": 512},
    "olmo2": {"attention_bias": True},
    "gemma": {"head_dim": 16, "hidden_activation": None, "tie_word_embeddings": True},
}
"""Fields of published config.json files by `model_type`, which a word may follow, with small sizes."""
DBRX = {
    "model_type": "dbrx",
    "attn_config": {"clip_qkv": 8, "kv_n_heads": 2, "rope_theta": 500000},
    "d_model": 64,
    "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 8, "moe_top_k": 2, "moe_loss_weight": 0.05},
    "max_seq_len": 512,
    "n_heads": 8,
    "n_layers": 2,
    "vocab_size": 128,
}
SWITCH = {
    "model_type": "switch_transformers",
    "d_ff": 96,
    "d_kv": 16,
    "d_model": 64,
    "dense_act_fn": "relu",
    "is_gated_act": False,
    "n_positions": 512,
    "num_decoder_layers": 4,
    "num_experts": 8,
    "num_heads": 4,
    "num_layers": 6,
    "num_sparse_decoder_layers": 2,
    "num_sparse_encoder_layers": 2,
    "relative_attention_num_buckets": 32,
    "router_bias": False,
    "vocab_size": 128,
}


def published(name: str) -> dict:
    """The fields of one of them."""
    return DECODER | {"model_type": name.split()[0]} | PUBLISHED[name]


COMPONENTS = {
    "granitemoehybrid dense": {"dense_ffn": r"\.shared_mlp\.", "shared_experts": r"^$"},
    "dbrx": {"router": r"\.ffn\.router\."},
}
"""Names of parameters that mean another part in one model, by component."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_equal_transformers(name):
    """Every component is exact."""
    check_counts(published(name), COMPONENTS.get(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_cache_equals_transformers(name):
    """A running model keeps as many bytes."""
    check_cache(published(name))


def test_counts_of_dbrx_equal_transformers():
    """Its fields have names of their own, in two mappings."""
    check_counts(DBRX)


def test_cache_of_dbrx_equals_transformers():
    """Its fields have names of their own, in two mappings."""
    check_cache(DBRX)


def test_counts_of_switch_equal_transformers():
    """Both stacks hold experts in some of their layers."""
    check_counts(SWITCH)


WRAPPED = {
    "qwen3_vl_moe": PUBLISHED["qwen3_moe"],
    "glm4v_moe": PUBLISHED["glm4_moe air"],
    "aria": PUBLISHED["aria_text"],
}
"""Fields of the language model inside models that also see, by the `model_type` of the whole."""


@pytest.mark.parametrize("model_type", WRAPPED)
def test_counts_inside_a_vision_model_equal_transformers(model_type):
    """The language model is found in it, the vision tower left out."""
    text = DECODER | WRAPPED[model_type] | {"model_type": f"{model_type}_text"}
    check_counts({"model_type": model_type, "text_config": text, "vision_config": {}, "tie_word_embeddings": False})


def test_counts_inside_intern_vl_equal_transformers():
    """Its language model is of another family."""
    text = published("qwen3_moe")
    check_counts({"model_type": "internvl", "text_config": text, "vision_config": {}, "tie_word_embeddings": False})
