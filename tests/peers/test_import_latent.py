"""Models with latent attention, imported from a config.json, against their Transformers class."""

import pytest
import transformers as hf
from importing import COMPONENTS, check_cache, check_counts, counts_of_class, imported, transformers_config

from prophet_moe.params import caches, parameter_counts

COMMON = {
    "attention_bias": False,
    "hidden_size": 64,
    "kv_lora_rank": 24,
    "max_position_embeddings": 512,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "n_routed_experts": 8,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "q_lora_rank": 40,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "v_head_dim": 12,
    "vocab_size": 128,
}
"""Small sizes of what all families have."""
LAYERS = {"intermediate_size": 96, "n_shared_experts": 2, "num_hidden_layers": 4, "num_key_value_heads": 4}
FIRST = LAYERS | {"first_k_dense_replace": 1}
INDEX = {"index_head_dim": 16, "index_n_heads": 4, "index_topk": 4}
LISTED = LAYERS | {"first_k_dense_replace": 2, "mlp_layer_types": ["dense"] * 2 + ["sparse"] * 2}
PUBLISHED = {
    "deepseek_v2": FIRST | {"moe_layer_freq": 1, "topk_method": "greedy", "topk_group": None, "n_group": None},
    "deepseek_v3": FIRST | {"moe_layer_freq": 1, "num_nextn_predict_layers": 1, "scoring_func": "sigmoid"},
    "deepseek_v32": FIRST | INDEX | {"moe_layer_freq": 1, "num_nextn_predict_layers": 1},
    "glm_moe_dsa": LISTED
    | INDEX
    | {"indexer_types": ["full", "shared", "full", "shared"], "indexer_rope_interleave": True, "head_dim": 24},
    "glm4_moe_lite": LISTED | {"num_nextn_predict_layers": 1},
    "axk1": LISTED,
    "mistral4": FIRST,
    "sarvam_mla": FIRST | {"q_lora_rank": None, "q_head_dim": 24, "head_dim": 32},
}
"""Fields of a published config.json by `model_type`."""
ROUTER_NORM = {"norms": rf"{COMPONENTS['norms']}|\.post_mlp_layernorm\."}
V4 = {
    "compress_ratios": [0, 4, 128, 4, 0],
    "head_dim": 16,
    "hc_mult": 2,
    "hidden_size": 64,
    "index_head_dim": 16,
    "index_n_heads": 4,
    "index_topk": 4,
    "max_position_embeddings": 512,
    "model_type": "deepseek_v4",
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hash_layers": 1,
    "num_hidden_layers": 4,
    "num_key_value_heads": 1,
    "num_nextn_predict_layers": 1,
    "o_groups": 2,
    "o_lora_rank": 24,
    "q_lora_rank": 40,
    "qk_rope_head_dim": 8,
    "sliding_window": 8,
    "tie_word_embeddings": False,
    "vocab_size": 128,
}
LONGCAT = {
    "attention_method": "MLA",
    "expert_ffn_hidden_size": 32,
    "ffn_hidden_size": 96,
    "model_type": "longcat_flash",
    "moe_topk": 2,
    "num_layers": 2,
    "zero_expert_num": 3,
    "zero_expert_type": "identity",
}


def fields(model_type):
    """Small fields of a family."""
    return {"model_type": model_type} | COMMON | PUBLISHED[model_type]


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_counts_equal_transformers(model_type):
    """Every component is exact."""
    check_counts(fields(model_type), ROUTER_NORM)


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_cache_equals_transformers(model_type):
    """A running model keeps as many bytes: a latent, a rotary key, and an index key where the layer has an indexer."""
    check_cache(fields(model_type))


BIASED = [(family, rank) for family in ("deepseek_v2", "deepseek_v3", "mistral4") for rank in (None, 40)]
BIASED += [("deepseek_v32", 40)]
"""Families with biases, and ranks of their queries; an indexer has its queries from compressed ones alone."""


@pytest.mark.parametrize(("model_type", "rank"), BIASED)
def test_biases_equal_transformers(model_type, rank):
    """Queries that are projected at once have no bias, whatever attention_bias says."""
    check_counts(fields(model_type) | {"attention_bias": True, "q_lora_rank": rank})


def test_youtu_counts_equal_transformers():
    """A dense model with latent attention and tied embeddings is exact."""
    dense = {name: value for name, value in COMMON.items() if not name.startswith(("n_", "moe", "topk", "num_exp"))}
    sizes = {"intermediate_size": 96, "num_key_value_heads": 4, "num_hidden_layers": 2, "tie_word_embeddings": True}
    check_counts({"model_type": "youtu"} | dense | sizes)


def test_deepseek_v4_counts_equal_transformers():
    """All three kinds of layers are exact, with residual streams and a list of ratios that covers the draft layer."""
    components = {
        "attention": r"\.self_attn\.(?!compressor\.indexer\.)",
        "indexer": r"\.compressor\.indexer\.",
        "hyper_connections": r"_hc\.|\.hc_head\.",
    }
    check_counts(V4, components)


def test_longcat_counts_equal_transformers():
    """Counts are exact but for the rows that Transformers allocates for experts that have no weights."""
    given = COMMON | LONGCAT
    del given["moe_intermediate_size"], given["num_experts_per_tok"]
    names = {"router": r"\.mlp\.router\.", "dense_ffn": r"\.mlps\.", "norms": r"_layernorm\.\d\.|^model\.norm\."}
    expected = counts_of_class(transformers_config(given), COMPONENTS | names)
    expected["routed_experts"] -= 2 * 3 * 2 * 32 * 64
    counted = parameter_counts(imported(given))
    assert {name: getattr(counted, name) for name in expected} == expected
    assert counted.total == expected.total()


def test_longcat_cache_equals_transformers():
    """Every one of two attentions per layer keeps a latent and a rotary key."""
    given = {name: value for name, value in (COMMON | LONGCAT).items() if name != "moe_intermediate_size"}
    arch = imported(given)
    assert sum(cache.bytes(5) for cache in caches(arch)) == 4 * 5 * 2 * (24 + 8)
    assert hf.LongcatFlashConfig(num_layers=2).num_hidden_layers == 4
