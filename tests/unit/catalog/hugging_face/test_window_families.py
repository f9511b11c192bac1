"""Families with windows in some layers: published files, what their fields mean, and what must be refused."""

import pytest

from prophet_moe import params
from prophet_moe.catalog import Architecture
from prophet_moe.catalog.hugging_face import import_config
from tests.unit.catalog.hugging_face.importing import architecture, refusal

LOCAL, FULL = "sliding_attention", "full_attention"
SIZES = {
    "head_dim": 16,
    "hidden_size": 64,
    "max_position_embeddings": 512,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
}
DENSE_FIRST = ["dense", "sparse", "sparse", "sparse"]
WINDOWS = {"layer_types": [LOCAL, LOCAL, LOCAL, FULL], "sliding_window": 32}
EXPERTS = {"intermediate_size": 48, "moe_intermediate_size": 24, "num_experts": 8, "num_experts_per_tok": 2}
GPT_OSS = SIZES | {
    "model_type": "gpt_oss",
    "intermediate_size": 24,
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
    "sliding_window": 32,
}
LLAMA4 = SIZES | {
    "model_type": "llama4_text",
    "attention_chunk_size": 32,
    "intermediate_size": 24,
    "intermediate_size_mlp": 48,
    "num_experts_per_tok": 1,
    "num_local_experts": 8,
}
GEMMA4 = SIZES | {
    "model_type": "gemma4_text",
    "attention_k_eq_v": True,
    "enable_moe_block": True,
    "global_head_dim": 32,
    "hidden_size_per_layer_input": 0,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "num_experts": 8,
    "num_global_key_value_heads": 1,
    "top_k_experts": 2,
    **WINDOWS,
}
MIMO = SIZES | {
    "model_type": "mimo_v2_flash",
    "hybrid_layer_pattern": [0, 1, 1, 0],
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "moe_layer_freq": [0, 1, 1, 1],
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": 32,
    "sliding_window_size": 32,
    "swa_num_key_value_heads": 4,
    "v_head_dim": 8,
}
AFMOE = SIZES | EXPERTS | {"model_type": "afmoe", "num_dense_layers": 1, "num_shared_experts": 1, "sliding_window": 32}
EXAONE = SIZES | EXPERTS | WINDOWS | {"model_type": "exaone_moe", "num_shared_experts": 1}
MELLUM = SIZES | EXPERTS | WINDOWS | {"model_type": "mellum"}
LAGUNA = (
    SIZES
    | EXPERTS
    | {"model_type": "laguna", "shared_expert_intermediate_size": 24, "sliding_window": 32, "gating": True}
    | {"layer_types": [FULL, LOCAL, LOCAL, LOCAL], "num_attention_heads_per_layer": [8, 12, 12, 12]}
)
COHERE = SIZES | EXPERTS | {"model_type": "cohere2_moe", "sliding_window": 32}
del COHERE["moe_intermediate_size"]
STEP3 = {
    "model_type": "step3_text",
    "head_dim": 16,
    "hidden_size": 64,
    "intermediate_size": 48,
    "max_position_embedding": 512,
    "moe_intermediate_size": 24,
    "moe_layers_enum": "1,2",
    "moe_num_experts": 8,
    "moe_top_k": 2,
    "num_attention_groups": 1,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "share_expert_dim": 24,
    "share_q_dim": 32,
    "vocab_size": 128,
}
STEP35 = {name: value for name, value in STEP3.items() if name != "share_q_dim"} | {
    "model_type": "step3p5",
    "attention_other_setting": {"num_attention_heads": 12, "num_attention_groups": 2, "head_dim": 16},
    "layer_types": [FULL, LOCAL, LOCAL, LOCAL, LOCAL],
    "num_attention_groups": 2,
    "num_nextn_predict_layers": 1,
    "sliding_window": 32,
}
MINIMAX = SIZES | {
    "model_type": "minimax_m3",
    "dense_intermediate_size": 48,
    "intermediate_size": 24,
    "moe_layer_freq": [0, 1, 1, 1],
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
    "shared_intermediate_size": 24,
    "sparse_attention_config": {
        "sparse_attention_freq": [0, 1, 1, 1],
        "sparse_block_size": 16,
        "sparse_index_dim": 8,
        "sparse_num_index_heads": 2,
        "sparse_topk_blocks": 4,
    },
}
FAMILIES = [GPT_OSS, LLAMA4, GEMMA4, MIMO, AFMOE, EXAONE, MELLUM, LAGUNA, COHERE, STEP3, STEP35, MINIMAX]
IDS = [each["model_type"] for each in FAMILIES]


