"""The formats that checkpoints ship: published quantisation blocks, and what must be refused."""

import pytest

from prophet_moe.catalog import Architecture
from prophet_moe.catalog.hugging_face import import_config
from prophet_moe.catalog.hugging_face.config import Config
from prophet_moe.catalog.hugging_face.quantisation import shipped_formats
from prophet_moe.errors import UserError
from prophet_moe.params import weight_bytes
from prophet_moe.precision import Precision

GIB, GB = 2**30, 10**9
LAYERS = 4
GROUPED = {"kind": "softmax", "heads": 4, "kv_heads": 2, "head_dim": 16}
EXPERTS = {"kind": "moe", "experts": 8, "top_k": 2, "ffn": 32, "shared_experts": 1, "shared_ffn": 32}
SMALL = {
    "hidden": 64,
    "vocab": 128,
    "native_context": 512,
    "mixers": {"attention": GROUPED},
    "ffns": {"moe": EXPERTS, "dense": {"kind": "dense", "ffn": 96}},
    "blocks": {"D": {"mixer": "attention", "ffn": "dense"}, "M": {"mixer": "attention", "ffn": "moe"}},
    "pattern": ["D", "3 x M"],
}
KIMI_K2 = {
    "hidden": 7168,
    "vocab": 163840,
    "native_context": 131072,
    "mixers": {
        "mla": {
            "kind": "latent",
            "heads": 64,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "nope_head_dim": 128,
            "rope_head_dim": 64,
            "v_head_dim": 128,
        }
    },
    "ffns": {
        "dense": {"kind": "dense", "ffn": 18432},
        "moe": {"kind": "moe", "experts": 384, "top_k": 8, "ffn": 2048, "shared_experts": 1, "shared_ffn": 2048},
    },
    "blocks": {"D": {"mixer": "mla", "ffn": "dense"}, "M": {"mixer": "mla", "ffn": "moe"}},
    "pattern": ["D", "60 x M"],
}
GPT_OSS = {
    "attention_bias": True,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "intermediate_size": 2880,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_key_value_heads": 8,
    "quantization_config": {
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
        "quant_method": "mxfp4",
    },
    "sliding_window": 128,
    "vocab_size": 201088,
}
FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
INT4 = {
    "actorder": None,
    "block_structure": None,
    "dynamic": False,
    "group_size": 32,
    "num_bits": 4,
    "observer": "minmax",
    "observer_kwargs": {},
    "strategy": "group",
    "symmetric": True,
    "type": "int",
}
BLOCKS = INT4 | {"num_bits": 8, "type": "float", "strategy": "block", "group_size": None, "block_structure": [128, 128]}
CHANNELS = INT4 | {"num_bits": 8, "strategy": "channel", "group_size": None}
KIMI_IGNORED = [
    "lm_head",
    "re:.*self_attn.*",
    "re:.*shared_experts.*",
    r"re:.*mlp\.(gate|up|gate_up|down)_proj.*",
]
NVFP4 = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}


def groups(weights: dict, **more: object) -> dict:
    """A block of compressed-tensors with one group, as llm-compressor writes it."""
    group = {"input_activations": None, "output_activations": None, "targets": ["Linear"], "weights": weights}
    return {
        "config_groups": {"group_0": group},
        "format": "pack-quantized",
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    } | more


def modelopt(**more: object) -> dict:
    """A block of ModelOpt, as it is in config.json."""
    group = {"input_activations": NVFP4, "weights": NVFP4, "targets": ["Linear"]}
    return {
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
        "producer": {"name": "modelopt", "version": "0.43.0"},
        "quant_algo": "NVFP4",
        "quant_method": "modelopt",
    } | more


def shipped(block: dict, arch: dict | None = None, **fields: object) -> dict[str, str]:
    """The formats that a block says."""
    config = Config({"quantization_config": block, "num_hidden_layers": LAYERS} | fields, "config.json")
    return shipped_formats(config, Architecture.model_validate(arch or SMALL))


