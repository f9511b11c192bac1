"""Traps of the config.json of families with latent attention, and what they refuse."""

import pytest

from prophet_moe.catalog.hugging_face import import_config
from prophet_moe.errors import UserError
from prophet_moe.params import active_parameters, caches, growing_bytes_per_token, parameter_counts
from tests.unit.catalog.hugging_face.importing import ABSENT, architecture, refusal

V3 = {
    "model_type": "deepseek_v3",
    "attention_bias": False,
    "first_k_dense_replace": 1,
    "hidden_size": 64,
    "intermediate_size": 96,
    "kv_lora_rank": 24,
    "max_position_embeddings": 512,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 6,
    "num_key_value_heads": 4,
    "q_lora_rank": 40,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "tie_word_embeddings": False,
    "v_head_dim": 12,
    "vocab_size": 128,
}
INDEXED = V3 | {"model_type": "glm_moe_dsa", "index_head_dim": 16, "index_n_heads": 4, "index_topk": 5}
V4 = {
    "model_type": "deepseek_v4",
    "compress_ratios": [0, 0, 4, 128, 4, 128, 0],
    "head_dim": 16,
    "hc_mult": 4,
    "hidden_size": 64,
    "index_head_dim": 16,
    "index_n_heads": 4,
    "index_topk": 4,
    "max_position_embeddings": 512,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hash_layers": 3,
    "num_hidden_layers": 6,
    "num_key_value_heads": 1,
    "num_nextn_predict_layers": 1,
    "o_groups": 2,
    "o_lora_rank": 24,
    "q_lora_rank": 40,
    "sliding_window": 8,
    "vocab_size": 128,
}
LONGCAT = {
    "model_type": "longcat_flash",
    "attention_method": "MLA",
    "expert_ffn_hidden_size": 32,
    "ffn_hidden_size": 96,
    "hidden_size": 64,
    "kv_lora_rank": 24,
    "max_position_embeddings": 512,
    "moe_topk": 12,
    "n_routed_experts": 8,
    "num_attention_heads": 4,
    "num_layers": 3,
    "q_lora_rank": 40,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "vocab_size": 128,
    "zero_expert_num": 4,
}


def test_rank_null_projects_queries_at_once():
    """`q_lora_rank: null` is an architecture of its own, as in DeepSeek-V2-Lite and Moonlight."""
    arch = import_config(V3 | {"q_lora_rank": None}, "config.json").architecture
    assert arch.mixers["attention"].q_lora_rank is None


def test_rank_that_is_not_stated_is_none_and_noted():
    """Tools that drop nulls leave the rank out where queries are projected at once."""
    config = {name: value for name, value in V3.items() if name != "q_lora_rank"}
    found = import_config(config, "config.json")
    assert found.architecture.mixers["attention"].q_lora_rank is None
    assert "q_lora_rank is not stated" in found.notes[0]
    assert not import_config(V3, "config.json").notes


def test_moe_layer_freq_spaces_layers_with_experts():
    """Experts stand in every second layer from the first one on, by the number of the layer."""
    assert architecture(V3, moe_layer_freq=2).moe_layers == (2, 4)


def test_dense_layers_that_disagree_are_refused():
    """Two fields that say which layers are dense must say the same."""
    types = ["dense"] * 2 + ["sparse"] * 4
    assert "mlp_layer_types: contradicts first_k_dense_replace" in refusal(V3, mlp_layer_types=types)


def test_shared_experts_share_the_routed_width():
    """Two shared experts are as wide as two routed ones."""
    assert architecture(V3).moe.shared_ffn == 64


