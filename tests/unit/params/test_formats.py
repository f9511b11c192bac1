"""Bytes of weights in every format: matrices worked out by hand, and checkpoints as their authors ship them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.catalog.architecture import Architecture
from prophet_moe.precision import FORMATS, Precision
from tests import examples  # noqa: F401
from tests.architectures import architectures
from tests.golden.test_architectures import GOLDEN

NAMES = st.sampled_from(sorted(FORMATS))
BY_HAND = [
    ("fp32", 3, 5, 60),
    ("bf16", 3, 5, 30),
    ("fp8_tensor", 576, 7168, 576 * 7168 + 4),
    ("fp8_channel", 576, 7168, 576 * 7168 + 576 * 4),
    # 576 rows, the latent and rotary key of DeepSeek-V3, are 4.5 blocks of 128: five rows of scales.
    ("fp8_block128", 576, 7168, 576 * 7168 + 5 * 56 * 4),
    ("fp8_block128", 128, 128, 128 * 128 + 4),
    ("mxfp8", 10, 2880, 10 * 2880 + 10 * 90),
    ("mxfp4", 2880, 2880, 2880 * 2880 * 17 // 32),
    ("mxfp4", 1, 33, 19),  # 33 numbers of 4 bits and two exponents: 18.5 bytes
    ("nvfp4", 64, 160, 64 * 160 // 2 + 64 * 10 + 4),
    ("int8", 10, 100, 10 * 100 + 10 * 2),
    ("int4_group32", 16, 64, 16 * 64 * 9 // 16),
    ("int4_group32_zero", 16, 64, (16 * 64 * 4 + 16 * 2 * 20) // 8),
    ("int4_group128", 16, 256, 16 * 128 + 16 * 2 * 2),
    ("int4_group128_zero", 16, 256, 16 * 128 + 16 * 2 * 5 // 2),
    ("q8_0", 2, 2880, 2 * 90 * 34),
    ("q8_0", 1, 33, 2 * 34),
    ("q6_k", 4, 512, 4 * 2 * 210),
    # 2880 numbers, a row of gpt-oss, are 11.25 blocks of 256: the last one is stored whole.
    ("q4_k", 1, 2880, 12 * 144),
    ("q6_k", 1, 2880, 12 * 210),
]
"""(format, rows, columns, bytes)."""


@pytest.mark.parametrize("name, rows, columns, expected", BY_HAND)
def test_matrix_has_the_bytes_worked_out_by_hand(name, rows, columns, expected):
    assert FORMATS[name].bytes(rows, columns) == expected


def test_every_format_is_worked_out_by_hand():
    assert {name for name, *_ in BY_HAND} == set(FORMATS)


@pytest.mark.parametrize("name, bits", [("q4_k", 4.5), ("q6_k", 6.5625), ("q8_0", 8.5), ("mxfp4", 4.25)])
def test_format_has_its_known_bits_per_weight(name, bits):
    assert 8 * FORMATS[name].bytes(4096, 4096) / 4096**2 == bits


@given(NAMES, st.integers(1, 600), st.integers(1, 600))
def test_matrix_is_no_smaller_than_its_numbers(name, rows, columns):
    size, bits = FORMATS[name].bytes(rows, columns), FORMATS[name].bits
    assert 8 * size >= rows * columns * bits
    assert size <= FORMATS[name].bytes(rows + 1, columns) and size <= FORMATS[name].bytes(rows, columns + 1)


@given(architectures(), NAMES)
def test_format_changes_the_components_it_may_alone(arch, name):
    plain, stored = params.weight_bytes(arch), params.weight_bytes(arch, Precision(name))
    for component in ("router", "norms", "hyper_connections", "other"):
        assert stored.get(component) == plain.get(component)
    assert stored == params.weight_bytes(arch, Precision("bf16", dict.fromkeys(plain, name)))


@given(architectures(), NAMES, NAMES)
def test_component_takes_its_own_format(arch, default, own):
    mixed = params.weight_bytes(arch, Precision(default, {"routed_experts": own}))
    experts = params.weight_bytes(arch, Precision(own)).get("routed_experts")
    assert mixed == params.weight_bytes(arch, Precision(default)) | ({"routed_experts": experts} if experts else {})


def _golden(name: str) -> Architecture:
    return Architecture.model_validate(GOLDEN[name]["architecture"])


def _shipped(arch: Architecture, precision: Precision) -> int:
    return sum(params.weight_bytes(arch, precision).values())


MXFP4_EXPERTS = Precision(components={"routed_experts": "mxfp4"})


def test_gpt_oss_120b_ships_60_8_gib():
    size = _shipped(_golden("gpt-oss-120b"), MXFP4_EXPERTS)
    assert size == GOLDEN["gpt-oss-120b"]["checkpoint_bytes"] == 65_248_815_744
    assert round(size / 2**30, 1) == 60.8  # the model card


def test_gpt_oss_20b_ships_12_8_gib():
    """gpt-oss-20b is the larger one with 24 layers of 32 experts."""
    text = json.dumps(GOLDEN["gpt-oss-120b"]["architecture"]).replace("18 x SF", "12 x SF")
    arch = Architecture.model_validate_json(text.replace('"experts": 128', '"experts": 32'))
    assert round(params.parameter_counts(arch).total / 1e9, 2) == 20.91
    assert round(_shipped(arch, MXFP4_EXPERTS) / 2**30, 1) == 12.8


def test_kimi_k2_in_fp8_ships_1_03_tb():
    size = _shipped(_golden("Kimi-K2"), Precision("fp8_block128", {"embeddings": "bf16"}))
    # The golden number has whole blocks of 128 x 128 alone, and the norms inside attention in 8 bits.
    blocks_cut, norms = 61 * 56 * 4 // 2, 61 * (1536 + 512)
    assert size == pytest.approx(GOLDEN["Kimi-K2"]["checkpoint_bytes"] + blocks_cut + norms, abs=100)
    assert round(size / 1e12, 2) == 1.03


def test_kimi_k2_thinking_ships_594_gb():
    size = _shipped(_golden("Kimi-K2"), Precision(components={"routed_experts": "int4_group32"}))
    assert size == 594_205_259_776 and round(size / 1e9) == 594


def test_deepseek_v3_ships_a_draft_layer_in_its_format(models):
    """The files on the hub have 688,586,727,753 bytes with their headers; the draft's projection has 16 bits."""
    fields = models["DeepSeek-V3-671B"].architecture.model_dump()
    arch = Architecture.model_validate(fields | {"draft": {"pattern": ["M"], "own_embeddings": True}})
    precision = Precision("fp8_block128", {"embeddings": "bf16"})
    size = _shipped(arch, precision) + params.draft_bytes(arch, precision)
    assert 0 < 688_586_727_753 - size < 15e6
