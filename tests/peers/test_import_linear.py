"""Models with linear attention, Mamba or short convolutions, imported from a config.json, against their class."""

import pytest
import torch
import transformers as hf
from importing import (
    BATCH,
    COMPONENTS,
    bytes_per_sequence,
    check_cache,
    check_counts,
    imported,
    transformers_config,
)

from prophet_moe.params import caches, state_bytes_per_sequence

SIZES = {
    "hidden_size": 64,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    "vocab_size": 128,
}
"""Small sizes of what all families have."""
MLA = {
    "kv_lora_rank": 24,
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
EXPERTS = {"moe_intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 2}
DELTA_NET = {
    "attention_bias": False,
    "head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 12,
    "num_key_value_heads": 2,
}
PUBLISHED = {
    "qwen3_next": SIZES
    | EXPERTS
    | DELTA_NET
    | {
        "decoder_sparse_step": 1,
        "full_attention_interval": 4,
        "intermediate_size": 96,
        "mlp_only_layers": [1],
        "shared_expert_intermediate_size": 40,
        "use_sliding_window": False,
    },
    "qwen3_5_moe_text": SIZES
    | EXPERTS
    | DELTA_NET
    | {
        "attn_output_gate": True,
        "full_attention_interval": 2,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "mamba_ssm_dtype": "float32",
        "mlp_only_layers": [],
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "shared_expert_intermediate_size": 40,
    },
    "qwen3_5_text": SIZES
    | DELTA_NET
    | {"attn_output_gate": True, "full_attention_interval": 4, "intermediate_size": 96},
    "nemotron_h": SIZES
    | {
        "attention_bias": False,
        "conv_kernel": 4,
        "expand": 2,
        "head_dim": 16,
        "hybrid_override_pattern": "MEM*M-",
        "intermediate_size": 48,
        "mamba_head_dim": 8,
        "mamba_num_heads": 4,
        "mamba_ssm_cache_dtype": "float32",
        "mlp_hidden_act": "relu2",
        "moe_intermediate_size": 32,
        "moe_latent_size": 24,
        "moe_shared_expert_intermediate_size": 40,
        "n_groups": 2,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 6,
        "num_key_value_heads": 2,
        "residual_in_fp32": False,
        "ssm_state_size": 16,
        "time_step_limit": [0.0, 1.0],
        "use_bias": False,
        "use_conv_bias": True,
    },
    "kimi_linear": SIZES
    | MLA
    | {
        "first_k_dense_replace": 1,
        "head_dim": 16,
        "intermediate_size": 96,
        "linear_attn_config": {
            "full_attn_layers": [4],
            "head_dim": 8,
            "kda_layers": [1, 2, 3],
            "num_heads": 4,
            "short_conv_kernel_size": 4,
        },
        "mla_use_nope": True,
        "model_max_length": 512,
        "moe_intermediate_size": 32,
        "moe_layer_freq": 1,
        "moe_renormalize": True,
        "moe_router_activation_func": "sigmoid",
        "num_expert_group": 1,
        "num_experts": 8,
        "num_experts_per_token": 2,
        "num_nextn_predict_layers": 0,
        "num_shared_experts": 2,
        "topk_group": 1,
        "use_grouped_topk": True,
    },
    "bailing_hybrid": SIZES
    | MLA
    | {
        "first_k_dense_replace": 1,
        "gated_attention_proj_granularity_type": "head_wise",
        "group_norm_size": 1,
        "head_dim": 16,
        "intermediate_size": 96,
        "kda_lower_bound": -5.0,
        "kda_safe_gate": True,
        "layer_group_size": 4,
        "linear_silu": True,
        "moe_intermediate_size": 32,
        "moe_router_enable_expert_bias": True,
        "n_group": 2,
        "no_kda_lora": True,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "num_nextn_predict_layers": 1,
        "num_shared_experts": 1,
        "short_conv_kernel_size": 4,
        "topk_group": 1,
        "use_kda_lora": False,
        "use_qk_norm": True,
    },
    "minimax": SIZES
    | {
        "block_size": 4,
        "head_dim": 16,
        "intermediate_size": 96,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "num_experts_per_tok": 2,
        "num_key_value_heads": 2,
        "num_local_experts": 8,
    },
    "lfm2_moe": SIZES
    | EXPERTS
    | {
        "conv_L_cache": 3,
        "conv_bias": False,
        "intermediate_size": 96,
        "layer_types": ["conv", "conv", "full_attention", "conv"],
        "norm_eps": 1e-05,
        "num_dense_layers": 2,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "use_expert_bias": True,
    },
    "lfm2": SIZES
    | {
        "block_auto_adjust_ff_dim": True,
        "block_ff_dim": 100,
        "block_ffn_dim_multiplier": 1.3,
        "block_multiple_of": 16,
        "conv_L_cache": 3,
        "conv_bias": True,
        "layer_types": ["conv", "conv", "full_attention", "conv"],
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}
"""Fields of a published config.json by `model_type`, with small sizes."""
LAST_ATTENDS = {"state_mixer": r"layers\.[0-2]\.self_attn\.", "attention": r"layers\.3\.self_attn\."}
CONVOLUTIONS = {
    "dense_ffn": r"\.feed_forward\.w\d\.",
    "norms": r"\.\w*_norm\.weight|^model\.embedding_norm",
    "router": r"\.feed_forward\.gate\.",
}
NAMES = {
    "kimi_linear": LAST_ATTENDS,
    "bailing_hybrid": LAST_ATTENDS,
    "minimax": LAST_ATTENDS,
    "lfm2_moe": CONVOLUTIONS,
    "lfm2": CONVOLUTIONS,
    "nemotron_h": {
        "state_mixer": r"layers\.[024]\.mixer\.",
        "attention": r"layers\.3\.mixer\.",
        "dense_ffn": r"layers\.5\.mixer\.",
        "router": r"\.mixer\.gate\.",
        "latent_projections": r"_latent_proj\.",
        "norms": r"\.layers\.\d\.norm\.|\.norm_f\.",
    },
}
"""Patterns of names of parameters where a family has its own."""


def fields(model_type):
    """Small fields of a family."""
    return {"model_type": model_type} | PUBLISHED[model_type]


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_counts_equal_transformers(model_type):
    """Every component is exact."""
    check_counts(fields(model_type), NAMES.get(model_type))


@pytest.mark.parametrize("model_type", sorted(set(PUBLISHED) - {"minimax"}))
def test_cache_and_state_equal_transformers(model_type):
    """A running model keeps as many bytes of K and V or latents, of convolutions and of recurrent state."""
    check_cache(fields(model_type))


def test_minimax_state_equals_transformers():
    """MiniMax keeps its recurrent states in BF16 beside the layers of its cache."""
    arch = imported(fields("minimax"))
    model = hf.AutoModelForCausalLM.from_config(transformers_config(fields("minimax"))).to(torch.bfloat16).eval()
    with torch.no_grad():
        kept = model(input_ids=torch.ones(BATCH, 5, dtype=torch.long), use_cache=True).past_key_values
    states = [state for state in kept.linear_cache if isinstance(state, torch.Tensor)]
    assert sum(state.nbytes for state in states) / BATCH == state_bytes_per_sequence(arch)
    assert bytes_per_sequence(kept) == sum(cache.bytes(5) for cache in caches(arch))


@pytest.mark.parametrize("name", ["use_bias", "use_conv_bias"])
def test_mamba_biases_equal_transformers(name):
    """Biases of Mamba's projections and convolution are exact."""
    other = fields("nemotron_h")
    check_counts(other | {name: not other[name]}, NAMES["nemotron_h"])


def test_bailing_rank_equals_transformers():
    """Ling-3.0-tiny compresses its queries, unlike Ling-3.0-flash."""
    check_counts(fields("bailing_hybrid") | {"q_lora_rank": 40}, LAST_ATTENDS)


def test_components_name_every_pattern():
    """A family's own patterns replace patterns that there are."""
    assert {component for names in NAMES.values() for component in names} <= set(COMPONENTS)