def windows(arch: Architecture) -> list[int | None]:
    """The window of every layer."""
    return [arch.mixers[block.mixer].window for block in arch.layers()]


def sparse(arch: Architecture) -> list[bool]:
    """Whether each layer holds experts."""
    return [layer in arch.moe_layers for layer in range(len(arch.layers()))]


@pytest.mark.parametrize("fields", FAMILIES, ids=IDS)
def test_unknown_field_is_refused_by_name(fields):
    """Nothing is guessed."""
    assert "unheard_of: got 3" in refusal(fields, unheard_of=3)


@pytest.mark.parametrize("fields", FAMILIES, ids=IDS)
def test_vocabulary_missing_is_refused_by_name(fields):
    """A default of a class is no checkpoint's."""
    assert "vocab_size: is missing" in refusal(fields, vocab_size=None)


@pytest.mark.parametrize("fields", [GPT_OSS, GEMMA4, AFMOE, EXAONE, MELLUM, LAGUNA, COHERE, STEP35])
def test_layer_types_of_wrong_length_are_refused(fields):
    """They have one entry per layer, draft layers of Step-3.5 aside."""
    assert "layer_types: has 2 entries, expected 4" in refusal(fields, layer_types=[LOCAL, FULL])


@pytest.mark.parametrize("fields", [GPT_OSS, GEMMA4, AFMOE, EXAONE, MELLUM, LAGUNA, COHERE])
def test_layer_type_unknown_is_refused(fields):
    """A third kind of attention is not understood."""
    types = [LOCAL, "linear_attention", LOCAL, FULL]
    assert "layer_types: got 'linear_attention', expected sliding_attention or full" in refusal(
        fields, layer_types=types
    )


@pytest.mark.parametrize("fields", [GPT_OSS, GEMMA4, AFMOE, EXAONE, MELLUM, LAGUNA, COHERE, STEP35])
def test_window_missing_is_refused(fields):
    """Layers with a window need its tokens."""
    assert "sliding_window: is missing" in refusal(fields, sliding_window=None)


@pytest.mark.parametrize("fields", [MELLUM, EXAONE, AFMOE, COHERE])
def test_window_that_no_layer_has_is_without_effect(fields):
    """`layer_types` decides."""
    assert windows(architecture(fields, layer_types=[FULL] * 4)) == [None] * 4


@pytest.mark.parametrize("fields", [MELLUM, LAGUNA, STEP35])
def test_layer_pattern_unknown_is_refused(fields):
    """The default of the class, no window anywhere, is no checkpoint's."""
    assert "layer_types: is missing" in refusal(fields, layer_types=None)


def test_gpt_oss_without_layer_types_alternates():
    """As its class does."""
    assert windows(architecture(GPT_OSS)) == [32, None, 32, None]


def test_gpt_oss_experts_under_two_names_must_agree():
    """Two numbers of chosen experts contradict each other."""
    assert "num_experts_per_tok: got 2, but experts_per_token is 3" in refusal(GPT_OSS, experts_per_token=3)


def test_llama4_no_rope_layers_of_1_are_chunked():
    """The name says the opposite: 1 has rotary positions and attends within its chunk."""
    arch = architecture(LLAMA4, no_rope_layers=[0, 1, 1, 0])
    assert windows(arch) == [None, 32, 32, None]
    assert {mixer.window_kind for mixer in arch.mixers.values() if mixer.window} == {"chunked"}


def test_llama4_no_rope_layers_empty_are_every_fourth():
    """Some files hold an empty list."""
    assert windows(architecture(LLAMA4, no_rope_layers=[])) == [32, 32, 32, None]


def test_llama4_no_rope_layers_other_numbers_are_refused():
    """They are no list of layers."""
    assert "no_rope_layers: got 3, expected 1" in refusal(LLAMA4, no_rope_layers=[3, 1, 1, 0])


