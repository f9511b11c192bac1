"""Traps of the config.json of families with linear attention, Mamba or short convolutions, and what they refuse."""

import pytest

from prophet_moe.catalog.architecture import letters
from prophet_moe.catalog.hugging_face import import_config
from prophet_moe.params import caches, growing_bytes_per_token, parameter_counts, state_bytes_per_sequence
from tests.unit.catalog.hugging_face.importing import ABSENT, architecture, refusal

QWEN = {
    "model_type": "qwen3_next",
    "decoder_sparse_step": 1,
    "full_attention_interval": 4,
    "head_dim": 16,
    "hidden_size": 64,
    "intermediate_size": 96,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 12,
    "max_position_embeddings": 512,
    "mlp_only_layers": [],
    "moe_intermediate_size": 32,
    "num_attention_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 8,
    "num_key_value_heads": 2,
    "shared_expert_intermediate_size": 40,
    "vocab_size": 128,
}
NEMOTRON = {
    "model_type": "nemotron_h",
    "conv_kernel": 4,
    "expand": 2,
    "head_dim": 16,
    "hidden_size": 64,
    "hybrid_override_pattern": "MEM*E",
    "intermediate_size": 48,
    "mamba_head_dim": 8,
    "mamba_num_heads": 4,
    "max_position_embeddings": 512,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 64,
    "n_groups": 2,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 2,
    "ssm_state_size": 16,
    "use_conv_bias": True,
    "vocab_size": 128,
}
KIMI = {
    "model_type": "kimi_linear",
    "first_k_dense_replace": 1,
    "hidden_size": 64,
    "intermediate_size": 96,
    "kv_lora_rank": 24,
    "linear_attn_config": {
        "full_attn_layers": [3, 4],
        "head_dim": 8,
        "kda_layers": [1, 2],
        "num_heads": 4,
        "short_conv_kernel_size": 4,
    },
    "model_max_length": 512,
    "moe_intermediate_size": 32,
    "num_attention_heads": 4,
    "num_experts": 8,
    "num_experts_per_token": 2,
    "num_hidden_layers": 4,
    "num_shared_experts": 1,
    "q_lora_rank": None,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "vocab_size": 128,
}
RING = {
    "model_type": "bailing_moe_linear",
    "embedding_dropout": 0.0,
    "first_k_dense_replace": 1,
    "group_norm_size": 4,
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "layer_group_size": 5,
    "linear_silu": False,
    "max_position_embeddings": 131072,
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
    "output_dropout": 0.0,
    "use_bias": False,
    "use_qk_norm": True,
    "use_qkv_bias": False,
    "use_rmsnorm": True,
    "vocab_size": 157184,
}
MINIMAX = {
    "model_type": "minimax_text_01",
    "attn_type_list": [0, 0, 0, 0, 0, 0, 0, 1] * 10,
    "head_dim": 128,
    "hidden_size": 6144,
    "intermediate_size": 9216,
    "layernorm_full_attention_alpha": 3.5565588200778455,
    "layernorm_full_attention_beta": 1.0,
    "layernorm_mlp_alpha": 3.5565588200778455,
    "max_position_embeddings": 10240000,
    "num_attention_heads": 64,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "postnorm": True,
    "rotary_dim": 64,
    "shared_intermediate_size": 0,
    "shared_moe_mode": "sigmoid",
    "vocab_size": 200064,
}
LFM2 = {
    "model_type": "lfm2_moe",
    "conv_L_cache": 3,
    "conv_bias": False,
    "hidden_size": 2048,
    "intermediate_size": 7168,
    "layer_types": ["full_attention" if layer in (2, 6, 10, 14, 18, 21) else "conv" for layer in range(24)],
    "max_position_embeddings": 128000,
    "moe_intermediate_size": 1792,
    "norm_eps": 1e-05,
    "num_attention_heads": 32,
    "num_dense_layers": 2,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "use_expert_bias": True,
    "vocab_size": 65536,
}


def test_interval_and_list_name_the_same_layers():
    """The last layer of every period attends, and a list of the layers says the same."""
    listed = (["linear_attention"] * 3 + ["full_attention"]) * 2
    assert architecture(QWEN, full_attention_interval=ABSENT, layer_types=listed) == architecture(QWEN)
    assert architecture(QWEN).pattern == ["2 x LLLF"]


