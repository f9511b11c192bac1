"""Exact parameter and KV counts against the golden file, whose origin stands in its `oracle` entries."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from prophet_moe import params
from prophet_moe.precision import BF16, Precision

GOLDEN = json.loads((Path(__file__).parent / "counts.json").read_text())


@pytest.fixture(params=sorted(GOLDEN))
def golden(request, models):
    """One golden entry with the architecture of the same published name."""
    spec = next(spec for spec in models.values() if spec.published_name == request.param)
    return GOLDEN[request.param], spec.architecture


def test_every_model_has_a_golden_entry(models):
    assert {spec.published_name for spec in models.values()} == set(GOLDEN)


def test_parameters_by_component(golden):
    expected, arch = golden
    counts = params.parameter_counts(arch)
    none = dict.fromkeys(asdict(counts), 0)
    assert asdict(counts) | {"total": counts.total} == none | expected["params"]
    assert 2 * counts.non_expert == expected["bf16_bytes"]["non_expert_incl_shared"]
    assert sum(params.weight_bytes(arch).values()) == 2 * counts.total == expected["bf16_bytes"]["total"]


def test_active_and_expert_parameters(golden):
    expected, arch = golden
    assert params.active_parameters(arch) == expected["active_params"]
    assert params.expert_parameters(arch) == expected["expert_params_each"]
    assert params.expert_bytes(arch) == expected["bf16_bytes"]["one_expert"]
    assert params.moe_layers(arch) * arch.moe.experts == expected["n_expert_instances"]


def test_kv_bytes(golden):
    expected, arch = golden
    kv = expected["kv"]
    assert _growing(arch) == kv["kv_bytes_per_token"] and params.bounded_bytes(params.caches(arch)) == 0
    assert params.attention_layers(arch) == kv["attn_layers_with_kv"]
    if "kv_bytes_per_token_decompressed" in kv:
        assert _growing(arch, Precision(mla_cache="decompressed")) == kv["kv_bytes_per_token_decompressed"]


def test_state_bytes(golden):
    expected, arch = golden
    kv = expected["kv"]
    assert params.state_bytes_per_sequence(arch) == kv.get("state_bytes_per_sequence_fp32_ssm", 0)
    bf16 = Precision(state="bf16")
    assert params.state_bytes_per_sequence(arch, bf16) == kv.get("state_bytes_per_sequence_bf16", 0)


def test_totals_agree_with_the_authors(models):
    for spec in models.values():
        assert abs(params.deviation_from_published(spec)) < params.NOTED_DEVIATION, spec.name


def _growing(arch, precision=BF16):
    return params.growing_bytes_per_token(params.caches(arch, precision))