def test_llama4_layer_types_that_contradict_are_refused():
    """They say the same of the same layers."""
    assert "layer_types: contradicts no_rope_layers" in refusal(LLAMA4, layer_types=[FULL] * 4)


def test_llama4_without_chunks_attends_to_all():
    """Chunks of no size are none."""
    assert windows(architecture(LLAMA4, attention_chunk_size=None)) == [None] * 4


def test_llama4_widths_are_of_experts_and_of_dense_layers():
    """`intermediate_size` is an expert's."""
    arch = architecture(LLAMA4, interleave_moe_layer_step=2)
    assert sparse(arch) == [False, True, False, True]
    assert (arch.moe.ffn, arch.moe.shared_ffn, arch.ffns["dense"].ffn) == (24, 24, 48)


def test_llama4_layers_with_experts_are_listed_or_spaced():
    """Published files say both, alike."""
    spaced = architecture(LLAMA4, interleave_moe_layer_step=2)
    assert (
        architecture(LLAMA4, moe_layers=[1, 3])
        == spaced
        == architecture(LLAMA4, moe_layers=[1, 3], interleave_moe_layer_step=2)
    )
    message = refusal(LLAMA4, moe_layers=[], interleave_moe_layer_step=2)
    assert "moe_layers: contradicts interleave_moe_layer_step, 2" in message


def test_llama4_moe_layers_beyond_the_last_are_refused():
    """Layers count from 0."""
    assert "moe_layers: got 4, expected numbers of layers below 4" in refusal(LLAMA4, moe_layers=[4])


def test_gemma4_full_layers_keep_values_without_projection():
    """K = V saves a projection, not a cache."""
    full = architecture(GEMMA4).mixers["full"]
    assert (full.key_is_value, full.kv_heads, full.head_dim) == (True, 1, 32)
    assert params.growing_bytes_per_token(params.caches(architecture(GEMMA4))) == 2 * 2 * 32


def test_gemma4_without_shared_projection_has_its_kv_heads():
    """Global KV heads hold with K = V alone."""
    full = architecture(GEMMA4, attention_k_eq_v=False).mixers["full"]
    assert (full.key_is_value, full.kv_heads, full.head_dim) == (False, 2, 32)


def test_gemma4_global_kv_heads_missing_are_refused():
    """The class would take those of the other layers."""
    assert "num_global_key_value_heads: is missing" in refusal(GEMMA4, num_global_key_value_heads=None)


@pytest.mark.parametrize("name", ["hidden_size_per_layer_input", "num_kv_shared_layers"])
def test_gemma4_of_small_devices_is_refused(name):
    """Embeddings per layer and shared keys are not understood."""
    assert f"{name}: got 2, expected 0" in refusal(GEMMA4, **{name: 2})


def test_gemma4_without_experts_is_dense():
    """A dense model has four norms a layer."""
    arch = architecture(GEMMA4, enable_moe_block=False)
    assert arch.moe is None
    assert {block.norms for block in arch.blocks.values()} == {4}


def test_mimo_window_is_what_stands_before_the_query():
    """The published file writes it twice, Transformers one more."""
    for written in (None, 32, 33):
        assert windows(architecture(MIMO, sliding_window=written)) == [None, 32, 32, None]


def test_mimo_windows_that_contradict_are_refused():
    """Neither name wins."""
    assert "sliding_window: got 40, but sliding_window_size is 32" in refusal(MIMO, sliding_window=40)


def test_mimo_as_transformers_writes_it_counts_the_query():
    """`layer_types` without the size before the query is the form of Transformers."""
    changed = {"hybrid_layer_pattern": None, "sliding_window_size": None, "sliding_window": 33}
    assert windows(architecture(MIMO, layer_types=[FULL, LOCAL, LOCAL, FULL], **changed)) == [None, 32, 32, None]


def test_mimo_sinks_are_in_layers_with_a_window():
    """As `add_swa_attention_sink_bias` says."""
    arch = architecture(MIMO, add_swa_attention_sink_bias=True, add_full_attention_sink_bias=False)
    assert {name: mixer.sinks for name, mixer in arch.mixers.items()} == {"full": False, "local": True}