def test_query_gate_is_counted():
    """The gate is a part of q_proj, which is twice as wide as its heads."""
    arch = architecture(QWEN)
    plain = arch.model_copy(
        update={"mixers": arch.mixers | {"full": arch.mixers["full"].model_copy(update={"gate": "none"})}}
    )
    assert parameter_counts(arch).attention - parameter_counts(plain).attention == 2 * 64 * 4 * 16


def test_wrapped_qwen_reads_its_language_model():
    """Qwen3.5 is a multimodal checkpoint whose text_config has a model_type of its own."""
    text = QWEN | {"model_type": "qwen3_5_moe_text", "mtp_num_hidden_layers": 1, "attn_output_gate": True}
    wrapped = {"model_type": "qwen3_5_moe", "text_config": text, "vision_config": {"depth": 2}}
    assert import_config(wrapped, "config.json").architecture == architecture(QWEN)


def test_dense_qwen_is_imported():
    """A dense model is imported all the same."""
    arch = architecture(
        QWEN,
        model_type="qwen3_5_text",
        num_experts=ABSENT,
        num_experts_per_tok=ABSENT,
        moe_intermediate_size=ABSENT,
        shared_expert_intermediate_size=ABSENT,
        decoder_sparse_step=ABSENT,
        mlp_only_layers=ABSENT,
    )
    assert arch.moe is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layer_types": ["full_attention"] * 8}, "layer_types: contradicts full_attention_interval"),
        ({"full_attention_interval": None}, "full_attention_interval: is missing"),
        ({"head_dim": None}, "head_dim: is missing"),
        ({"attn_output_gate": False}, "attn_output_gate: got False"),
        ({"use_sliding_window": True}, "use_sliding_window: got True"),
        ({"output_gate_type": "rotary"}, "output_gate_type: got 'rotary'"),
        ({"mamba_ssm_dtype": "bfloat16"}, "mamba_ssm_dtype: got 'bfloat16'"),
    ],
)
def test_qwen_variants_are_refused(changed, message):
    """The message names the field."""
    assert message in refusal(QWEN, **changed)


def test_nemotron_layers_are_mixers_or_ffns():
    """The published pattern is that of Transformers' list, and every layer has one norm."""
    kinds = ["linear_attention", "moe", "linear_attention", "full_attention", "moe"]
    assert architecture(NEMOTRON, hybrid_override_pattern=ABSENT, layers_block_type=kinds) == architecture(NEMOTRON)
    assert {block.norms for block in architecture(NEMOTRON).blocks.values()} == {1}


def test_nemotron_shared_width_is_its_own():
    """One shared expert is twice as wide as a routed one."""
    moe = architecture(NEMOTRON).moe
    assert (moe.shared_experts, moe.shared_ffn, moe.ffn, moe.gated) == (1, 64, 32, False)


def test_nemotron_without_experts_is_dense():
    """Older Nemotron-H files have dense FFNs alone, and still list numbers of experts."""
    arch = architecture(NEMOTRON, hybrid_override_pattern="M-M*-")
    assert arch.moe is None
    assert arch.ffns["dense"].ffn == 48


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hybrid_override_pattern": "MEMAE"}, "hybrid_override_pattern: got the letter 'A', expected M, E, * or -"),
        ({"hybrid_override_pattern": ["M", "E"]}, "hybrid_override_pattern: got ['M', 'E'], expected letters"),
        ({"hybrid_override_pattern": 5}, "hybrid_override_pattern: got 5, expected letters"),
        ({"hybrid_override_pattern": None}, "hybrid_override_pattern: is missing"),
        ({"num_hidden_layers": 6}, "hybrid_override_pattern: has 5 layers, expected num_hidden_layers"),
        ({"layers_block_type": ["moe"] * 5}, "layers_block_type: contradicts hybrid_override_pattern"),
        ({"n_shared_experts": 2}, "n_shared_experts: got 2"),
        ({"mlp_bias": True}, "mlp_bias: got True"),
        ({"head_dim": None}, "head_dim: is missing"),
    ],
)
def test_nemotron_variants_are_refused(changed, message):
    """The message names the field."""
    assert message in refusal(NEMOTRON, **changed)


