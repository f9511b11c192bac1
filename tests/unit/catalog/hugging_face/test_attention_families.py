"""Families with softmax attention over all tokens: published files, and what must be refused."""

import pytest

from prophet_moe import params
from prophet_moe.errors import UserError
from tests.unit.catalog.hugging_face.importing import architecture, imported, refusal

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
}
EXPERTS = {"num_experts_per_tok": 2, "num_experts": 8, "moe_intermediate_size": 32}
MIXTRAL = SIZES | {"model_type": "mixtral", "num_experts_per_tok": 2, "num_local_experts": 8}
QWEN3 = SIZES | EXPERTS | {"model_type": "qwen3_moe", "head_dim": 16}
GLM = (
    SIZES
    | {"model_type": "glm4_moe", "num_experts_per_tok": 2, "n_routed_experts": 8, "moe_intermediate_size": 32}
    | {"n_shared_experts": 1, "first_k_dense_replace": 1, "head_dim": 16, "attention_bias": True, "use_qk_norm": True}
)

MINIMAX = MIXTRAL | {"model_type": "minimax_m2", "head_dim": 16, "use_qk_norm": True, "qk_norm_type": "per_layer"}
HY3 = QWEN3 | {"model_type": "hy_v3", "num_shared_experts": 1, "first_k_dense_replace": 1}
ERNIE = SIZES | {
    "model_type": "ernie4_5_moe",
    "moe_intermediate_size": 32,
    "moe_k": 2,
    "moe_layer_start_index": 1,
    "moe_num_experts": 8,
    "moe_num_shared_experts": 0,
}
DOTS = GLM | {"model_type": "dots1", "attention_bias": False}
for unused in ("head_dim", "use_qk_norm"):
    del DOTS[unused]
