"""Paces of GPUs: estimates above their bounds, and steps that are the sum of what the simulator adds up."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.link import load_links
from prophet_moe.hardware.estimate import read_estimators
from prophet_moe.hardware.operators import operators_for
from prophet_moe.hardware.pace import EstimatedPace, ProfilePace, paces_of, read_paces
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.offload.simulator.timing import times_of
from prophet_moe.precision import BF16, FORMATS, Precision
from tests import examples  # noqa: F401
from tests.architectures import architectures
from tests.conftest import ROOT
from tests.unit.hardware.test_roofline import distinct_experts

GPUS = load_gpus(ROOT / "config/gpus.yaml")
FOLDER, PINNED = ROOT / "resources/operators", load_links(ROOT / "config/links.yaml")["pinned"]
ESTIMATORS = read_estimators(FOLDER, GPUS)
PACES = read_paces(ROOT / "resources/hardware", FOLDER, GPUS, PINNED)
SOME = st.sampled_from(["H100-80GB", "A100-40GB", "RTX4090-24GB"]).map(PACES.get)
FORMAT = st.sampled_from(sorted(FORMATS)).map(lambda name: Precision(default=name))


def with_experts(arch) -> bool:
    """Whether any layer of the decoder has experts."""
    return bool(arch.moe_layers)


@settings(deadline=None, max_examples=30)
@given(SOME, architectures().filter(with_experts), st.integers(1, 64), st.integers(1, 300), FORMAT)
def test_no_time_of_a_pace_is_below_its_bound(paces, arch, batch, context, precision):
    # The bound leaves out the biases of routed experts, some thousandths of them where experts are not tiny.
    assume(not arch.moe.bias)
    unique, tokens = distinct_experts(arch, batch, 0.5), batch * arch.moe.top_k
    steps = [pace.step_seconds(arch, batch, context, unique, precision) for pace in (paces.bound, paces.best)]
    experts = [pace.expert_seconds(arch, tokens, precision) for pace in (paces.bound, paces.best)]
    copies = [pace.copy_seconds(10**6) for pace in (paces.bound, paces.best)]
    for bound, best in (steps, experts, copies):
        assert 0 < bound <= best * (1 + 1e-9)


@settings(deadline=None, max_examples=30)
@given(SOME, architectures().filter(with_experts), st.integers(1, 64), st.integers(1, 300), FORMAT)
def test_step_is_its_experts_and_what_no_expert_changes(paces, arch, batch, context, precision):
    assume(not arch.moe.bias)
    most = min(arch.moe.experts, batch * arch.moe.top_k)
    for pace in (paces.best, paces.bound):
        other = [
            pace.step_seconds(arch, batch, context, unique, precision)
            - len(arch.moe_layers) * unique * pace.expert_seconds(arch, batch * arch.moe.top_k / unique, precision)
            for unique in (1, most)
        ]
        assert other[0] == pytest.approx(other[1], rel=1e-6, abs=1e-12)
        assert other[0] > 0


@settings(deadline=None, max_examples=30)
@given(SOME, architectures().filter(with_experts), st.integers(1, 16), st.integers(1, 300))
def test_simulated_layers_without_misses_are_the_step(paces, arch, batch, context):
    assume(not arch.moe.bias and arch.moe.top_k <= arch.moe.experts)
    context, layers = min(context, arch.native_context), len(arch.moe_layers)
    times = times_of(arch, paces.best, layers, batch, context, BF16, 4.0)
    # All tokens choose the same k experts: each of these computes the whole batch.
    together = times.non_expert_seconds.sum() + layers * arch.moe.top_k * times.expert_seconds[batch]
    assert together == pytest.approx(paces.best.step_seconds(arch, batch, context, arch.moe.top_k, BF16))


def test_measured_gpu_has_its_measured_pace_and_the_same_bound():
    datasheet = datasheet_profile("H100-80GB", GPUS["H100-80GB"])
    measured = replace(datasheet, source="measured", hbm_bytes_per_second=2e12)
    paces = paces_of(measured, ESTIMATORS["H100-80GB"], PINNED)
    assert paces.best == ProfilePace(measured)
    assert (paces.best.basis, paces.bound.basis) == ("measured", "bound")
    assert paces.bound == ProfilePace(datasheet)


def test_gpu_of_the_same_chip_has_its_operators():
    """Shares refer to the bandwidth of each: a copy of 1 GB takes longer on the GPU with less of it."""
    small, large = (operators_for(FOLDER, name, GPUS[name]) for name in ("A100-40GB", "A100-80GB"))
    assert small == large
    assert operators_for(FOLDER, "V100-32GB", GPUS["V100-32GB"]) is None
    moved = [fit.moving_seconds(GPUS[name], 1e9, 0) for name in ("A100-40GB", "A100-80GB") for fit in large.fits[:1]]
    speeds = [GPUS[name].hbm_gb_per_s for name in ("A100-80GB", "A100-40GB")]
    assert moved[0] / moved[1] == pytest.approx(speeds[0] / speeds[1])


def test_every_gpu_has_paces_that_tell_their_basis():
    for paces in PACES.values():
        assert isinstance(paces.best, EstimatedPace)
        assert (paces.best.basis, paces.bound.basis) == ("estimated", "bound")
        assert np.isfinite(paces.best.copy_seconds(10**9))