def test_mimo_patterns_that_contradict_are_refused():
    """Two names of the same layers."""
    assert "layer_types: contradicts hybrid_layer_pattern" in refusal(MIMO, layer_types=[FULL] * 4)


def test_afmoe_layer_types_come_before_the_period():
    """`global_attn_every_n_layers` is what holds without them."""
    assert windows(architecture(AFMOE, global_attn_every_n_layers=2)) == [32, None, 32, None]
    assert windows(architecture(AFMOE, global_attn_every_n_layers=2, layer_types=[FULL, LOCAL, LOCAL, FULL]))[1] == 32


def test_exaone_pattern_of_letters_needs_layer_types():
    """No class reads the letters alone."""
    assert "layer_types: is missing" in refusal(EXAONE, layer_types=None, sliding_window_pattern="LLLG")


def test_exaone_dense_layers_that_contradict_are_refused():
    """Two fields tell the same layers."""
    changed = {"is_moe_layer": [False, False, True, True], "first_k_dense_replace": 1}
    assert "is_moe_layer: contradicts first_k_dense_replace" in refusal(EXAONE, **changed)


def test_mellum_switch_that_contradicts_is_refused():
    """Windows are off, and in three layers."""
    assert "use_sliding_window: got False, but layer_types has windows" in refusal(MELLUM, use_sliding_window=False)


def test_laguna_query_heads_are_by_layer():
    """KV heads are the same in all layers."""
    arch = architecture(LAGUNA)
    assert [arch.mixers[block.mixer].heads for block in arch.layers()] == [8, 12, 12, 12]


@pytest.mark.parametrize(("gating", "gate"), [(True, "per_head"), ("per-head", "per_head"), ("per-element", "full")])
def test_laguna_gate_is_by_its_name(gating, gate):
    """One value a head, or one a value."""
    assert {mixer.gate for mixer in architecture(LAGUNA, gating=gating).mixers.values()} == {gate}


def test_laguna_gate_unknown_is_refused():
    """No gate is not what the class builds."""
    assert "gating: got False" in refusal(LAGUNA, gating=False)


def test_cohere_prefix_has_a_period_of_its_own():
    """Dense layers first, then windows but in every fourth."""
    arch = architecture(COHERE, num_hidden_layers=5, first_k_dense_replace=1, prefix_dense_intermediate_size=96)
    assert windows(arch) == [None, 32, 32, 32, None]
    assert sparse(arch) == [False, True, True, True, True]
    assert arch.ffns["dense"].ffn == 96


def test_cohere_blocks_have_one_norm():
    """Attention and FFN run in parallel."""
    assert {block.norms for block in architecture(COHERE).blocks.values()} == {1}
    assert "use_parallel_block: got False" in refusal(COHERE, use_parallel_block=False)


def test_step3_queries_go_through_a_rank():
    """One KV head serves all query heads."""
    mixer = architecture(STEP3).mixers["full"]
    assert (mixer.query_rank, mixer.kv_heads) == (32, 1)
    assert sparse(architecture(STEP3)) == [False, True, True, False]


def test_step3_layers_with_experts_must_be_told():
    """The default of the class is of one model."""
    assert "moe_layers_enum: is missing" in refusal(STEP3, moe_layers_enum=None)
    assert "moe_layers_enum: got '1,x'" in refusal(STEP3, moe_layers_enum="1,x")


def test_step35_windows_have_other_query_heads():
    """`attention_other_setting` says how many; the entry of the draft layer is left out."""
    arch = architecture(STEP35)
    assert [arch.mixers[block.mixer].heads for block in arch.layers()] == [8, 12, 12, 12]


def test_step35_query_heads_of_windows_must_be_told():
    """A file without them would be 13 % of attention too small."""
    assert "attention_other_setting: is missing" in refusal(STEP35, attention_other_setting=None)


def test_minimax_m3_sparse_layers_keep_an_index_key():
    """The first layer has neither experts nor an index branch."""
    arch = architecture(MINIMAX)
    assert params.growing_bytes_per_token(params.caches(arch)) == 4 * 2 * 2 * 16 * 2 + 3 * 8 * 2
    assert arch.mixers["sparse"].indexer.top_k == 64


