"""Where weights are in each way of serving: bytes are those of the parameter counts, and none is lost."""

from dataclasses import astuple

import pytest

from prophet_moe import params
from prophet_moe.catalog import load_models
from prophet_moe.offload.placements import (
    all_resident,
    every_expert,
    needed_experts,
    sizes_of,
    slots,
    streamed,
)
from prophet_moe.precision import BF16, Precision
from tests.conftest import ROOT

MODELS = load_models(ROOT / "config/models", ["Mixtral-8x7B", "Switch-XXL-128", "DeepSeek-V3-671B", "Jamba-1.5-Large"])
FORMATS = (BF16, Precision(default="int8"), Precision(default="mxfp4"))
CASES = pytest.mark.parametrize(("name", "precision"), [(name, form) for name in MODELS for form in FORMATS])


@CASES
def test_sizes_are_the_bytes_of_the_counts(name, precision):
    arch = MODELS[name].architecture
    sizes, stored = sizes_of(arch, precision), params.weight_bytes(arch, precision)
    assert sizes.total_bytes == sum(stored.values())
    assert sizes.routed_bytes == stored["routed_experts"]
    assert sizes.kept_bytes == stored["embeddings"]
    assert (sizes.encoder_bytes > 0) == (arch.encoder is not None)
    if precision is BF16 and not arch.encoder:
        assert sizes.total_bytes == pytest.approx(2 * params.parameter_counts(arch).total, rel=1e-3)


@CASES
def test_weights_are_on_the_gpu_or_in_host_memory(name, precision):
    arch = MODELS[name].architecture
    sizes, unique = sizes_of(arch, precision), arch.moe.top_k
    ways = [all_resident(sizes), every_expert(sizes), needed_experts(sizes, unique), streamed(sizes)]
    ways += [slots(sizes, count, unique, 0.3) for count in (1, arch.moe.experts // 2, arch.moe.experts)]
    for way in ways:
        assert way.gpu_bytes + way.host_bytes == pytest.approx(sizes.total_bytes)
        assert min(astuple(way)) >= 0


@CASES
def test_copies_are_the_experts_of_the_decoder(name, precision):
    arch = MODELS[name].architecture
    sizes = sizes_of(arch, precision)
    layers, size, experts = len(arch.moe_layers), params.expert_bytes(arch, precision), arch.moe.experts
    assert every_expert(sizes).moved_bytes == layers * experts * size
    assert needed_experts(sizes, 3).moved_bytes == layers * 3 * size
    assert needed_experts(sizes, 2.5).gpu_expert_bytes == 3 * size
    assert slots(sizes, 2, 3, 0.5).moved_bytes == layers * 1.5 * size
    moved = streamed(sizes).moved_bytes
    assert moved == sizes.decoder_bytes + layers * experts * size
    assert streamed(sizes, 7e9).moved_bytes == moved + 7e9


def test_every_slot_filled_is_the_baseline():
    sizes = sizes_of(MODELS["Switch-XXL-128"].architecture, BF16)
    full = slots(sizes, 128, 1, 0.0)
    assert astuple(full) == astuple(all_resident(sizes))


def test_more_slots_keep_more_and_move_no_more():
    sizes = sizes_of(MODELS["Mixtral-8x7B"].architecture, BF16)
    few, many = slots(sizes, 2, 2, 0.4), slots(sizes, 4, 2, 0.1)
    assert few.gpu_bytes < many.gpu_bytes and few.host_bytes > many.host_bytes and few.moved_bytes > many.moved_bytes
