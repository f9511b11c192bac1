"""The closed form of break-even: its limits, its inverse, and the simulator between its bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.catalog.link import load_links
from prophet_moe.errors import UserError
from prophet_moe.offload.break_even import (
    expert_share,
    fewest_slots,
    filled_hit_curve,
    hit_rate_needed,
    link_ratio,
    misses_allowed,
    slowdown,
)
from prophet_moe.offload.replay import RECORDED, Sample, run
from prophet_moe.offload.simulator import engine
from prophet_moe.offload.simulator.predictions import Predictions, TrainingStatistics
from prophet_moe.offload.simulator.simulation import Hierarchy, Times
from prophet_moe.offload.strategies import strategies
from prophet_moe.routing.calibrated import read_calibrated
from prophet_moe.routing.synthetic import Chains, Scalars, generate
from prophet_moe.routing.trace import Router
from tests.conftest import ROOT

WAYS = ("on_demand", "prefetched", "in_place")
SHARES, RATIOS = st.floats(0.01, 1), st.floats(1e-3, 1)
EXAMPLES = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("way", WAYS)
def test_slowdown_without_misses_is_one(way):
    shares, ratios = np.meshgrid(np.linspace(0, 1, 7), np.geomspace(1e-3, 1e3, 7))
    assert (slowdown(0, shares, ratios, way) == 1).all()


@pytest.mark.parametrize("way", WAYS[:2])
def test_slowdown_of_endless_link_is_one(way):
    assert slowdown(np.linspace(0, 1, 5), 1.0, 1e12, way) == pytest.approx(1)


def test_slowdown_in_place_at_speed_of_memory_is_one():
    assert slowdown(np.linspace(0, 1, 5), 0.7, 1.0, "in_place") == pytest.approx(1)
    assert (hit_rate_needed(1.0, 0.7, 1.0, "in_place") == 0).all()


@EXAMPLES
@given(st.floats(0, 1), SHARES, RATIOS, st.sampled_from(WAYS))
def test_slowdown_is_monotone_in_each_ratio(miss, share, ratio, way):
    here = slowdown(miss, share, ratio, way)
    assert here >= 1
    assert slowdown(min(1, miss + 0.1), share, ratio, way) >= here
    assert slowdown(miss, min(1, share + 0.1), ratio, way) >= here
    assert slowdown(miss, share, ratio / 2, way) >= here


@EXAMPLES
@given(st.floats(0, 1), SHARES, RATIOS)
def test_prefetch_gains_at_most_twice(miss, share, ratio):
    demand, prefetched = (slowdown(miss, share, ratio, way) for way in WAYS[:2])
    assert prefetched <= demand <= 2 * prefetched + 1e-12


@EXAMPLES
@given(st.floats(1, 5), SHARES, RATIOS, st.sampled_from(WAYS))
def test_misses_allowed_are_the_inverse_of_slowdown(limit, share, ratio, way):
    allowed = misses_allowed(limit, share, ratio, way)
    found = slowdown(allowed, share, ratio, way)
    assert found <= limit * (1 + 1e-9)
    if allowed < 1:
        assert found == pytest.approx(limit, rel=1e-9)
    assert hit_rate_needed(limit, share, ratio, way) == 1 - allowed


def test_ratios_of_a_link_are_those_of_seconds():
    link = load_links(ROOT / "config/links.yaml")["pinned"]
    size, hbm, bus = 10e6, 3350, 63
    copy = link.copy_us / 1e6 + size / (link.share * bus * 1e9)
    assert link_ratio(size, hbm, bus, link) == pytest.approx(size / (hbm * 1e9) / copy)
    assert link_ratio(1e5, hbm, bus, link) < link_ratio(1e9, hbm, bus, link) < link.share * bus / hbm
    read = expert_share(size, 8 * 48, hbm, 5e-3)
    assert slowdown(0.3, read, link_ratio(size, hbm, bus, link)) == pytest.approx(1 + 0.3 * 8 * 48 * copy / 5e-3)


def test_numbers_out_of_range_end_in_one_line():
    for wrong in ((1.2, 0.5, 0.1), (0.5, -0.1, 0.1), (0.5, 0.5, 0.0), (np.nan, 0.5, 0.1)):
        with pytest.raises(UserError, match="break-even"):
            slowdown(*wrong)
    with pytest.raises(UserError, match="at least 1"):
        misses_allowed(0.9, 0.5, 0.1)
    with pytest.raises(UserError, match="expected one of on_demand"):
        slowdown(0.5, 0.5, 0.1, "guessed")


@pytest.fixture(scope="module")
def sample() -> Sample:
    """Generated routing of 16 experts, top 4, in three layers."""
    parameters = read_calibrated(ROOT / "resources/routing/qwen3-30b-a3b.json").parameters(
        Router("x", 16, 4, (0, 1, 2)), 0.5
    )
    training = TrainingStatistics(generate(parameters, 16, 64, 5))
    return Sample(Predictions(training, generate(parameters, 4, 64, 6)), 6, RECORDED, 0.0)


@EXAMPLES
@given(st.integers(4, 15), st.floats(0, 5), st.floats(0.01, 50))
def test_simulator_lies_between_the_closed_forms(sample, slots, other, copy):
    """Whatever a layer and a copy take: copies go on beside experts that are computed, and beside nothing else."""
    times = Times(np.full(3, other), np.array([0.0, 1.0]), (copy,))
    outcome = run(sample.parts(1), sample.predictions.training, strategies()["on_demand"], Hierarchy((slots,)), times)
    found = outcome.seconds / outcome.compute_seconds
    ratios = 1 - outcome.hit_rate, 4 / (4 + other), 1 / copy
    assert slowdown(*ratios, "prefetched") - 1e-9 <= found <= slowdown(*ratios) + 1e-9


@EXAMPLES
@given(st.integers(1, 15), st.floats(0, 5), st.floats(0.01, 50))
def test_simulator_of_one_expert_equals_the_closed_form(slots, other, copy):
    routing = read_calibrated(ROOT / "resources/routing/gpt-oss-20b.json")
    parameters = routing.parameters(Router("x", 16, 1, (0, 1)), 0.5)
    trace = generate(parameters, 2, 48, 1)
    predictions = Predictions(TrainingStatistics(trace), trace)
    parts = Sample(predictions, 1, RECORDED, 0.0).parts(1)
    times = Times(np.full(2, other), np.array([0.0, 1.0]), (copy,))
    outcome = run(parts, predictions.training, strategies()["on_demand"], Hierarchy((slots,)), times)
    found = outcome.seconds / outcome.compute_seconds
    assert found == pytest.approx(float(slowdown(1 - outcome.hit_rate, 1 / (1 + other), 1 / copy)))


@pytest.mark.parametrize("slots", [4, 8, 12])
def test_perfect_prefetch_is_not_below_its_closed_form(sample, slots):
    """At the bytes that it moves, useful or not."""
    times = Times(np.full(3, 1.0), np.array([0.0, 1.0]), (3.0,))
    chosen = strategies()["perfect_prefetch"]
    outcome = run(sample.parts(1), sample.predictions.training, chosen, Hierarchy((slots,)), times)
    moved = (outcome.demand_seconds + outcome.prefetch_seconds) / 3.0 / outcome.requests.sum()
    assert outcome.count(engine.PREFETCHED) > 0
    assert outcome.seconds / outcome.compute_seconds >= slowdown(min(1.0, moved), 4 / 5, 1 / 3, "prefetched") - 1e-9


@pytest.mark.parametrize(("experts", "top_k"), [(16, 4), (10, 4), (8, 1)])
def test_filled_curve_is_the_simulators_hit_rate(experts, top_k):
    """Caches start alike, with the most popular experts: within two points, as popularity is counted there."""
    scalars = Scalars(persistence=0.1, affinity=1.0, drift=0.5, drift_tokens=20.0, spread=1.0)
    curve = filled_hit_curve(scalars, Router("x", experts, top_k, ()), 96, 3, Chains(32, 4))
    assert curve[0] == 0 and curve[-1] == 1 and (np.diff(curve) >= 0).all()
    drawn = scalars.parameters(Router("x", experts, top_k, (0, 1, 2, 3)))
    training, replayed = TrainingStatistics(generate(drawn, 64, 96, 7)), generate(drawn, 32, 96, 3)
    # Every sequence alone: a cache does not keep what the sequence before it used.
    starts = np.flatnonzero(np.diff(replayed.sequence, prepend=-1))
    times = Times(np.ones(4), np.zeros(2), (1.0,))
    for slots in {top_k, experts // 2, experts - 1}:
        hits = []
        for number in range(len(starts)):
            part = replayed.select(replayed.sequence == number)
            alone = Sample(Predictions(training, part), 0, RECORDED, 0.0)
            hits.append(run(alone.parts(1), training, strategies()["on_demand"], Hierarchy((slots,)), times).hit_rate)
        assert np.mean(hits) == pytest.approx(curve[slots], abs=0.02)


def test_fewest_slots_reach_the_hit_rate():
    curve = np.array([0, 0.2, 0.5, 0.9, 1 - 1e-16])
    assert [fewest_slots(curve, rate) for rate in (0, 0.2, 0.3, 0.9, 0.95, 1)] == [1, 1, 2, 3, 4, 4]
    assert fewest_slots(curve, 0.1, least=2) == 2


def test_numbers_of_the_page_are_computed():
    page = (ROOT / "docs/where_it_pays.md").read_text()
    link = load_links(ROOT / "config/links.yaml")["pinned"]
    half = link.copy_us / 1e6 * link.share * 63e9
    assert link_ratio(half, 3350, 63, link) == pytest.approx(link.share * 63 / 3350 / 2)
    assert (
        f"At {link.copy_us:g} us a copy and {100 * link.share:g} % of PCIe 5, an expert of {half / 1e6:.2f} MB" in page
    )
    assert f"# 2 % misses on an H100 with PCIe 5: {slowdown(0.02, 0.25, 0.0156):.2f}\n" in page
    assert f"ratio=0.0156))  # {hit_rate_needed(1.2, 0.25, 0.0156):.3f}\n" in page
    assert f"prefetch allows {1.2 / (1.2 - 1):.0f} times the misses" in page