def refusal(block: dict, **fields: object) -> str:
    """The message about a block that must be refused."""
    with pytest.raises(UserError) as refused:
        shipped(block, **fields)
    return str(refused.value)


def total(arch: dict, formats: dict[str, str]) -> int:
    """Bytes of all weights in the formats."""
    components = {name: its for name, its in formats.items() if name != "default"}
    return sum(weight_bytes(Architecture.model_validate(arch), Precision(formats["default"], components)).values())


@pytest.mark.parametrize(("layers", "experts", "gib"), [(36, 128, 60.8), (24, 32, 12.8)])
def test_gpt_oss_has_the_size_of_its_card(layers, experts, gib):
    """Table 1 of the model card (arXiv 2508.10925): experts in MXFP4, all else in 16 bits."""
    found = import_config(GPT_OSS | {"num_hidden_layers": layers, "num_local_experts": experts}, "config.json")
    formats = found.precision.model_dump(exclude_none=True)
    assert formats == {"default": "bf16", "routed_experts": "mxfp4"}
    assert total(found.architecture.model_dump(), formats) / GIB == pytest.approx(gib, abs=0.05)


def test_kimi_k2_has_its_published_size():
    """1.03 TB in FP8 with a scale per 128 x 128."""
    formats = shipped(FP8, KIMI_K2, num_hidden_layers=61)
    assert formats == {"default": "fp8_block128", "embeddings": "bf16"}
    assert total(KIMI_K2, formats) / GB == pytest.approx(1029.173, abs=0.001)


def test_kimi_k2_thinking_has_its_published_size():
    """594 GB: routed experts alone in four bits, a scale per 32."""
    formats = shipped(groups(INT4, ignore=KIMI_IGNORED), KIMI_K2, num_hidden_layers=61)
    assert formats == {"default": "bf16", "routed_experts": "int4_group32"}
    assert total(KIMI_K2, formats) / GB == pytest.approx(594.2, abs=0.1)


def test_no_block_is_16_bits():
    """Weights as they were trained."""
    config = Config({}, "config.json")
    assert shipped_formats(config, Architecture.model_validate(SMALL)) == {}


def test_block_under_its_older_name_is_read():
    """compressed-tensors once wrote `compression_config`."""
    config = Config({"compression_config": groups(BLOCKS) | {"quant_method": None}}, "config.json")
    formats = shipped_formats(config, Architecture.model_validate(SMALL))
    assert formats == {"default": "fp8_block128", "embeddings": "bf16"}


def test_deepseek_v4_experts_are_of_four_bits():
    """`expert_dtype` says it beside the block."""
    formats = shipped(FP8 | {"scale_fmt": "ue8m0"}, expert_dtype="fp4")
    assert formats["routed_experts"] == "mxfp4"
    assert {its for name, its in formats.items() if name not in ("default", "routed_experts")} == {"fp8_block128"}


def test_expert_dtype_without_a_block_is_of_the_experts():
    """All else has 16 bits."""
    config = Config({"expert_dtype": "fp4"}, "config.json")
    formats = shipped_formats(config, Architecture.model_validate(SMALL))
    assert formats == {"routed_experts": "mxfp4"}


def test_class_that_is_left_alone_names_no_matrix():
    """Llama-4-Maverick-FP8 lists the class of its attention, too."""
    block = groups(INT4) | {"ignore": ["lm_head", "re:.*self_attn", "Llama4TextAttention"]}
    assert shipped(block) == shipped(block | {"ignore": ["lm_head", "re:.*self_attn"]})


def test_fp8_without_blocks_has_one_scale_a_matrix():
    """As Transformers and engines read it."""
    block = {"quant_method": "fp8", "activation_scheme": "static"}
    assert shipped(block) == {"default": "fp8_tensor", "embeddings": "bf16"}


def test_fp8_of_other_blocks_is_refused():
    """No format of this project."""
    assert "quantization_config.weight_block_size: got [64, 64]" in refusal(FP8 | {"weight_block_size": [64, 64]})


