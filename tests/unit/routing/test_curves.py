"""Routing fitted to published hit curves: the committed fits at their points, the fit, what is read and refused."""

import csv
import json
from dataclasses import astuple, replace

import numpy as np
import pytest

from prophet_moe.errors import UserError
from prophet_moe.offload.simulator import engine
from prophet_moe.offload.simulator.batching import accesses_of, decode_batches
from prophet_moe.offload.simulator.simulation import Hierarchy, Job, Times, no_prefetches, simulate
from prophet_moe.routing import calibrated, statistics, synthetic
from prophet_moe.routing.law import dirichlet_occupancy
from prophet_moe.routing.published import BATCHES, read_published
from prophet_moe.routing.published_cv import popularity_cv
from prophet_moe.routing.reuse import ask_hits
from prophet_moe.routing.synthetic import (
    Chains,
    Scalars,
    Setting,
    curve_fit,
    generate,
    hit_curve,
    rates_at,
    with_popularity_cv,
)
from prophet_moe.routing.trace import Router, check
from tests.conftest import ROOT

OBSERVATIONS = calibrated.read_observations(ROOT / "resources/observations/hit_curves.csv")
PUBLISHED = read_published(ROOT / "resources/observations/routing.csv")
ROUTINGS = {each.curve: each for each in calibrated.calibrated_routings(ROOT / "resources/routing")}
TOPICAL = Scalars(persistence=0.2, affinity=1.2, drift=1.0, drift_tokens=12.0, spread=0.6)
SMALL = Router("small", 16, 2, tuple(range(3)))


def points(curve: str, use: str) -> list[calibrated.Observation]:
    return [each for each in OBSERVATIONS if (each.curve, each.use) == (curve, use)]


def distinct(routing: calibrated.Calibrated, batches: np.ndarray) -> np.ndarray:
    """u(B) of generated tokens of different sequences, as fitted."""
    router = Router(routing.model, routing.experts, routing.top_k, (0, 1, 2, 3))
    trace = generate(Scalars(**routing.scalars.model_dump()).parameters(router), 600, 4, seed=3)
    return statistics.distinct_by_batch(trace, tuple(batches), "decode_step", samples=400).mean(axis=1)


@pytest.mark.parametrize("curve", sorted({each.curve for each in OBSERVATIONS}))
def test_a_fitted_curve_meets_its_published_points(curve):
    scalars = Scalars(**ROUTINGS[curve].scalars.model_dump())
    for use, tolerance in (("fit", 0.015), ("left_out", 0.04)):
        found = calibrated.evaluated(scalars, points(curve, use))
        for point in found:
            assert abs(point.error) <= tolerance, point


@pytest.mark.parametrize("curve", ROUTINGS)
def test_committed_fits_name_the_observations(curve):
    routing = ROUTINGS[curve]
    for use, kept in (("fit", routing.fitted), ("left_out", routing.left_out)):
        expected = [(each.resident_share, each.hit_rate, each.source, each.setting) for each in points(curve, use)]
        assert [
            (each.resident_share, each.hit_rate, each.source, Setting(each.tokens, each.start, each.lookup))
            for each in kept
        ] == expected
    first = points(curve, "fit")[0]
    assert (routing.model, routing.experts, routing.top_k) == (first.model, first.experts_per_layer, first.top_k)


