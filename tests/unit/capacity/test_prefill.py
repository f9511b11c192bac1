"""Prefill with streamed experts: against a plain count chunk by chunk, by hand, and its limits."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.capacity.prefill import LIMITS, prefill_time, prefill_times
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.catalog import Architecture, load_gpus, load_models
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.precision import BF16, Precision
from prophet_moe.settings.scenario import CALIBRATED
from studies.prefill.study import PrefillSettings
from tests.conftest import ROOT

CATALOGUE = {name: spec.architecture for name, spec in load_models(Path(ROOT / "config/models")).items()}
DECODERS = sorted(name for name, arch in CATALOGUE.items() if not arch.encoder)
GPUS = load_gpus(ROOT / "config/gpus.yaml")
V100 = datasheet_profile("V100-32GB", GPUS["V100-32GB"])


def plain_streaming_bytes(arch: Architecture, batch: int, context: int, resident: int, chunk: int, bits: int) -> int:
    """Bytes that all chunks copy, counted chunk after chunk."""
    left, copied = batch * context, 0
    while left > 0:
        tokens = min(chunk, left)
        needed = min(arch.moe.experts, arch.moe.top_k * tokens)
        copied += params.moe_layers(arch) * max(0, needed - resident) * params.expert_parameters(arch) * bits // 8
        left -= tokens
    return copied


def plain_flops(arch: Architecture, batch: int, context: int) -> int:
    """Operations of a prefill: two per weight and token, attention to every token before it, and the last logits."""
    a, embeddings = arch.attention, params.parameter_counts(arch).embeddings
    value = a.v_head_dim if a.kind == "MLA" else a.head_dim
    pairs = sum(range(1, context + 1))
    weights = 2 * batch * context * (params.active_parameters(arch) - embeddings)
    attention = 2 * a.heads * (a.head_dim + value) * batch * pairs * params.attention_layers(arch)
    return weights + attention + 2 * batch * arch.vocab * arch.hidden


@given(
    name=st.sampled_from(DECODERS),
    batch=st.integers(1, 8),
    context=st.integers(1, 5000),
    chunk=st.integers(1, 4096),
    share=st.floats(0, 1),
    bits=st.sampled_from([4, 8, 16]),
)
@settings(deadline=None, max_examples=60)
def test_prefill_streams_what_plain_count_says(name, batch, context, chunk, share, bits):
    arch = CATALOGUE[name]
    resident = int(share * arch.moe.experts)
    time = prefill_time(arch, V100, batch, context, resident, chunk, Precision(weight_bits=bits))
    copied = plain_streaming_bytes(arch, batch, context, resident, chunk, bits)
    assert time.streaming_seconds == pytest.approx(copied / V100.link_bytes_per_second)
    assert time.chunks == -(-batch * context // chunk)
    assert time.seconds == max(time.compute_seconds, time.streaming_seconds)
    everything = prefill_time(arch, V100, batch, context, arch.moe.experts, chunk, Precision(weight_bits=bits))
    assert everything.seconds == everything.compute_seconds == time.compute_seconds


@given(name=st.sampled_from(DECODERS), batch=st.integers(1, 4), context=st.integers(1, 5000))
@settings(deadline=None, max_examples=40)
def test_prefill_with_endless_bandwidth_is_its_operations(name, batch, context):
    endless = replace(V100, hbm_bytes_per_second=1e30)
    time = prefill_time(CATALOGUE[name], endless, batch, context, 1, 2048, BF16)
    expected = plain_flops(CATALOGUE[name], batch, context) / V100.flops_per_second
    assert time.compute_seconds == pytest.approx(expected, rel=1e-6)


def test_prefill_chunk_of_qwen_streams_56_experts_a_layer():
    """By hand: 24 layers of 60 - 4 experts of 3 x 2048 x 1408 weights over PCIe 3.0, 1.48 s for each 2,048 tokens."""
    slowed = replace(V100, flops_per_second=0.5 * V100.flops_per_second)
    time = prefill_time(CATALOGUE["Qwen1.5-MoE-A2.7B"], slowed, 1, 8192, 4, 2048, BF16)
    assert time.chunks == 4
    assert time.streamed_bytes == 24 * 56 * 3 * 2048 * 1408 * 2
    assert time.seconds == pytest.approx(4 * 1.476, rel=1e-3)
    assert time.seconds / time.compute_seconds == pytest.approx(9.1, abs=0.1)


def test_prefill_table_covers_decoders_that_fit(grids, models, gpus):
    grid = grids["calibrated"]
    grid = grid[grid["case"] == ESTIMATE]
    profiles = {name: datasheet_profile(name, spec) for name, spec in gpus.items()}
    table = prefill_times(models, profiles, grid, CALIBRATED, PrefillSettings().compute_share)
    counted = grid[grid["encoder_moe_layers"] == 0]
    assert len(table) == sum((counted[column] >= 1).sum() for column in LIMITS.values())
    assert (table["slowdown"] >= 1).all()
    assert not table["model"].str.startswith("Switch").any()
    fast = prefill_times(models, profiles, grid, CALIBRATED, 1)
    assert (fast["all_resident_s"] <= table["all_resident_s"]).all()
    assert (fast["streaming_s"] == table["streaming_s"]).all()
