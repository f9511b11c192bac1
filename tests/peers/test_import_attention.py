"""Models with softmax attention over all tokens, imported from a config.json, against their Transformers class."""

import pytest
from importing import check_cache, check_counts

PUBLISHED = {
    "qwen3_moe": {
        "attention_bias": False,
        "decoder_sparse_step": 1,
        "head_dim": 16,
        "hidden_size": 64,
        "intermediate_size": 96,
        "max_position_embeddings": 512,
        "max_window_layers": 4,
        "mlp_only_layers": [1],
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
        "num_attention_heads": 8,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "vocab_size": 128,
    },
}
"""Fields of a published config.json by `model_type`, with small sizes."""


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_counts_equal_transformers(model_type):
    """Every component is exact."""
    check_counts({"model_type": model_type} | PUBLISHED[model_type])


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_cache_equals_transformers(model_type):
    """A running model keeps as many bytes."""
    check_cache({"model_type": model_type} | PUBLISHED[model_type])