@pytest.mark.parametrize("curve", ROUTINGS)
def test_docs_have_the_errors_of_the_committed_fits(curve):
    routing, text = ROUTINGS[curve], (ROOT / "docs/routing_findings.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"| `{curve}` |")]
    for kept, cell in ((routing.fitted, 4), (routing.left_out, 5)):
        worst = f": {100 * max(abs(each.error) for each in kept):.1f} (" if kept else "-"
        assert worst in line.split("|")[cell]


def test_curves_of_four_points_leave_an_inner_one_out():
    for curve in ROUTINGS:
        of_curve = [*points(curve, "fit"), *points(curve, "left_out")]
        shares = [each.resident_share for each in points(curve, "fit")]
        if len(of_curve) >= 4:
            assert any(min(shares) < each.resident_share < max(shares) for each in points(curve, "left_out"))


def test_fit_curve_finds_a_curve_that_it_was_not_told():
    setting, slots = Setting(60, "warm"), (2, 4, 8, 12)
    truth = rates_at(hit_curve(TOPICAL, SMALL, setting, seed=5), slots)
    told = [(slots[at], float(truth[at])) for at in (0, 1, 3)]
    options = {"tokens": 60, "popularity_cv": 0.484, "start": "warm", "chains": Chains(16, 8), "evaluations": 80}
    found = synthetic.fit_curve(SMALL, told, **options)
    np.testing.assert_allclose(rates_at(hit_curve(found, SMALL, setting, seed=6), slots), truth, atol=0.02)
    assert synthetic.fit_curve(SMALL, told, **options) == found


def test_coordinates_and_scalars_are_inverse():
    again = curve_fit._scalars(curve_fit._coordinates(TOPICAL))
    np.testing.assert_allclose(astuple(again), astuple(TOPICAL), rtol=1e-12)


def test_gamma_weights_have_the_mean_and_the_spread():
    for spread in (0.0, 0.3, 1.0):
        weights = synthetic.Scalars(0.1, 1, 0, 1, spread).parameters(Router("test", 4096, 8, (0,))).weights[0]
        assert weights.sum() == pytest.approx(1)
        assert weights.std() / weights.mean() == pytest.approx(spread, rel=0.03)
        assert (np.diff(weights) <= 0).all()


def test_popularity_cv_ignores_what_one_chain_prefers():
    """Of sequences with favours of their own but one popularity, only the popularity counts."""
    even = curve_fit.chain_choices(replace(TOPICAL, spread=0), SMALL, 40, 0, Chains(200, 4))
    skewed = curve_fit.chain_choices(replace(TOPICAL, spread=0.9), SMALL, 40, 0, Chains(200, 4))
    assert curve_fit.chain_popularity_cv(even, 16) < 0.06
    shares = np.bincount(skewed.ravel(), minlength=16) / skewed.size
    measured = curve_fit.chain_popularity_cv(skewed, 16)
    assert measured == pytest.approx(shares.std() / shares.mean(), rel=0.03)


def test_rates_between_slots_are_linear():
    curve = np.array([0.2, 0.4, 0.8, 1.0])
    np.testing.assert_allclose(rates_at(curve, [1, 1.5, 3, 4]), [0.2, 0.3, 0.8, 1.0])
    np.testing.assert_allclose(rates_at(curve, [0.5, 0.125]), [0.4, 0.1])


def test_a_warm_start_and_one_access_a_step_hit_more():
    curves = {
        (start, lookup): hit_curve(TOPICAL, SMALL, Setting(20, start, lookup), seed=0)
        for start in ("cold", "warm")
        for lookup in ("ask", "request")
    }
    assert (curves["warm", "ask"] > curves["cold", "ask"]).all()
    assert curves["cold", "ask"][1] > curves["cold", "request"][1] + 0.03


def test_the_simulator_hits_as_often_as_curves_by_access():
    """The engine touches what it finds before what it copies, the curve in the order of the choices."""
    router = Router("test", 32, 4, (0, 1))
    trace = generate(ROUTINGS["gpt-oss-20b"].parameters(router, 0.8), 1, 2000, seed=0)
    curve = sum(ask_hits(trace.experts[None, :, layer], 32) for layer in (0, 1)) / trace.experts.size
    batches = next(iter(decode_batches(trace.experts, np.array([0, 2000]), 1, 32)))
    job = Job(batches, accesses_of(batches, deduplicated=True), no_prefetches(batches))
    for capacity in (4, 6, 8, 16, 24):
        outcome = simulate(
            [job], Hierarchy((capacity,)), Times(np.ones(2), np.ones(2), (1.0,)), np.ones((2, 32)), warm=False
        )
        assert 1 - outcome.counts[engine.MISSED].sum() / trace.experts.size == pytest.approx(
            curve[capacity - 1], abs=0.01
        )


@pytest.mark.parametrize("curve", ROUTINGS)
def test_committed_fits_have_the_popularity_of_the_law(curve):
    """What published counts say of the model today: a row more or less makes the fits out of date."""
    routing = ROUTINGS[curve]
    found = popularity_cv(routing.model, routing.experts, routing.top_k, PUBLISHED)
    kept = routing.popularity_cv
    assert (kept.value, kept.low, kept.high) == pytest.approx((found.value, found.low, found.high), abs=1e-4)
    assert kept.source == found.source


@pytest.mark.parametrize("curve", ROUTINGS)
def test_generated_sequences_share_experts_as_the_law_says(curve):
    """As fitted, within the interval of the law of the model at every batch size, and within 8 % of its estimate."""
    routing, batches = ROUTINGS[curve], np.array([2, 3, 5, 8, 13, 21, 34, 64])
    found = distinct(routing, batches)
    fewest, law, most = (
        dirichlet_occupancy(*(np.full(len(batches), float(x)) for x in (routing.experts, routing.top_k, cv)), batches)
        for cv in (routing.popularity_cv.high, routing.popularity_cv.value, routing.popularity_cv.low)
    )
    assert (0.99 * fewest <= found).all()
    assert (found <= 1.01 * most).all()
    np.testing.assert_allclose(found, law, rtol=0.08)


@pytest.mark.parametrize(("curve", "counts"), [("qwen3-30b-a3b", "RO-002"), ("gpt-oss-20b", "RO-028")])
def test_generated_sequences_share_experts_as_counted(curve, counts):
    """u(B) of the counts themselves, of which the law knows the effective CV alone."""
    (row,) = [row for row in PUBLISHED if row.id == counts]
    np.testing.assert_allclose(distinct(ROUTINGS[curve], np.array(BATCHES)), row.unique, rtol=0.07)


@pytest.mark.parametrize("popularity_cv", [0.15, 0.5, 1.2])
def test_another_popularity_keeps_the_hit_curve(popularity_cv):
    router, setting = Router("test", 64, 6, ()), Setting(96)
    before = Scalars(**ROUTINGS["qwen3-30b-a3b"].scalars.model_dump())
    after = with_popularity_cv(before, router, popularity_cv)
    assert (after.persistence, after.drift, after.drift_tokens) == (
        before.persistence,
        before.drift,
        before.drift_tokens,
    )
    curves = [hit_curve(numbers, router, setting, seed=7)[5:] for numbers in (before, after)]
    np.testing.assert_allclose(*curves, atol=0.015)
    choices = curve_fit.chain_choices(after, router, 96, 7, Chains(96, 16))
    assert curve_fit.chain_popularity_cv(choices, 64) == pytest.approx(popularity_cv, abs=0.04)


def test_parameters_serve_any_router():
    router = Router("DeepSeek-V3-671B", 256, 8, tuple(range(3, 61)))
    given = ROUTINGS["qwen3-30b-a3b"].parameters(router, 0.7)
    trace = check(generate(given, 2, 20, seed=0), "synthetic")
    assert trace.router == router
    assert synthetic.Parameters.from_json(given.to_json()).router == router


def test_nearest_goes_by_shape_and_then_by_points():
    shapes = {(512, 10): "qwen3.8-flash-next", (128, 8): "qwen3-30b-a3b", (32, 4): "gpt-oss-20b"}
    shapes |= {(8, 2): "gpt-oss-20b", (128, 1): "gpt-oss-120b-top2", (256, 8): "deepseek-v4-flash"}
    assert {shape: calibrated.nearest(*shape, list(ROUTINGS.values())).curve for shape in shapes} == shapes


def test_a_routing_is_written_and_read_again(tmp_path):
    routing = ROUTINGS["gpt-oss-20b"]
    path = calibrated.write_calibrated(routing, tmp_path)
    assert calibrated.calibrated_routings(tmp_path) == [routing]
    assert path.read_text() == (ROOT / "resources/routing/gpt-oss-20b.json").read_text()


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("source", "", "source: got '', "),
        ("hit_rate", "1.2", "hit_rate: got 1.2, "),
        ("hit_rate", "", "hit_rate: got '', "),
        ("resident_share", "25", "resident_share: got 25.0, "),
        ("resident_share", "0", "resident_share: got 0.0, "),
        ("lookup", "token", "lookup: got 'token', "),
        ("tokens", "many", "tokens: got 'many', "),
        ("batch", "8", "batch: got 8, "),
    ],
)
def test_a_wrong_hit_rate_ends_in_one_line(tmp_path, column, value, problem):
    row = OBSERVATIONS[0].model_dump() | {column: value}
    path = tmp_path / "hit_rates.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(row))
        writer.writeheader()
        writer.writerow(row)
    with pytest.raises(UserError) as caught:
        calibrated.read_observations(path)
    assert str(caught.value).startswith(f"{path}, line 2: {problem}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"points": []}, "points: got none, expected at least one"),
        ({"points": [(20, 0.5)]}, "points: got 20 slots, expected more than 0 and at most 16"),
        ({"points": [(2, 1.5)]}, "points: got hit rate 1.5 at 2 slots, expected 0 to 1"),
        ({"start": "hot"}, "start: got 'hot', expected cold or warm"),
        ({"lookup": "step"}, "lookup: got 'step', expected ask or request"),
        ({"tokens": 0}, "tokens: got 0, expected at least 1"),
    ],
)
def test_fit_curve_refuses_what_is_no_curve(told, problem):
    with pytest.raises(UserError, match=problem.replace("(", r"\(").replace(")", r"\)")):
        synthetic.fit_curve(SMALL, **{"points": [(2, 0.5)], "tokens": 10, "popularity_cv": 0.5} | told)


def test_an_unknown_curve_and_mixed_points_are_refused():
    with pytest.raises(UserError, match="got 'olmoe', expected one of deepseek-v4-flash, "):
        calibrated.fit_observed("olmoe", OBSERVATIONS, PUBLISHED, {})
    first, second, *_ = points("qwen3-30b-a3b", "fit")
    with pytest.raises(UserError, match="points to fit differ in"):
        calibrated.fit_observed(first.curve, [first, second.model_copy(update={"tokens": 99})], PUBLISHED, {})
    with pytest.raises(UserError, match="holds no counts"):
        calibrated.fit_observed(first.curve, OBSERVATIONS, [], {})


def test_what_is_no_routing_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no calibrated routing"):
        calibrated.calibrated_routings(tmp_path)
    content = json.loads((ROOT / "resources/routing/gpt-oss-20b.json").read_text())
    (tmp_path / "bad.json").write_text(json.dumps(content | {"source": []}))
    with pytest.raises(UserError, match=r"bad\.json: source: "):
        calibrated.calibrated_routings(tmp_path)