def test_kimi_lists_count_from_one():
    """Layers 1 and 2 are the first two."""
    assert "".join(letters(architecture(KIMI).pattern)) == "lLFF"
    assert growing_bytes_per_token(caches(architecture(KIMI))) == 2 * 2 * (24 + 8)


@pytest.mark.parametrize(
    "changed",
    [{"kda_layers": [0, 1]}, {"kda_layers": [1]}, {"full_attn_layers": [2, 3, 4]}, {"kda_layers": [[1], "2"]}],
)
def test_kimi_lists_must_cover_every_layer_once(changed):
    """Lists that count from 0, that leave a layer out or that name one twice are refused."""
    inner = KIMI["linear_attn_config"] | changed
    assert "linear_attn_config.kda_layers: and full_attn_layers name other" in refusal(KIMI, linear_attn_config=inner)


def test_kimi_inner_fields_not_understood_are_refused():
    """A field inside linear_attn_config is refused by its path."""
    inner = KIMI["linear_attn_config"] | {"use_dilation": True}
    assert "linear_attn_config.use_dilation: got True" in refusal(KIMI, linear_attn_config=inner)


def test_kimi_k3_counts_equal_its_checkpoint():
    """Every tensor of the published checkpoint but its vision tower, padding and correction biases is counted."""
    attends = [*range(4, 93, 4), 93]
    fields = {
        "model_type": "kimi_linear",
        "activation_situ_beta": 4.0,
        "attn_res_block_size": 12,
        "first_k_dense_replace": 1,
        "hidden_size": 7168,
        "intermediate_size": 33792,
        "kv_lora_rank": 512,
        "latent_moe_use_norm": True,
        "linear_attn_config": {
            "full_attn_layers": attends,
            "gate_lower_bound": -5.0,
            "head_dim": 128,
            "kda_layers": [layer for layer in range(1, 94) if layer not in attends],
            "num_heads": 96,
            "short_conv_kernel_size": 4,
            "use_full_rank_gate": True,
        },
        "max_position_embeddings": 1048576,
        "mla_use_nope": True,
        "mla_use_output_gate": True,
        "moe_intermediate_size": 3072,
        "num_attention_heads": 96,
        "num_experts": 896,
        "num_experts_per_token": 16,
        "num_hidden_layers": 93,
        "num_key_value_heads": 96,
        "num_shared_experts": 2,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "routed_expert_hidden_size": 3584,
        "tie_word_embeddings": False,
        "v_head_dim": 128,
        "vocab_size": 163840,
    }
    counted = parameter_counts(architecture(fields))
    packed = counted.non_expert + counted.routed_experts // 2 + counted.routed_experts // 32  # MXFP4, and its scales
    vision, padding, corrections = 447_358_976, 69 * 32, 92 * 896
    assert packed + vision + padding + corrections == 1_503_647_073_024


def test_ring_counts_equal_published():
    """Ring-mini-linear has lightning attention, and softmax attention in every fifth layer: 16.4 billion parameters."""
    arch = architecture(RING)
    assert arch.pattern[-1].endswith("F")
    assert parameter_counts(arch).total == pytest.approx(16.4e9, rel=0.01)
    assert state_bytes_per_sequence(arch) == 16 * 16 * 128 * 128 * 4


def test_ling_2_has_latent_and_lightning_attention():
    """Ling-2.5 shares its model_type with Ling-3.0, of which it lacks the marks."""
    changed = {"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64}
    arch = architecture(RING, model_type="bailing_hybrid", v_head_dim=128, num_key_value_heads=16, **changed)
    assert (arch.mixers["linear"].kind, arch.mixers["full"].gate) == ("lightning", "none")


def test_ling_3_has_delta_attention_and_gates():
    """Ling-3.0's gates are projected at once, and its latent attention has one gate per head."""
    changed = {"kv_lora_rank": 512, "q_lora_rank": 256, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64}
    marks = {"no_kda_lora": True, "kda_safe_gate": True, "kda_lower_bound": -5, "short_conv_kernel_size": 4}
    arch = architecture(RING, **changed, **marks, v_head_dim=128, num_key_value_heads=16, group_norm_size=1)
    assert (arch.mixers["linear"].gate_rank, arch.mixers["full"].gate) == (None, "per_head")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_hidden_layers": 22}, "layer_group_size: does not divide num_hidden_layers, 22"),
        ({"use_bias": True}, "use_bias: got True"),
        ({"head_dim": 64}, "head_dim: is not hidden_size / num_attention_heads"),
        ({"num_kv_heads_for_linear_attn": 4}, "num_kv_heads_for_linear_attn: got 4"),
        ({"pregate_hidden": 512}, "pregate_hidden: got 512, which is not understood"),
    ],
)
def test_ring_variants_are_refused(changed, message):
    """The message names the field."""
    assert message in refusal(RING, **changed)


