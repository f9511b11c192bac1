"""Model files in the form of earlier versions, converted, against the golden counts of the same models."""

import copy
import json
from dataclasses import asdict

import pytest
import yaml

from prophet_moe import params
from prophet_moe.catalog.architecture import Architecture
from prophet_moe.catalog.model import load_model
from prophet_moe.catalog.old_form import converted
from prophet_moe.errors import UserError
from prophet_moe.validation import validate
from tests.conftest import ROOT

GOLDEN = json.loads((ROOT / "tests/golden/counts.json").read_text())
OLD = {
    "Jamba-1.5-Large": """
        family: hybrid
        layers: 72
        hidden: 8192
        vocab: 65536
        native_context: 262144
        norms_per_layer: 2
        moe: {experts: 16, top_k: 2, ffn: 24576, gated: true, placement: {first: 1, step: 2}}
        dense_ffn: 24576
        attention: {kind: GQA, heads: 64, kv_heads: 8, head_dim: 128, placement: {first: 4, step: 8}}
        mamba: {state: 16, conv: 4, inner: 16384, dt_rank: 512}
        """,
    "DeepSeek-V3": """
        family: decoder
        layers: 61
        hidden: 7168
        vocab: 129280
        native_context: 131072
        tied_embeddings: false
        moe: {experts: 256, top_k: 8, ffn: 2048, shared_experts: 1, shared_ffn: 2048, placement: {first: 3}}
        dense_ffn: 18432
        attention:
          kind: MLA
          heads: 128
          kv_heads: 128
          head_dim: 192
          q_lora_rank: 1536
          kv_lora_rank: 512
          nope_head_dim: 128
          rope_head_dim: 64
          v_head_dim: 128
        """,
    "Switch-Base-128": """
        family: encoder_decoder
        encoder_layers: 12
        layers: 12
        hidden: 768
        vocab: 32128
        native_context: 512
        tied_embeddings: true
        moe: {experts: 128, top_k: 1, ffn: 3072, gated: false, placement: {first: 1, step: 2}}
        dense_ffn: 3072
        attention: {kind: MHA, heads: 12, kv_heads: 12, head_dim: 64, relative_buckets: 32}
        """,
    "Grok-1": """
        family: decoder
        layers: 64
        hidden: 6144
        vocab: 131072
        native_context: 8192
        tied_embeddings: true
        norms_per_layer: 4
        moe: {experts: 8, top_k: 2, ffn: 32768}
        attention: {kind: GQA, heads: 48, kv_heads: 8, head_dim: 128}
        """,
    "Qwen2-57B-A14B": """
        family: decoder
        layers: 28
        hidden: 3584
        vocab: 151936
        native_context: 131072
        moe: {experts: 64, top_k: 8, ffn: 2560, shared_experts: 8, shared_ffn: 20480, shared_gate: true}
        attention: {kind: GQA, heads: 28, kv_heads: 4, head_dim: 128, qkv_bias: true}
        """,
    "Snowflake-Arctic": """
        family: decoder
        layers: 35
        hidden: 7168
        vocab: 32000
        native_context: 4096
        norms_per_layer: 3
        moe: {experts: 128, top_k: 2, ffn: 4864}
        residual_ffn: 7168
        attention: {kind: GQA, heads: 56, kv_heads: 8, head_dim: 128}
        """,
}
"""Architectures of earlier versions by the published name of the model."""
PATTERNS = {
    "Jamba-1.5-Large": ["9 x sSsSDSsS"],
    "DeepSeek-V3": ["3 x D", "58 x M"],
    "Switch-Base-128": ["6 x DM"],
    "Grok-1": ["64 x M"],
    "Qwen2-57B-A14B": ["28 x M"],
    "Snowflake-Arctic": ["35 x M"],
}


def _old(name: str) -> dict:
    return {"name": name, "architecture": yaml.safe_load(OLD[name])}


def _new(name: str) -> Architecture:
    return validate(Architecture, converted(_old(name), "old.yaml")["architecture"], "old.yaml", "Mend it.")


@pytest.mark.parametrize("name", OLD)
def test_converted_model_has_the_golden_counts(name):
    arch, golden = _new(name), GOLDEN[name]
    counts = params.parameter_counts(arch)
    none = dict.fromkeys(asdict(counts), 0)
    assert asdict(counts) | {"total": counts.total} == none | golden["params"]
    assert params.active_parameters(arch) == golden["active_params"]
    kv = golden["kv"]
    assert params.growing_bytes_per_token(params.caches(arch)) == kv["kv_bytes_per_token"]
    assert params.state_bytes_per_sequence(arch) == kv.get("state_bytes_per_sequence_fp32_ssm", 0)


@pytest.mark.parametrize("name", OLD)
def test_converted_pattern_is_short(name):
    assert _new(name).pattern == PATTERNS[name]


def test_conversion_keeps_the_rest_and_its_document():
    old = _old("Grok-1") | {"notes": ["kept"]}
    before = copy.deepcopy(old)
    assert converted(old, "old.yaml")["notes"] == ["kept"] and old == before


def test_new_form_is_not_converted_again():
    new = converted(_old("Grok-1"), "old.yaml")
    with pytest.raises(UserError, match=r"^m\.yaml: architecture: is not in the form of earlier versions"):
        converted(new, "m.yaml")


@pytest.mark.parametrize("broken", [{}, {"architecture": None}, {"architecture": []}, {"architecture": {"layers": 3}}])
def test_what_is_no_model_is_not_converted(broken):
    with pytest.raises(UserError, match="There is nothing to convert"):
        converted(broken, "m.yaml")


BROKEN = [
    ({"layers": None}, "wrong kind"),
    ({"layers": 10**12}, "wrong kind: layers 1000000000000, expected at most 10,000"),
    ({"layers": "many"}, "wrong kind"),
    ({"moe": {"experts": 8, "placement": {"step": 0}}}, "wrong kind"),
    ({"moe": []}, "wrong kind"),
    ({"attention": {"kind": "GQA"}}, "key 'heads' is missing"),
    ({"attention": {"kind": "MLA", "heads": 8}}, "key 'q_lora_rank' is missing"),
    ({"attention": None}, "wrong kind"),
    ({"mamba": 7}, "wrong kind"),
]


@pytest.mark.parametrize("changed, told", BROKEN)
def test_broken_old_form_ends_in_one_line(changed, told):
    old = _old("Grok-1")
    old["architecture"] |= changed
    with pytest.raises(UserError, match=told) as error:
        converted(old, "m.yaml")
    assert "\n" not in str(error.value)


def test_old_form_without_a_key_tells_its_name():
    old = _old("Grok-1")
    del old["architecture"]["attention"]
    with pytest.raises(UserError, match="key 'attention' is missing"):
        converted(old, "m.yaml")


def test_placement_beyond_the_last_layer_is_refused():
    """M3: such a model was read without a word, and its cache was 0 bytes."""
    old = _old("Jamba-1.5-Large")
    old["architecture"]["attention"]["placement"] = {"first": 72, "step": 8}
    new = converted(old, "m.yaml")["architecture"]
    with pytest.raises(UserError, match=r"mixers\.attention: is in no block"):
        validate(Architecture, new, "m.yaml", "Mend that key.")


def test_catalogue_refuses_the_old_form_with_the_command(tmp_path):
    path = tmp_path / "Grok-1.yaml"
    path.write_text(yaml.safe_dump(_old("Grok-1")))
    with pytest.raises(UserError, match=f"Run: prophet-moe model convert {path}"):
        load_model(path)