DBRX = {
    "model_type": "dbrx",
    "attn_config": {"clip_qkv": 8, "kv_n_heads": 2, "rope_theta": 500000, "model_type": "", "top_k": 50},
    "d_model": 64,
    "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 8, "moe_top_k": 2, "tie_word_embeddings": True},
    "max_seq_len": 512,
    "n_heads": 8,
    "n_layers": 2,
    "vocab_size": 128,
}
JAMBA = SIZES | {
    "model_type": "jamba",
    "attn_layer_offset": 4,
    "attn_layer_period": 8,
    "expert_layer_offset": 1,
    "expert_layer_period": 2,
    "mamba_d_conv": 4,
    "mamba_d_state": 16,
    "mamba_dt_rank": "auto",
    "mamba_expand": 2,
    "num_experts": 16,
    "num_experts_per_tok": 2,
}
GROK2 = {
    "architectures": ["Grok1ForCausalLM"],
    "attn_factor": 1.0,
    "attn_logit_softcapping": 30.0,
    "attn_temperature_len": 1024,
    "beta_fast": 8,
    "beta_slow": 1,
    "embedding_multiplier_scale": 90.50966799187809,
    "extrapolation_factor": 1.0,
    "final_logit_softcapping": 50,
    "global_attn_every_n": 1,
    "head_dim": 128,
    "hidden_size": 8192,
    "intermediate_size": 32768,
    "max_position_embeddings": 131072,
    "model_type": "git",
    "moe_intermediate_size": 16384,
    "num_attention_heads": 64,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "original_max_position_embeddings": 8192,
    "output_multiplier_scale": 0.5,
    "residual_moe": True,
    "rms_norm_eps": 1e-05,
    "rope_theta": 208533496,
    "rope_type": "original",
    "router_logit_softcapping": 30.0,
    "scaling_factor": 16.0,
    "sliding_window_size": -1,
    "torch_dtype": "bfloat16",
    "vocab_size": 131072,
}
LING_MINI = {
    "architectures": ["BailingMoeV2ForCausalLM"],
    "first_k_dense_replace": 1,
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "max_position_embeddings": 32768,
    "model_type": "bailing_moe",
    "moe_intermediate_size": 512,
    "moe_router_enable_expert_bias": True,
    "moe_shared_expert_intermediate_size": 512,
    "n_group": 8,
    "num_attention_heads": 16,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 20,
    "num_key_value_heads": 4,
    "num_nextn_predict_layers": 0,
    "num_shared_experts": 1,
    "partial_rotary_factor": 0.5,
    "routed_scaling_factor": 2.5,
    "router_dtype": "fp32",
    "score_function": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "use_bias": False,
    "use_qk_norm": True,
    "use_qkv_bias": False,
    "use_rmsnorm": True,
    "vocab_size": 157184,
}
LING_LITE = {
    "architectures": ["BailingMoeForCausalLM"],
    "embedding_dropout": 0.0,
    "first_k_dense_replace": 0,
    "hidden_size": 2048,
    "intermediate_size": 1408,
    "max_position_embeddings": 32768,
    "model_type": "bailing_moe",
    "moe_intermediate_size": 1408,
    "norm_head": False,
    "norm_softmax": False,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "num_shared_experts": 2,
    "output_dropout": 0.0,
    "use_bias": False,
    "use_qkv_bias": False,
    "vocab_size": 126464,
}
HUNYUAN_LARGE = {
    "architectures": ["HunYuanForCausalLM"],
    "attention_bias": False,
    "cla_share_factor": 2,
    "hidden_size": 6400,
    "intermediate_size": 18304,
    "max_position_embeddings": 131072,
    "model_type": "hunyuan",
    "moe_topk": 1,
    "num_attention_heads": 80,
    "num_experts": 16,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
    "num_shared_expert": 1,
    "rope_scaling": {"alpha": 1000.0, "factor": 1.0, "type": "dynamic"},
    "tie_word_embeddings": True,
    "use_cla": True,
    "use_mixed_mlp_moe": True,
    "use_qk_norm": True,
    "vocab_size": 129024,
}
GRANITE_SMALL = {
    "attention_bias": False,
    "attention_multiplier": 0.0078125,
    "hidden_size": 4096,
    "intermediate_size": 768,
    "layer_types": ["attention" if layer % 10 == 5 else "mamba" for layer in range(40)],
    "mamba_chunk_size": 256,
    "mamba_conv_bias": True,
    "mamba_d_conv": 4,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "mamba_n_heads": 128,
    "mamba_proj_bias": False,
    "max_position_embeddings": 131072,
    "model_type": "granitemoehybrid",
    "normalization_function": "rmsnorm",
    "num_attention_heads": 32,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "num_local_experts": 72,
    "position_embedding_type": "nope",
    "shared_intermediate_size": 1536,
    "tie_word_embeddings": True,
    "vocab_size": 100352,
}
ARCTIC = {
    "enc_index": list(range(35)),
    "hidden_size": 7168,
    "intermediate_size": 4864,
    "max_position_embeddings": 4096,
    "model_type": "arctic",
    "moe_layer_frequency": 1,
    "num_attention_heads": 56,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 35,
    "num_key_value_heads": 8,
    "num_local_experts": 128,
    "parallel_attn_mlp_res": True,
    "sliding_window": None,
    "use_residual": True,
    "vocab_size": 32000,
}
LLAMA_2 = SIZES | {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
QWEN2_DENSE = SIZES | {"model_type": "qwen2", "intermediate_size": 64}
LLAMA_2 |= {"num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000}


def without(fields, *names):
    return {name: value for name, value in fields.items() if name not in names}


@pytest.mark.parametrize(
    ("fields", "total", "active", "growing"),
    [
        (GROK2, 269_515_497_472, 114_896_674_816, 262_144),
        (LING_MINI, 16_255_638_528, 1_432_968_192, 40_960),
        (LING_LITE, 16_801_974_272, 2_753_153_024, 57_344),
        (HUNYUAN_LARGE, 388_701_405_440, 51_322_077_440, 81_920),
        (GRANITE_SMALL, 32_207_337_984, 8_803_121_664, 16_384),
        (ARCTIC, 478_584_608_768, 17_318_647_808, 143_360),
        (LLAMA_2, 6_738_415_616, 6_738_415_616, 524_288),
    ],
)
def test_published_file_has_the_published_counts(fields, total, active, growing):
    arch = architecture(fields)
    counted = params.parameter_counts(arch).total, params.active_parameters(arch)
    assert counted == (total, active)
    assert params.growing_bytes_per_token(params.caches(arch)) == growing


ODD = (0, -1, 1.5, True, 2**80, "x", [], [[]], [{}], {}, {"a": 1})
"""Values that a field may hold in a broken file."""
BASES = (MIXTRAL, QWEN3, GLM, MINIMAX, HY3, ERNIE, DOTS, DBRX, JAMBA, GROK2, LING_MINI, LING_LITE, HUNYUAN_LARGE)
BASES += (GRANITE_SMALL, ARCTIC, LLAMA_2, LLAMA_2 | {"model_type": "mistral", "sliding_window": 64})


@pytest.mark.parametrize("fields", BASES, ids=lambda fields: fields["model_type"])
def test_broken_values_end_in_one_line_or_are_read(fields):
    told = {"layer_types": [], "mlp_layer_types": [], "mlp_only_layers": [], "sliding_window": 1, "attn_type_list": []}
    for name in fields | told:
        for value in ODD:
            try:
                imported(fields, **{name: value})
            except UserError as error:
                assert "\n" not in str(error)


def test_layers_beyond_any_model_are_refused():
    assert "num_hidden_layers: got 10001, expected a whole number" in refusal(MIXTRAL, num_hidden_layers=10_001)


def test_layers_of_hunyuan_large_share_keys_in_pairs():
    arch = architecture(HUNYUAN_LARGE)
    assert (arch.pattern, params.attention_layers(arch)) == (["32 x MR"], 32)


def test_arctic_has_a_dense_ffn_as_wide_as_hidden():
    assert architecture(ARCTIC).moe.dense_beside == 7168


def test_arctic_without_dense_ffn_is_refused():
    assert "parallel_attn_mlp_res: got False" in refusal(ARCTIC, parallel_attn_mlp_res=False)


def test_grok_1_that_hides_its_output_embedding_is_refused():
    fields = without(GROK2, "residual_moe", "moe_intermediate_size") | {"model_type": "grok-1"}
    assert "tie_word_embeddings: is missing" in refusal(fields)


def test_git_that_is_no_grok_is_refused():
    assert "architectures: names no Grok" in refusal(GROK2, architectures=["GitForCausalLM"])


@pytest.mark.parametrize("name", ["head_dim", "attention_bias", "use_qk_norm"])
def test_glm_without_what_the_class_guesses_is_refused(name):
    assert f"{name}: is missing" in refusal(without(GLM, name))


@pytest.mark.parametrize("fields", [QWEN3, MINIMAX, HY3, LING_MINI])
def test_wide_heads_without_head_dim_are_refused(fields):
    assert "head_dim: is missing" in refusal(without(fields, "head_dim"))


def test_heads_that_cannot_share_hidden_are_refused():
    assert "head_dim: is missing, and 7 heads" in refusal(MIXTRAL, num_attention_heads=7)


def test_experts_that_contradict_are_refused():
    assert "num_experts: got 8, but num_local_experts is 16" in refusal(QWEN3, num_local_experts=16)


def test_experts_under_two_names_are_read_once():
    assert architecture(QWEN3, num_local_experts=8).moe.experts == 8


@pytest.mark.parametrize("fields", [MIXTRAL, QWEN3, GLM, MINIMAX, HY3, ERNIE, DOTS, GROK2, LING_MINI, JAMBA, DBRX])
def test_unknown_field_is_refused_by_name(fields):
    assert "new_cache: got 3, which is not understood" in refusal(fields, new_cache=3)


def test_unknown_field_inside_dbrx_is_refused_by_path():
    inside = DBRX["ffn_config"] | {"new_part": 1}
    assert "ffn_config.new_part: got 1, which is not understood" in refusal(DBRX, ffn_config=inside)


@pytest.mark.parametrize("fields", [QWEN3, DOTS, LLAMA_2 | {"model_type": "qwen2"}])
def test_windows_in_some_layers_are_refused(fields):
    assert "use_sliding_window: got True" in refusal(fields, use_sliding_window=True, sliding_window=64)


def test_window_that_has_no_effect_is_left_out():
    assert params.bounded_bytes(params.caches(architecture(QWEN3, sliding_window=64))) == 0
    assert params.bounded_bytes(params.caches(architecture(MIXTRAL, sliding_window=512))) == 0


def test_window_of_all_layers_bounds_the_cache():
    kept = params.caches(architecture(MIXTRAL, sliding_window=64))
    assert (params.growing_bytes_per_token(kept), params.bounded_bytes(kept)) == (0, 64 * 4 * 2 * 2 * 8 * 2)


def test_layer_types_that_are_not_full_are_refused():
    kinds = ["full_attention"] * 3 + ["sliding_attention"]
    assert "layer_types: holds 'sliding_attention'" in refusal(DOTS, layer_types=kinds)


def test_list_of_another_length_is_refused():
    assert "layer_types: has 3 entries, expected 4" in refusal(DOTS, layer_types=["full_attention"] * 3)


def test_mistral_that_hides_its_window_is_refused():
    fields = LLAMA_2 | {"model_type": "mistral"}
    assert "sliding_window: is missing" in refusal(fields)
    assert architecture(fields, sliding_window=None).moe is None


def test_lightning_layers_in_minimax_are_refused():
    assert "attn_type_list: holds a layer that is not 1" in refusal(MINIMAX, attn_type_list=[1, 0, 1, 1])


def test_minimax_with_norms_per_head_is_refused():
    assert "qk_norm_type: got 'per_head'" in refusal(MINIMAX, qk_norm_type="per_head")


def test_draft_layers_are_named_as_left_out():
    left_out = imported(MINIMAX, num_mtp_modules=3, use_mtp=True).left_out
    assert left_out == ["3 draft (multi-token prediction) layers (num_mtp_modules)"]


def test_hy3_layer_types_that_contradict_are_refused():
    kinds = ["dense", "dense", "sparse", "sparse"]
    assert "mlp_layer_types: contradicts first_k_dense_replace" in refusal(HY3, mlp_layer_types=kinds)


def test_dense_layers_beyond_the_last_are_refused():
    assert "first_k_dense_replace: got 5, expected at most" in refusal(GLM, first_k_dense_replace=5)


def test_ernie_shared_experts_are_as_wide_as_routed_ones():
    moe = architecture(ERNIE, moe_num_shared_experts=2).moe
    assert (moe.shared_experts, moe.shared_ffn, moe.correction_bias) == (2, 64, True)


def test_ernie_without_a_count_of_shared_experts_is_refused():
    assert "moe_num_shared_experts: is missing" in refusal(without(ERNIE, "moe_num_shared_experts"))


def test_ernie_with_experts_of_two_widths_is_refused():
    fields = ERNIE | {"model_type": "ernie4_5_moe_vl", "moe_intermediate_size": [1536, 512]}
    assert "moe_intermediate_size: got [1536, 512]: experts of text and of images" in refusal(fields)


def test_hunyuan_lists_of_one_value_are_read():
    moe = architecture(
        HUNYUAN_LARGE, moe_topk=[8] * 64, num_shared_expert=[2] * 64, moe_intermediate_size=[64] * 64
    ).moe
    assert (moe.top_k, moe.ffn, moe.shared_experts, moe.shared_ffn) == (8, 64, 2, 2 * 18304)


def test_hunyuan_lists_that_differ_are_refused():
    assert "moe_topk: differs between layers" in refusal(HUNYUAN_LARGE, moe_topk=[8] * 63 + [4])


@pytest.mark.parametrize("model_type", ["hunyuan", "hunyuan_v1_moe"])
def test_hunyuan_without_a_count_of_experts_is_refused(model_type):
    fields = without(HUNYUAN_LARGE, "num_experts") | {"model_type": model_type, "use_cla": False}
    assert "num_experts: is missing" in refusal(fields)


def test_hunyuan_with_one_expert_is_dense():
    assert architecture(HUNYUAN_LARGE, num_experts=1, use_cla=False).moe is None


def test_ling_whose_shared_width_is_unclear_is_refused():
    assert "moe_shared_expert_intermediate_size: got 768" in refusal(LING_MINI, moe_shared_expert_intermediate_size=768)


def test_ling_2_without_norms_told_is_refused():
    assert "use_qk_norm: is missing" in refusal(without(LING_MINI, "use_qk_norm"))


def test_jamba_offset_beyond_its_period_is_refused():
    assert "attn_layer_offset: got 8, expected less than" in refusal(JAMBA, attn_layer_offset=8)


def test_jamba_rank_of_auto_is_a_sixteenth_of_hidden():
    assert architecture(JAMBA, num_hidden_layers=8).mixers["mamba"].dt_rank == 4


def test_jamba_with_one_expert_is_dense():
    assert architecture(JAMBA, num_experts=1, num_hidden_layers=8).moe is None


def test_granite_of_unknown_layers_is_refused():
    assert "layer_types: holds 'conv'" in refusal(GRANITE_SMALL, layer_types=["conv"] * 40)


def test_granite_without_routed_experts_is_dense():
    arch = architecture(GRANITE_SMALL, num_local_experts=0, num_experts_per_tok=0)
    assert (arch.moe, arch.ffns["ffn"].ffn) == (None, 1536)


def test_language_model_is_found_inside_a_thinker():
    text = QWEN3 | {"model_type": "qwen3_omni_moe_text", "do_sample": False, "top_k": 50, "is_decoder": False}
    thinker = {"model_type": "qwen3_omni_moe_thinker", "text_config": text, "audio_config": {}, "vision_config": {}}
    whole = {"model_type": "qwen3_omni_moe", "thinker_config": thinker, "talker_config": {}, "code2wav_config": {}}
    found = imported(whole)
    assert found.architecture == architecture(QWEN3)
    parts = ("talker_config", "code2wav_config", "vision_config", "audio_config")
    assert [name for name in parts if any(f"({name})" in what for what in found.left_out)] == list(parts)


def test_language_model_inherits_tied_embeddings():
    whole = {"model_type": "qwen3_vl_moe", "text_config": QWEN3, "vision_config": {}, "tie_word_embeddings": True}
    assert architecture(whole).tied_embeddings


def test_tied_embeddings_that_contradict_are_refused():
    text = QWEN3 | {"tie_word_embeddings": False}
    whole = {"model_type": "qwen3_vl_moe", "text_config": text, "tie_word_embeddings": True}
    assert "text_config.tie_word_embeddings: got False, but outside it is True" in refusal(whole)


def test_tied_embeddings_inside_are_a_default_and_noted():
    """Transformers 5 writes them into Qwen3-VL's language model, and reads those of the whole."""
    text = {"model_type": "qwen3_vl_moe_text"} | without(QWEN3, "model_type") | {"tie_word_embeddings": True}
    whole = {"model_type": "qwen3_vl_moe", "text_config": text, "tie_word_embeddings": False}
    found = imported(whole)
    assert found.architecture == architecture(QWEN3, tie_word_embeddings=False)
    assert found.notes == [
        "text_config.tie_word_embeddings: got True, but outside it is False, which holds for the whole model"
    ]


def test_cross_attention_is_refused():
    assert "add_cross_attention: got True" in refusal(QWEN3, add_cross_attention=True)
    assert imported(QWEN3, add_cross_attention=False)


def test_switch_has_experts_in_every_other_layer():
    fields = {"model_type": "switch_transformers", "d_ff": 3072, "d_kv": 64, "d_model": 768, "num_layers": 12}
    fields |= {"num_decoder_layers": 12, "num_sparse_encoder_layers": 6, "num_sparse_decoder_layers": 6}
    fields |= {"num_heads": 12, "num_experts": 128, "relative_attention_num_buckets": 32, "vocab_size": 32128}
    arch = architecture(fields)
    assert (arch.pattern, arch.encoder.pattern, arch.native_context) == (["6 x DM"], ["6 x DM"], 512)
    assert params.parameter_counts(arch).total == 7_415_217_408


def test_mimo_7b_is_qwen2():
    """Its draft layer is left out."""
    mimo = QWEN2_DENSE | {"model_type": "mimo", "attention_bias": True, "num_nextn_predict_layers": 1}
    assert architecture(mimo) == architecture(QWEN2_DENSE)
    assert "attention_bias: got False" in refusal(mimo, attention_bias=False)


def test_dense_vision_model_reads_its_language_model():
    """Qwen3-VL without experts has the layers of Qwen3."""
    dense = QWEN2_DENSE | {"model_type": "qwen3", "head_dim": 16}
    text = dense | {"model_type": "qwen3_vl_text"}
    found = imported({"model_type": "qwen3_vl", "text_config": text, "vision_config": {}})
    assert found.architecture == architecture(dense)
    assert found.left_out == ["the vision tower (vision_config)"]


def test_name_of_the_class_of_a_file_changes_nothing():
    """Older versions of Transformers wrote it into files of models that they had loaded."""
    assert imported(QWEN3, _from_model_config=True) == imported(QWEN3)


@pytest.mark.parametrize(
    "fields", [ARCTIC, DOTS, ERNIE, GRANITE_SMALL, HUNYUAN_LARGE, JAMBA], ids=lambda f: f["model_type"]
)
def test_kv_heads_missing_are_refused(fields):
    """Every file of these families states them; as many as query heads would make the cache several times larger."""
    assert "num_key_value_heads: is missing" in refusal(without(fields, "num_key_value_heads"))


@pytest.mark.parametrize("fields", [DOTS, GLM, HY3, LING_MINI], ids=lambda f: f["model_type"])
def test_shared_experts_not_stated_are_refused(fields):
    """Classes suppose one or more; null is none."""
    (name,) = (name for name in fields if name in ("n_shared_experts", "num_shared_experts"))
    assert f"{name}: is missing, expected the number of shared experts" in refusal(without(fields, name))
    assert architecture(without(fields, "moe_shared_expert_intermediate_size"), **{name: None}).moe.shared_experts == 0


def test_hunyuan_fields_of_its_vision_sibling_are_harmless():
    """Hunyuan-A13B's file has them, too."""
    more = {"vit_path": "x", "anyres_pooling_size": 2, "use_rotary_pos_emb": True, "position_embedding_xdrope": False}
    assert architecture(HUNYUAN_LARGE, **more) == architecture(HUNYUAN_LARGE)


def test_last_layer_of_ernie_comes_after_the_first():
    """The layers with experts are a range."""
    found = refusal(ERNIE, moe_layer_start_index=1, moe_layer_end_index=0)
    assert "moe_layer_end_index: got 0, expected at least moe_layer_start_index, 1" in found