def test_minimax_counts_equal_published():
    """MiniMax-Text-01 has 456 billion parameters, and states in BF16 in 70 of 80 layers."""
    arch = architecture(MINIMAX)
    assert parameter_counts(arch).total == pytest.approx(456e9, rel=0.001)
    assert state_bytes_per_sequence(arch) == 70 * 64 * 128 * 128 * 2
    assert architecture(MINIMAX, model_type="minimax_m1", shared_intermediate_size=[0]) == arch


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attn_type_list": [0, 1] * 39}, "attn_type_list: has 78 entries, expected 80"),
        ({"attn_type_list": [0, 2] * 40}, "attn_type_list: got 2, expected 0 or 1"),
        ({"head_dim": None}, "head_dim: is missing"),
        ({"attn_type_list": None}, "attn_type_list: is missing"),
        ({"shared_intermediate_size": 512}, "shared_intermediate_size: got 512"),
        ({"layer_types": ["full_attention"] * 80}, "attn_type_list: contradicts layer_types"),
    ],
)
def test_minimax_variants_are_refused(changed, message):
    """The message names the field."""
    assert message in refusal(MINIMAX, **changed)


def test_lfm2_counts_equal_published():
    """LFM2-8B-A1B has 8.3 billion parameters and ties embeddings unless its file says otherwise."""
    arch = architecture(LFM2)
    assert arch.tied_embeddings
    assert parameter_counts(arch).total == pytest.approx(8.3e9, rel=0.01)
    assert state_bytes_per_sequence(arch) == 18 * 2048 * 3 * 2
    assert not architecture(LFM2, tie_embedding=False).tied_embeddings


def test_lfm2_numbers_count_from_zero():
    """Older files number the layers that attend."""
    assert architecture(LFM2, layer_types=ABSENT, full_attn_idxs=[2, 6, 10, 14, 18, 21]) == architecture(LFM2)


def test_dense_lfm2_shrinks_its_width():
    """A dense LFM2 takes two thirds of block_ff_dim, rounded up to a multiple."""
    dense = {"block_ff_dim": 12288, "block_multiple_of": 256, "block_ffn_dim_multiplier": 1.0}
    moe = ("moe_intermediate_size", "num_dense_layers", "num_experts", "num_experts_per_tok", "use_expert_bias")
    without = dict.fromkeys(moe) | {"model_type": "lfm2"}
    arch = architecture(LFM2, **without, **dense, block_auto_adjust_ff_dim=True)
    assert arch.ffns["dense"].ffn == 8192
    assert architecture(LFM2, **without, **dense, block_auto_adjust_ff_dim=False).ffns["dense"].ffn == 12288


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"full_attn_idxs": [1]}, "full_attn_idxs: contradicts layer_types"),
        ({"layer_types": None}, "layer_types: is missing"),
        ({"block_ff_dim": 12288}, "intermediate_size: got 7168, but block_ff_dim is 12288"),
        ({"block_auto_adjust_ff_dim": True}, "block_auto_adjust_ff_dim: got True"),
        ({"conv_dim": 1024}, "conv_dim: differs from hidden_size, 2048"),
        ({"tie_embedding": True, "tie_word_embeddings": False}, "tie_word_embeddings: got False, but tie_embedding"),
    ],
)
def test_lfm2_variants_are_refused(changed, message):
    """The message names the field."""
    assert message in refusal(LFM2, **changed)


def test_families_not_expressible_say_why():
    """The message has the reason."""
    assert "'glm5_next_text' cannot be expressed: its indexer" in refusal({"model_type": "glm5_next_text"})