def test_head_dim_of_a_cache_changes_nothing():
    """Files give head_dim of the rotary part, of hidden / heads or of the cache: no weight has it."""
    assert architecture(V3, head_dim=8) == architecture(V3, head_dim=16) == architecture(V3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_key_value_heads": 2}, "num_key_value_heads: differs"),
        ({"qk_head_dim": 30}, "qk_head_dim: is not qk_nope_head_dim + qk_rope_head_dim, 24"),
        ({"mlp_bias": True}, "mlp_bias: got True"),
        ({"first_k_dense_replace": None}, "first_k_dense_replace: is missing"),
        ({"engram_layers": [1]}, "engram_layers: got [1], which is not understood"),
        ({"num_local_experts": 16}, "n_routed_experts: got 8, but num_local_experts is 16"),
    ],
)
def test_fields_not_understood_are_refused(changed, message):
    """The message names the field."""
    assert message in refusal(V3, **changed)


def test_kimi_k25_reads_its_language_model():
    """The wrapper's text_config is a Kimi-K2, its vision tower is left out."""
    text = V3 | {"model_type": "kimi_k2"}
    wrapped = {"model_type": "kimi_k25", "text_config": text, "vision_config": {"depth": 2}, "media_token_id": 1}
    found = import_config(wrapped, "config.json")
    assert found.architecture == architecture(V3)
    assert found.left_out == ["the vision tower (vision_config)"]


def test_axk1_has_a_third_norm_beside_experts():
    """Layers with experts have one norm more than dense ones."""
    arch = architecture(V3, model_type="axk1")
    assert (arch.blocks["D"].norms, arch.blocks["M"].norms) == (2, 3)


def test_shared_indexers_keep_no_index_key():
    """A layer marked `shared` attends to what an earlier layer chose: it has no indexer and keeps no key of one."""
    marks = ["full", "shared", "shared", "full", "shared", "shared"]
    arch = architecture(INDEXED, indexer_types=marks)
    assert arch.mixers["shared"].sparse_top_k == 5
    kept = caches(arch)
    assert {cache.kind: cache.layers for cache in kept if cache.kind == "index_key"} == {"index_key": 2}
    assert parameter_counts(arch).indexer * 3 == parameter_counts(architecture(INDEXED)).indexer


@pytest.mark.parametrize("marks", ["FSSFSS", ["full", "shared", "shared"] * 2])
def test_patterns_of_indexers_mean_the_same_as_lists(marks):
    """GLM-5 has had a pattern of letters, of words, and a list."""
    listed = architecture(INDEXED, indexer_types=["full", "shared", "shared"] * 2)
    assert architecture(INDEXED, index_topk_pattern=marks) == listed


def test_indexer_every_so_many_layers_is_counted():
    """The published file of GLM-5.2 gives a period and the layers before it."""
    arch = architecture(INDEXED, index_topk_freq=2, index_skip_topk_offset=2)
    assert [arch.blocks[letter].mixer for letter in "DM"] == ["indexed", "indexed"]
    assert sum(cache.layers for cache in caches(arch) if cache.kind == "index_key") == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"index_topk_freq": 2}, "index_skip_topk_offset: is missing"),
        ({"indexer_types": ["full"] * 5}, "indexer_types: has 5 entries, expected 6"),
        ({"indexer_types": ["shared"] * 6}, "indexer_types: gives the first layer no indexer"),
        ({"indexer_types": ["half"] * 6}, "indexer_types: got 'half'"),
        ({"indexer_types": ["full"] * 6, "index_topk_pattern": "FSFSFS"}, "contradicts indexer_types"),
        ({"index_topk_pattern": 6}, "index_topk_pattern: expected 6 marks"),
        ({"index_topk_pattern": [["F"]] * 6}, "index_topk_pattern: expected 6 marks"),
        ({"index_topk_pattern": "FSX"}, "index_topk_pattern: expected 6 marks"),
        ({"layer_types": ["full_attention"] * 6}, "layer_types: got 'full_attention'"),
    ],
)
def test_indexers_that_disagree_are_refused(changed, message):
    """The message names the field."""
    assert message in refusal(INDEXED, **changed)