def test_modules_left_alone_by_layer_are_a_component():
    """Norms and routers beside them are never converted."""
    names = [f"model.layers.{layer}.{part}" for layer in range(LAYERS) for part in ("self_attn", "mlp.gate")]
    names += [f"model.layers.{layer}.input_layernorm" for layer in range(LAYERS)] + ["lm_head"]
    formats = shipped(FP8 | {"modules_to_not_convert": names})
    assert formats == {
        "default": "bf16",
        "dense_ffn": "fp8_block128",
        "routed_experts": "fp8_block128",
        "shared_experts": "fp8_block128",
    }


def test_output_projections_may_differ_from_attention():
    """MiMo-V2-Flash leaves them alone; its draft layers are left out."""
    names = [f"model.layers.{layer}.self_attn.o_proj" for layer in range(LAYERS)]
    formats = shipped(FP8 | {"ignored_layers": [*names, "model.decoder.self_attn.o_proj", "model.layers.4.eh_proj"]})
    assert formats == {"default": "fp8_block128", "embeddings": "bf16", "attention_output": "bf16"}


def test_component_of_two_formats_is_refused():
    """One layer that differs is no format."""
    message = refusal(FP8 | {"modules_to_not_convert": ["model.layers.1.self_attn"]})
    assert "quantization_config.quant_method: gives parts of attention different formats" in message


def test_module_unknown_is_refused():
    """It may be a part of the model."""
    message = refusal(FP8 | {"modules_to_not_convert": ["model.layers.1.mystery"]})
    assert "modules_to_not_convert: names 'model.layers.1.mystery', which is no module" in message


@pytest.mark.parametrize("name", ["model.visual.blocks.0.attn.qkv", "mtp.layers.0.self_attn.q_proj", "model.layers.4*"])
def test_module_of_what_is_left_out_is_harmless(name):
    """Vision and draft layers are no part of the language model."""
    assert shipped(FP8 | {"modules_to_not_convert": [name]}) == {"default": "fp8_block128", "embeddings": "bf16"}


