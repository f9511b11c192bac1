"""Models with windows in some layers, imported from a config.json, against their Transformers class."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers as hf
from importing import BATCH, check_counts, imported, transformers_config
from torch import nn
from transformers.models.step3p7.configuration_step3p7 import Step3p7TextConfig
from transformers.models.step3p7.modeling_step3p7 import Step3p7PreTrainedModel, Step3p7TextModel

from prophet_moe.catalog import Architecture
from prophet_moe.params import caches

LOCAL, FULL = "sliding_attention", "full_attention"
WINDOW = 6
"""Tokens of a window, fewer than the longest text."""
SIZES = {
    "head_dim": 16,
    "hidden_size": 64,
    "max_position_embeddings": 512,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "vocab_size": 128,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
"""Fields of nearly all families."""

PUBLISHED = {
    "gpt_oss": GROUPED
    | {
        "attention_bias": True,
        "experts_per_token": 2,
        "hidden_act": "silu",
        "initial_context_length": 64,
        "intermediate_size": 32,
        "layer_types": [LOCAL, FULL] * 2,
        "num_experts_per_tok": 2,
        "num_local_experts": 4,
        "sliding_window": WINDOW,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
    },
    "llama4_text": GROUPED
    | {
        "attention_bias": False,
        "attention_chunk_size": WINDOW,
        "attn_scale": 0.1,
        "attn_temperature_tuning": True,
        "floor_scale": 8192,
        "for_llm_compressor": False,
        "interleave_moe_layer_step": 2,
        "intermediate_size": 32,
        "intermediate_size_mlp": 48,
        "moe_layers": [1, 3],
        "no_rope_layers": [1, 1, 1, 0],
        "num_experts_per_tok": 1,
        "num_local_experts": 4,
        "use_qk_norm": True,
    },
    "gemma4_text": GROUPED
    | {
        "attention_bias": False,
        "attention_k_eq_v": True,
        "enable_moe_block": True,
        "final_logit_softcapping": 30.0,
        "global_head_dim": 32,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size_per_layer_input": 0,
        "intermediate_size": 48,
        "layer_types": [LOCAL, LOCAL, LOCAL, FULL],
        "moe_intermediate_size": 32,
        "num_experts": 4,
        "num_global_key_value_heads": 1,
        "num_kv_shared_layers": 0,
        "sliding_window": WINDOW,
        "tie_word_embeddings": True,
        "top_k_experts": 2,
        "use_bidirectional_attention": "vision",
        "use_double_wide_mlp": False,
        "vocab_size_per_layer_input": 128,
    },
    "mimo_v2_flash": GROUPED
    | {
        "attention_bias": False,
        "attention_value_scale": 0.707,
        "intermediate_size": 48,
        "layer_types": [FULL, LOCAL, LOCAL, FULL],
        "mlp_layer_types": ["dense"] + ["sparse"] * 3,
        "moe_intermediate_size": 32,
        "n_group": 1,
        "n_routed_experts": 4,
        "n_shared_experts": None,
        "num_experts_per_tok": 2,
        "sliding_window_size": WINDOW - 1,
        "swa_head_dim": 16,
        "swa_num_attention_heads": 8,
        "swa_num_key_value_heads": 4,
        "swa_v_head_dim": 8,
        "topk_group": 1,
        "v_head_dim": 8,
    },
    "afmoe": GROUPED
    | {
        "global_attn_every_n_layers": 4,
        "intermediate_size": 48,
        "moe_intermediate_size": 32,
        "mup_enabled": True,
        "n_group": 1,
        "num_dense_layers": 1,
        "num_expert_groups": 1,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_limited_groups": 1,
        "num_shared_experts": 2,
        "route_norm": True,
        "route_scale": 2.826,
        "score_func": "sigmoid",
        "sliding_window": WINDOW,
        "topk_group": 1,
        "use_grouped_mm": True,
    },
    "exaone_moe": GROUPED
    | {
        "first_k_dense_replace": 1,
        "intermediate_size": 48,
        "layer_types": [LOCAL, LOCAL, LOCAL, FULL],
        "moe_intermediate_size": 32,
        "n_group": 1,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_shared_experts": 1,
        "sliding_window": WINDOW,
        "sliding_window_pattern": "LLLG",
        "topk_group": 1,
    },
    "mellum": GROUPED
    | {
        "attention_bias": False,
        "intermediate_size": 48,
        "layer_types": [LOCAL, LOCAL, LOCAL, FULL],
        "max_window_layers": 0,
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        "moe_intermediate_size": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": WINDOW,
        "use_sliding_window": True,
    },
    "laguna": GROUPED
    | {
        "attention_bias": False,
        "decoder_sparse_step": 1,
        "gating": "per-head",
        "gating_types": ["per_head"] * 4,
        "intermediate_size": 48,
        "layer_types": [FULL, LOCAL, LOCAL, LOCAL],
        "mlp_layer_types": ["dense"] + ["sparse"] * 3,
        "mlp_only_layers": [0],
        "moe_apply_router_weight_on_input": False,
        "moe_intermediate_size": 32,
        "moe_routed_scaling_factor": 2.5,
        "num_attention_heads_per_layer": [8, 12, 12, 10],
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "shared_expert_intermediate_size": 24,
        "sliding_window": WINDOW,
    },
    "cohere2_moe": GROUPED
    | {
        "expert_selection_fn": "sigmoid",
        "first_k_dense_replace": 1,
        "intermediate_size": 32,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_shared_experts": 2,
        "prefix_dense_intermediate_size": 48,
        "prefix_dense_sliding_window_pattern": 1,
        "rms_norm_eps": 1e-6,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 4,
    },
    "step3p5": SIZES
    | {
        "att_impl_type": "GQA",
        "attention_other_setting": {
            "attention_type": LOCAL,
            "head_dim": 16,
            "num_attention_groups": 2,
            "num_attention_heads": 12,
        },
        "intermediate_size": 48,
        "layer_types": [FULL, LOCAL, LOCAL, LOCAL, LOCAL],
        "max_seq_len": 512,
        "moe_intermediate_size": 32,
        "moe_layers_enum": "1,2,3",
        "moe_num_experts": 4,
        "moe_router_activation": "sigmoid",
        "moe_router_scaling_factor": 3.0,
        "moe_top_k": 2,
        "need_fp32_gate": True,
        "norm_expert_weight": True,
        "num_attention_groups": 2,
        "num_nextn_predict_layers": 1,
        "rope_theta": [5e6, 1e4, 1e4, 1e4, 1e4],
        "share_expert_dim": 24,
        "sliding_window": WINDOW,
        "swiglu_limits": [0.0] * 5,
        "use_head_wise_attn_gate": True,
        "use_moe": True,
        "use_moe_router_bias": True,
        "use_qk_norm": True,
    },
    "minimax_m3_vl_text": GROUPED
    | {
        "attention_output_gate": False,
        "dense_intermediate_size": 48,
        "hidden_act": "swigluoai",
        "intermediate_size": 32,
        "moe_layer_freq": [0, 1, 1, 1],
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "num_local_experts": 4,
        "qk_norm_type": "per_head",
        "rotary_dim": 8,
        "shared_intermediate_size": 24,
        "sparse_attention_config": {
            "sparse_attention_freq": [0, 1, 1, 1],
            "sparse_block_size": 4,
            "sparse_disable_index_value": [0, 1, 1, 1],
            "sparse_index_dim": 8,
            "sparse_init_block": 0,
            "sparse_local_block": 1,
            "sparse_num_index_heads": 2,
            "sparse_score_type": "max",
            "sparse_topk_blocks": 2,
            "use_sparse_attention": True,
        },
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
        "use_gemma_norm": True,
        "use_qk_norm": True,
        "use_routing_bias": True,
    },
}
"""Fields of a published config.json by `model_type`, with small sizes."""


COMPONENTS = {
    "afmoe": {"router": r"\.mlp\.router\.|\.expert_bias$"},
    "gemma4_text": {"router": r"\.layers\.\d+\.router\."},
}
"""Where a family names a component its own way."""

KEPT = ("keys", "values", "idx_keys")
"""Tensors of a layer of a cache; a layer with a window has its size as one more."""

QUERY_COUNTED = {"mimo_v2_flash": 0}
"""Tokens by which Transformers keeps fewer than a window between steps: the query, where the window counts it."""


class Step3p7ForCausalLM(Step3p7PreTrainedModel):
    """The language model of Step-3.7, which has no class of its own."""

    config_class = Step3p7TextConfig

    def __init__(self, config: hf.PreTrainedConfig) -> None:
        super().__init__(config)
        self.model = Step3p7TextModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, input_ids: torch.Tensor, use_cache: bool):
        """Return the output of the stack, with its cache."""
        return self.model(input_ids=input_ids, use_cache=use_cache)


hf.AutoModelForCausalLM.register(Step3p7TextConfig, Step3p7ForCausalLM, exist_ok=True)


def fields_of(model_type: str) -> dict[str, Any]:
    """The fields of a family's config.json."""
    return {"model_type": model_type} | PUBLISHED[model_type]


