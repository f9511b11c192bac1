"""Estimates of decode steps: never below the bound, against a plain reference, on one GPU and on several."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.link import link_named, load_links
from prophet_moe.errors import UserError
from prophet_moe.hardware.estimate import (
    Estimator,
    Split,
    estimate_step,
    read_constants,
    step_operations,
)
from prophet_moe.hardware.operators import read_operators
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.hardware.roofline import all_resident_seconds, layer_times
from prophet_moe.precision import FORMATS, Precision
from tests import examples  # noqa: F401
from tests.architectures import architectures
from tests.conftest import ROOT
from tests.unit.hardware.test_hardware import MODELS
from tests.unit.hardware.test_roofline import distinct_experts

GPUS = load_gpus(ROOT / "config/gpus.yaml")
FOLDER = ROOT / "resources/operators"
CONSTANTS = read_constants(FOLDER / "constants.json")
LINKS = load_links(ROOT / "config/links.yaml")


def estimator(gpu: str) -> Estimator:
    """Return what estimates of a GPU are made of, as committed."""
    return Estimator(gpu, GPUS[gpu], read_operators(FOLDER, gpu), CONSTANTS)


H100, RTX = estimator("H100-80GB"), estimator("RTX4090-24GB")
EITHER = st.sampled_from([H100, RTX])


@given(EITHER, architectures(), st.integers(1, 64), st.integers(1, 300), st.floats(0, 1))
def test_bound_on_one_gpu_is_the_roofline_of_any_layers(each, arch, batch, context, share):
    unique = distinct_experts(arch, batch, share)
    times = layer_times(arch, datasheet_profile(each.gpu, each.spec), batch, context, unique)
    found, expected = estimate_step(each, arch, batch, context, unique).bound, all_resident_seconds(times)
    # The roofline leaves out the biases of routed experts, some thousandths of them where experts are not tiny.
    assert found >= expected * (1 - 1e-9)
    assert found == pytest.approx(expected) or arch.moe.bias


@pytest.mark.parametrize("name", MODELS)
def test_bound_on_one_gpu_is_the_roofline_of_a_model(name):
    arch = MODELS[name]
    unique = distinct_experts(arch, 16, 0.5)
    times = layer_times(arch, datasheet_profile(H100.gpu, H100.spec), 16, 2000, unique)
    assert estimate_step(H100, arch, 16, 2000, unique).bound == pytest.approx(all_resident_seconds(times), rel=1e-3)


@given(EITHER, architectures(), st.integers(1, 64), st.integers(1, 300), st.sampled_from([1, 2, 4, 8]))
def test_estimate_of_any_layers_is_above_its_bound(each, arch, batch, context, gpus):
    found = estimate_step(each, arch, batch, context, distinct_experts(arch, batch, 0.5), split=Split(gpus))
    assert found.bound <= found.low <= found.seconds <= found.high
    assert math.isfinite(found.high)


@given(EITHER, architectures(), st.integers(1, 32), st.integers(1, 32), st.integers(1, 300), st.integers(1, 300))
def test_estimate_never_gets_shorter_with_more_work(each, arch, batch, more, context, longer):
    unique = distinct_experts(arch, batch, 0.5)
    first = estimate_step(each, arch, batch, context, unique).seconds
    assert first <= estimate_step(each, arch, batch + more, context, unique).seconds * (1 + 1e-12)
    assert first <= estimate_step(each, arch, batch, context + longer, unique).seconds * (1 + 1e-12)


@given(architectures(), st.integers(1, 32), st.integers(1, 300), st.sampled_from(sorted(FORMATS)))
def test_one_gpu_reads_what_several_read_together(arch, batch, context, weights):
    """Experts and states are split evenly; attention and matrices are never less than a share."""
    unique, precision = distinct_experts(arch, batch, 0.5), Precision(weights)
    alone, four = (step_operations(arch, batch, context, unique, precision, Split(n)) for n in (1, 4))
    for layer, part in zip(alone, four, strict=True):
        parts = [each for each in part if each.kind != "all_reduce"]
        for whole, each in zip(layer, parts, strict=True):
            assert whole.bytes / 4 <= each.bytes * (1 + 1e-12) <= whole.bytes * (1 + 1e-12)
            if each.kind in ("moe_layer", "state"):
                assert each.bytes == pytest.approx(whole.bytes / 4)


def plain_mixtral(batch: int, context: int, used: float, gpus: int) -> float:
    """Seconds of a step of Mixtral-8x7B in bf16 on H100, summed operator by operator from its published shapes."""
    spec, fits = GPUS["H100-80GB"], {(f.kind, f.format): f for f in H100.operators.fits}

    def law(kind: str, size: float, flops: float, experts: float = 0.0, format: str = "bf16") -> float:
        fit = fits[kind, format]
        done = flops / (fit.peak_share * spec.peak_tflops * 1e12) if fit.peak_share else 0.0
        moved = size / (fit.hbm_share * spec.hbm_gb_per_s * 1e9)
        return (fit.fixed_us + fit.each_us * experts) * 1e-6 + math.sqrt(moved**2 + done**2)

    def product(rows: int, columns: int, split: int) -> float:
        return law("gemm", 2 * rows * columns / split, 2 * rows * columns * batch / split)

    hidden, inner, kv, layer = 4096, 14336, 8 * 128, 0.0
    layer += product(hidden + 2 * kv, hidden, gpus) + product(hidden, hidden, gpus) + product(8, hidden, 1)
    tokens = batch * context
    layer += law("attention", tokens * 2 * kv * 2 / min(gpus, 8), tokens * 4 * 32 * 128 / gpus)
    expert = 3 * hidden * inner
    layer += law("moe_layer", used * expert * 2 / gpus, 2 * batch * 2 * expert / gpus, used)
    norms = fits["gemm", "bf16"]

    def norm(values: int) -> float:
        moved = 2 * values / (norms.hbm_share * 3.35e12)
        return math.hypot(moved, 2 * values * batch / (norms.peak_share * 989.4e12))

    if gpus > 1:
        layer += 2 * law("all_reduce", 2 * batch * hidden, 0, format=str(gpus))
    layer += CONSTANTS.with_operators.layer_us * 1e-6
    return 32 * (layer + norm(2 * hidden)) + norm(hidden) + product(32000, hidden, gpus)


@pytest.mark.parametrize(("batch", "context", "used", "gpus"), [(1, 100, 2, 1), (16, 4096, 7.9, 1), (8, 1000, 7, 4)])
def test_estimate_of_mixtral_equals_a_plain_sum(batch, context, used, gpus):
    found = estimate_step(H100, MODELS["Mixtral-8x7B"], batch, context, used, split=Split(gpus))
    assert found.seconds == pytest.approx(plain_mixtral(batch, context, used, gpus), rel=1e-9)
    assert sum(found.parts.values()) == pytest.approx(found.seconds)


def test_windows_bound_what_layers_of_gpt_oss_read():
    arch, long = MODELS["gpt-oss-120b"], 100_000
    layers = step_operations(arch, 4, long, 16.0)
    (window,), (full,) = ([o for o in layer if o.kind == "attention"] for layer in layers[:2])
    assert full.bytes / window.bytes == pytest.approx(long / 128)


def test_latent_of_mla_is_whole_on_every_gpu():
    arch = MODELS["DeepSeek-V3-671B"]
    one, eight = (
        next(o for o in step_operations(arch, 4, 1000, 30.0, split=Split(n))[5] if o.kind == "mla") for n in (1, 8)
    )
    assert one.bytes == eight.bytes == 4 * 1000 * 576 * 2
    assert one.flops == 8 * eight.flops


def test_whole_experts_on_a_gpu_are_fewer_than_parts_of_all():
    arch = MODELS["Qwen3-235B"]
    parts, whole = (
        next(o for o in step_operations(arch, 16, 1000, 64.0, split=Split(4, how))[0] if o.kind == "moe_layer")
        for how in (False, True)
    )
    assert (parts.experts, whole.experts) == (64, 16)
    assert parts.bytes == whole.bytes


def test_experts_may_differ_by_layer():
    arch = MODELS["DeepSeek-V3-671B"]
    unique = np.linspace(8, 60, len(arch.moe_layers))
    found = [sum(o.experts for o in layer) for layer in step_operations(arch, 16, 100, unique)]
    assert found == pytest.approx([0, 0, 0, *unique])


def test_formats_by_component_are_those_of_their_operators():
    precision = Precision("bf16", {"routed_experts": "mxfp4", "attention_output": "int8"})
    (first, *_) = step_operations(MODELS["gpt-oss-120b"], 1, 100, 4.0, precision)
    formats = {(o.kind, o.format) for o in first}
    assert {("moe_layer", "mxfp4"), ("gemm", "bf16"), ("gemm", "int8")} <= formats


@pytest.mark.parametrize(("batch", "context", "gpus"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (math.nan, 1, 1)])
def test_impossible_numbers_are_refused(batch, context, gpus):
    with pytest.raises(UserError, match="expected at least 1"):
        step_operations(MODELS["Mixtral-8x7B"], batch, context, 2.0, split=Split(gpus))


def test_more_gpus_than_experts_are_refused():
    with pytest.raises(UserError, match="at most 8"):
        step_operations(MODELS["Mixtral-8x7B"], 1, 1, 2.0, split=Split(16, by_expert=True))


def test_intervals_are_never_those_of_single_rows():
    for each in CONSTANTS.residuals:
        assert each.rows >= 20 and each.groups >= 3
        assert each.low < 1 < each.high
    assert CONSTANTS.residuals_of("H100-80GB", "vllm", True).gpu == "H100-80GB"
    assert CONSTANTS.residuals_of("B200-180GB", "vllm", True).gpu == ""


@pytest.mark.parametrize(
    ("link", "gpu", "size", "seconds"),
    [
        ("pinned", "RTX5090-32GB", 864 * 1024, 27.3e-6),
        ("pageable", "RTX5090-32GB", 864 * 1024, 92e-6),
        ("pinned", "RTX4090-24GB", 352e6, 352e6 / 26.5e9),
        ("pinned", "H200-141GB", 1e9, 1e9 / 55.4e9),
    ],
)
def test_links_take_what_was_measured(link, gpu, size, seconds):
    assert LINKS[link].seconds(GPUS[gpu], size) == pytest.approx(seconds, rel=0.06)


def test_datasheet_link_is_the_bound_of_every_other():
    for spec in GPUS.values():
        least = LINKS["datasheet"].seconds(spec, 1e6, 3)
        assert least == pytest.approx(3e6 / (spec.link_gb_per_s * 1e9))
        assert all(link.seconds(spec, 1e6, 3) >= least for link in LINKS.values())
    assert LINKS["pinned"].seconds(GPUS["V100-32GB"], 0) == 0


def test_shares_of_links_lie_between_those_of_their_sources():
    for link in LINKS.values():
        assert link.lowest_share <= link.share <= link.highest_share


def test_unknown_link_is_refused_in_one_line():
    with pytest.raises(UserError, match="expected one of datasheet, pinned, pageable"):
        link_named("pined", LINKS)


def test_estimate_without_tables_is_a_share_and_a_constant():
    arch = MODELS["Mixtral-8x7B"]
    found = estimate_step(RTX, arch, 2, 500, 3.5)
    rest = CONSTANTS.without_operators
    assert found.basis == "share of bandwidth"
    assert found.seconds == pytest.approx(found.bound / rest.hbm_share + 32 * rest.layer_us * 1e-6)
    faster = dataclasses.replace(RTX, spec=RTX.spec.model_copy(update={"hbm_gb_per_s": 2016.0}))
    assert estimate_step(faster, arch, 2, 500, 3.5).seconds < found.seconds