def test_minimax_m3_dense_layers_that_contradict_are_refused():
    """Two fields tell the same layers."""
    assert "first_k_dense_replace: got 2" in refusal(MINIMAX, first_k_dense_replace=2)


@pytest.mark.parametrize("model_type", ["inkling_text", "muse_spark_text"])
def test_family_without_schema_is_refused_with_reason(model_type):
    """The reason is in the message."""
    assert f"model_type: '{model_type}' cannot be expressed: its" in refusal(SIZES, model_type=model_type)


def test_text_part_without_model_type_has_the_whole_ones():
    """Step-3 says what it is outside its text_config."""
    whole = {"model_type": "step3_vl", "vision_config": {}, "text_config": STEP3 | {"model_type": None}}
    found = import_config(whole | {"vision_config": {"width": 1}}, "config.json")
    assert found.model_type == "step3_vl"
    assert found.left_out == ["the vision tower (vision_config)"]


def test_draft_fields_that_differ_are_both_noted():
    """MiniMax-M3 counts modules and layers."""
    noted = import_config(MINIMAX | {"num_nextn_predict_layers": 1, "num_mtp_modules": 7}, "config.json").left_out
    assert [note.split()[0] for note in noted] == ["1", "7"]


def test_mimo_v25_is_the_flash_model_with_towers():
    """Its fields stand beside those of the towers, which are left out."""
    fields = MIMO | {
        "model_type": "mimo_v2",
        "attention_projection_layout": "fused_qkv",
        "processor_config": {"fps": 1},
    }
    found = import_config(fields | {"vision_config": {"depth": 2}, "audio_config": {}}, "config.json")
    assert found.architecture == architecture(MIMO)
    assert found.left_out == ["the vision tower (vision_config)", "the audio tower (audio_config)"]
    assert "attention_projection_layout: got 'mixed'" in refusal(fields, attention_projection_layout="mixed")


def test_mimo_lists_of_experts_mean_the_same():
    """Transformers 5 writes its own list beside the published one."""
    assert architecture(MIMO, mlp_layer_types=DENSE_FIRST) == architecture(MIMO)
    assert "mlp_layer_types: contradicts moe_layer_freq" in refusal(MIMO, mlp_layer_types=["sparse"] * 4)


@pytest.mark.parametrize("layer", ["3", "03", 3])
def test_layers_of_gemma_are_numbers(layer):
    """Transformers 5 writes the numbers of layers with as many digits as the last one has."""
    own = {layer: {"head_dim": 32, "num_key_value_heads": 1}}
    assert architecture(
        GEMMA4, global_head_dim=None, num_global_key_value_heads=None, per_layer_config=own
    ) == architecture(GEMMA4)


def test_step_heads_of_windows_without_windows_are_harmless():
    """Transformers 5 writes the number whatever `layer_types` says."""
    full = {"layer_types": [FULL] * 5, "num_sliding_attention_heads": 12, "per_layer_config": {}}
    assert architecture(STEP35, attention_other_setting=None, **full) == architecture(STEP35, layer_types=[FULL] * 5)


def test_gemma4_with_experts_says_whether_it_uses_them():
    """A dense model has no number of experts."""
    assert "enable_moe_block: is missing" in refusal(GEMMA4, enable_moe_block=None)
    assert architecture(GEMMA4, enable_moe_block=None, num_experts=None).moe is None


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (AFMOE, "num_shared_experts"),
        (AFMOE, "num_dense_layers"),
        (EXAONE, "num_shared_experts"),
        (LLAMA4, "attention_chunk_size"),
        (MIMO, "swa_num_key_value_heads"),
    ],
)
def test_fields_that_every_file_states_are_required(fields, name):
    """Published files differ from what the class supposes."""
    kept = {each: value for each, value in fields.items() if each != name}
    assert f"{name}: is missing" in refusal(kept)


def test_layers_without_experts_everywhere_are_refused():
    """An empty list names none, and MiMo's layers with a window are listed in every file."""
    assert "moe_layers_enum: names no layer" in refusal(STEP3, moe_layers_enum=[])
    assert "layer_types: is missing" in refusal(MIMO, hybrid_layer_pattern=None)