def test_deepseek_v4_of_the_reference_code_is_the_same():
    """Its FP8 files have another model_type, and tell by their class what they are."""
    other = V4 | {"model_type": "deepseek_ref", "architectures": ["DeepseekV4ForCausalLM"]}
    assert architecture(other) == architecture(V4)
    with pytest.raises(UserError, match="architectures: names no DeepSeek-V4"):
        architecture(other, architectures=["DeepseekV5ForCausalLM"])


def test_rotary_fields_of_deepseek_v4_change_nothing():
    """Transformers 5 writes those of compressed entries apart, and the width of a head without rotary positions."""
    assert architecture(V4, compress_rope_parameters={"rope_theta": 160000}, qk_nope_head_dim=8) == architecture(V4)


def test_compress_ratios_cover_the_draft_layer():
    """The list has one entry more than layers, of the draft layer, which is left out."""
    arch = architecture(V4)
    assert arch.pattern == ["2 x W", "2 x CH"]
    assert arch.mixers["sparse"].overlap
    assert arch == architecture(V4, compress_ratios=[0, 0, 4, 128, 4, 128])


def test_layer_types_name_the_same_compressed_layers():
    """Transformers writes names of layers where the published file has ratios."""
    names = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
    named = architecture(V4, compress_ratios=ABSENT, layer_types=[names[ratio] for ratio in V4["compress_ratios"][:6]])
    assert named == architecture(V4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"compress_ratios": [0, 0, 4]}, "compress_ratios: has 3 entries, expected 6, one per layer, or 7"),
        ({"compress_ratios": [0, 0, 2, 128, 4, 128]}, "compress_ratios: got 2"),
        ({"compress_ratios": None}, "compress_ratios: is missing"),
        ({"num_key_value_heads": 4}, "num_key_value_heads: got 4"),
        ({"mlp_layer_types": ["dense"] * 6}, "mlp_layer_types: got 'dense'"),
        ({"compress_rates": {"compressed_sparse_attention": 4}}, "compress_rates.heavily_compressed_attention"),
    ],
)
def test_compressed_layers_not_understood_are_refused(changed, message):
    """The message names the field."""
    assert message in refusal(V4, **changed)


def test_longcat_layers_attend_twice():
    """28 published layers are 56 attentions, and zero experts are chosen but have no weights."""
    arch = architecture(LONGCAT)
    assert arch.pattern == ["3 x AB"]
    assert growing_bytes_per_token(caches(arch)) == 6 * 2 * (24 + 8)
    assert arch.moe.zero_experts == 4
    assert active_parameters(arch) == parameter_counts(arch).total


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"zero_expert_type": "copy"}, "zero_expert_type: got 'copy'"),
        ({"attention_method": "LSA"}, "attention_method: got 'LSA'"),
        ({"num_hidden_layers": 5}, "num_hidden_layers: expected num_layers, 3"),
        ({"oe_vocab_size_ratio": 78}, "oe_vocab_size_ratio: got 78, which is not understood"),
    ],
)
def test_longcat_variants_are_refused(changed, message):
    """LongCat-2 and its n-gram embeddings have the same model_type and other weights."""
    assert message in refusal(LONGCAT, **changed)


@pytest.mark.parametrize("model_type", ["axk2", "mistral_large4_text"])
def test_families_not_expressible_say_why(model_type):
    """The message has the reason."""
    assert f"model_type: '{model_type}' cannot be expressed: " in refusal({"model_type": model_type})


def test_deepseek_moe_16b_counts_equal_published():
    """The first DeepSeek-MoE has softmax attention; its file as published gives 16.4 billion parameters."""
    fields = {
        "model_type": "deepseek",
        "attention_bias": False,
        "aux_loss_alpha": 0.001,
        "first_k_dense_replace": 1,
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "max_position_embeddings": 4096,
        "moe_intermediate_size": 1408,
        "moe_layer_freq": 1,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_attention_heads": 16,
        "num_experts_per_tok": 6,
        "num_hidden_layers": 28,
        "num_key_value_heads": 16,
        "tie_word_embeddings": False,
        "vocab_size": 102400,
    }
    assert parameter_counts(architecture(fields)).total == 16_375_728_128