@pytest.mark.parametrize(
    ("weights", "its"),
    [
        (INT4 | {"group_size": 128}, "int4_group128"),
        (INT4 | {"group_size": 128, "symmetric": False}, "int4_group128_zero"),
        (INT4 | {"symmetric": False}, "int4_group32_zero"),
        (CHANNELS, "int8"),
        (CHANNELS | {"type": "float"}, "fp8_channel"),
        (CHANNELS | {"type": "float", "strategy": "tensor"}, "fp8_tensor"),
        (BLOCKS, "fp8_block128"),
        (INT4 | {"type": "float", "strategy": "tensor_group", "group_size": 16}, "nvfp4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_group_of_weights_has_its_format(weights, its):
    """Bits, type, strategy, size and symmetry together."""
    assert shipped(groups(weights)) == {"default": its, "embeddings": "bf16"}


def test_group_of_other_weights_is_refused():
    """Groups of 64 are no format of this project."""
    message = refusal(groups(INT4 | {"group_size": 64}))
    assert (
        "quantization_config.config_groups.group_0.weights.num_bits: got 4 bits, int, group, group_size 64" in message
    )


def test_groups_that_name_modules_come_first():
    """A group of all linear layers takes the rest."""
    named = {"targets": [r"re:.*mlp\.experts\..*"], "weights": INT4}
    rest = {"targets": ["Linear"], "weights": BLOCKS}
    formats = shipped(groups(INT4, config_groups={"group_0": rest, "group_1": named}))
    assert formats["routed_experts"] == "int4_group32"
    assert formats["attention"] == "fp8_block128"


def test_output_embedding_that_is_converted_is_told():
    """compressed-tensors converts the head where it is not left alone."""
    formats = shipped(groups(BLOCKS, ignore=[]))
    assert formats == {"default": "fp8_block128", "embeddings": "bf16", "output_embedding": "fp8_block128"}


@pytest.mark.parametrize("pattern", ["re:(a+)+$", "re:[", "re:[9-0]", "re:(?=x)", "re:" + ".*" * 9])
def test_pattern_that_may_take_forever_is_refused(pattern):
    """A file of strangers gives the pattern."""
    assert "quantization_config.ignore: got the pattern" in refusal(groups(BLOCKS, ignore=[pattern]))


def test_sparse_weights_are_refused():
    """Their sizes depend on the weights."""
    assert "sparsity_config: got" in refusal(groups(BLOCKS, sparsity_config={"format": "sparse-24-bitmask"}))


def test_modelopt_leaves_modules_with_gaps_alone():
    """As in NVIDIA's NVFP4 checkpoints."""
    parts = [f"model.layers.{layer}.{part}*" for layer in range(LAYERS) for part in ("self_attn", "mlp.shared_experts")]
    formats = shipped(modelopt(ignore=["language_model.lm_head", "model.layers.0*", "vision_tower*", *parts]))
    assert formats == {"default": "bf16", "routed_experts": "nvfp4"}


def test_modelopt_by_module_has_several_formats():
    """Mixed precision names every converted module."""
    layers = {
        f"model.layers.{layer}.mlp.experts.0.{part}_proj": "NVFP4"
        for layer in (1, 2, 3)
        for part in ("gate", "up", "down")
    }
    layers |= {f"model.layers.{layer}.self_attn.{part}_proj": "FP8" for layer in range(LAYERS) for part in "qkvo"}
    block = {
        "quant_algo": "MIXED_PRECISION",
        "quantized_layers": {name: {"quant_algo": its} for name, its in layers.items()},
    }
    formats = shipped({"quant_method": "modelopt", "quantization": block})
    assert formats == {"default": "bf16", "routed_experts": "nvfp4", "attention": "fp8_tensor"}


def test_modelopt_algorithm_unknown_is_refused():
    """Its name is in the message."""
    assert "quantization_config.quant_algo: got 'INT3', expected one of FP8" in refusal(modelopt(quant_algo="INT3"))


def test_gptq_keeps_zero_points_of_symmetric_weights():
    """Its files hold them all the same."""
    block = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
    assert shipped(block) == {"default": "int4_group128_zero", "embeddings": "bf16"}
    assert "desc_act: got True" in refusal(block | {"desc_act": True})
    assert "bits: got 3" in refusal(block | {"bits": 3})
    assert "group_size: got 64, expected 32 or 128" in refusal(block | {"group_size": 64})


def test_gptq_rules_that_exclude_modules_are_read():
    """Other rules give modules formats of their own."""
    block = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    formats = shipped(block | {"dynamic": {r"-:.*self_attn.*": {}}})
    assert "attention" not in formats
    assert "dynamic: got '+:.*mlp.*'" in refusal(block | {"dynamic": {"+:.*mlp.*": {"bits": 8}}})


@pytest.mark.parametrize(("zero", "its"), [(True, "int4_group32_zero"), (False, "int4_group32")])
def test_awq_has_zero_points_where_it_says_so(zero, its):
    """The router keeps 16 bits anyway."""
    block = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": zero, "version": "gemm"}
    assert shipped(block | {"modules_to_not_convert": ["gate"]}) == {"default": its, "embeddings": "bf16"}


def test_method_unknown_is_refused_by_name():
    """With the ones that are known."""
    message = refusal({"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert "quantization_config.quant_method: got 'bitsandbytes', expected one of fp8" in message


def test_field_of_a_block_unknown_is_refused():
    """It may change bytes."""
    assert "quantization_config.rotation: got 7" in refusal(FP8 | {"rotation": 7})


def test_mxfp4_of_another_family_is_refused():
    """What it converts is known of gpt-oss alone."""
    assert "quant_method: got 'mxfp4'" in refusal({"quant_method": "mxfp4"}, model_type="mixtral")


def test_block_that_is_no_mapping_is_refused():
    """A word is no block."""
    config = Config({"quantization_config": "fp8"}, "config.json")
    with pytest.raises(UserError, match="quantization_config: got 'fp8', expected a mapping"):
        shipped_formats(config, Architecture.model_validate(SMALL))


@pytest.mark.parametrize("value", [[], {}, -1, True, 1.5, [{}], {"a": 1}], ids=repr)
@pytest.mark.parametrize(
    ("block", "field"),
    [
        (FP8, "quant_method"),
        (FP8, "weight_block_size"),
        (modelopt(), "quant_algo"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "bits"),
        (groups(INT4), "config_groups"),
    ],
)
def test_field_of_another_type_is_refused(block, field, value):
    """A value that is no word, number or list of the field has one line of its own."""
    assert field in refusal(block | {field: value})


@pytest.mark.parametrize("fmt", ["e4m3", "float8_e4m3fn"])
def test_fp8_has_two_names(fmt):
    """MiniMax-M2 writes that of torch, MiMo-V2.5 that of the stored numbers too."""
    assert shipped(FP8 | {"fmt": fmt, "store_dtype": "fp8"}) == {"default": "fp8_block128", "embeddings": "bf16"}


def test_modelopt_of_parts_of_an_fp8_checkpoint_is_read():
    """DeepSeek-V4-Flash-NVFP4: experts by module, all else as the FP8 checkpoint had it."""
    layers = {f"layers.{layer}.ffn.experts": {"quant_algo": "NVFP4", "group_size": 16} for layer in range(LAYERS)}
    block = FP8 | {"quant_algo": "MIXED_PRECISION", "moe_quant_algo": "NVFP4", "quantized_layers": layers}
    formats = shipped(block | {"ignore": ["*.attn.*", "head", "mtp.*"]}, expert_dtype="fp4")
    assert formats["routed_experts"] == "nvfp4"
    assert {formats.get(name, formats["default"]) for name in ("attention", "shared_experts")} == {"fp8_block128"}
    assert "quant_algo: got 'NVFP4'" in refusal(block | {"quant_algo": "NVFP4"})


def test_block_of_modelopt_without_a_method_is_read():
    """Older versions wrote `quant_algo` alone."""
    block = {name: value for name, value in modelopt().items() if name != "quant_method"}
    assert shipped(block) == shipped(modelopt())


@pytest.mark.parametrize("algorithm", ["NVFP4", "NVFP4_AWQ", "W4A16_NVFP4", "W4A8_NVFP4_FP8"])
def test_modelopt_names_of_weights_in_nvfp4(algorithm):
    """What activations have changes no weight."""
    assert shipped(modelopt(quant_algo=algorithm)) == shipped(modelopt())


def test_expert_dtype_may_stand_inside_the_block():
    """Transformers 5 writes it there."""
    inside = shipped(FP8 | {"expert_dtype": "fp4"})
    assert inside == shipped(FP8, expert_dtype="fp4")
    assert inside["routed_experts"] == "mxfp4"


@pytest.mark.parametrize("digits", ["[0-9]", "[0-3]", "[0123]", "[01-9]"])
def test_ranges_of_digits_name_layers(digits):
    """Patterns of quantisers have them."""
    formats = shipped(groups(INT4) | {"ignore": ["lm_head", rf"re:.*layers\.{digits}\.self_attn.*"]})
    assert (formats["default"], formats["routed_experts"]) == ("bf16", "int4_group32")


def test_latent_projections_of_kimi_keep_16_bits():
    """Kimi-K3's list of what is left alone lacks them, but its checkpoint has them in BF16."""
    narrow = SMALL | {"ffns": SMALL["ffns"] | {"moe": EXPERTS | {"latent": 32}}}
    block = groups(INT4) | {"ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"]}
    assert shipped(block, narrow)["latent_projections"] == "int4_group32"
    assert "latent_projections" not in shipped(block, narrow, model_type="kimi_linear")
    named = {"ignore": [*block["ignore"], "re:.*routed_expert_(down|up)_proj"]}
    assert "latent_projections" not in shipped(block | named, narrow)