def kept_between_steps(arch: Architecture, tokens: int, query: int) -> int:
    """Bytes that Transformers keeps of a sequence: a window loses its oldest token to the next query."""
    windows = ((cache, cache.window or tokens + query) for cache in caches(arch))
    return sum(cache.bytes(min(tokens, window - query)) for cache, window in windows)


def measured(fields: Mapping[str, Any], tokens: int) -> float:
    """Bytes that the class keeps of a sequence."""
    with torch.device("cpu"):
        model = hf.AutoModelForCausalLM.from_config(transformers_config(fields))
    model = model.to(torch.bfloat16).requires_grad_(False).eval()
    kept = model(input_ids=torch.ones(BATCH, tokens, dtype=torch.long), use_cache=True).past_key_values
    tensors = (tensor for layer in kept.layers for name, tensor in vars(layer).items() if name in KEPT)
    return sum(tensor.nbytes for tensor in tensors) / BATCH


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_counts_equal_transformers(model_type):
    """Every component is exact."""
    check_counts(fields_of(model_type), COMPONENTS.get(model_type))


@pytest.mark.parametrize("model_type", PUBLISHED)
@pytest.mark.parametrize("tokens", [WINDOW - 1, 2 * WINDOW])
def test_cache_equals_transformers(model_type, tokens):
    """A running model keeps as many bytes, before its windows are full and after."""
    fields = fields_of(model_type)
    expected = kept_between_steps(imported(fields), tokens, QUERY_COUNTED.get(model_type, 1))
    assert measured(fields, tokens) == expected
