"""Strategies know nothing that is not known yet; runs keep what must hold; `prophet-moe sim`; plugins' mistakes."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.catalog.architecture import with_top_k
from prophet_moe.errors import UserError
from prophet_moe.hardware.pace import ProfilePace
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.hardware.roofline import gain_bound
from prophet_moe.offload import replay
from prophet_moe.offload.replay import RECORDED, SHUFFLED, parts_of, run, samples
from prophet_moe.offload.simulator import engine, reference
from prophet_moe.offload.simulator.invariants import Impossible, check, check_beside
from prophet_moe.offload.simulator.simulation import Hierarchy, PrefetchPlan, Times, iso_cache
from prophet_moe.offload.simulator.timing import timing_model
from prophet_moe.offload.strategies import Strategy, strategies
from prophet_moe.precision import Precision
from prophet_moe.predict.context import split
from prophet_moe.predict.network import read_network
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.trace import Router, sequence_starts
from studies.comparison.deduplication import SEED, deduplication, process_batch
from studies.comparison.replays import comparative_results, size_of, sweep
from studies.comparison.study import ComparisonSettings
from tests.conftest import ROOT
from tests.unit.docs.test_contributing import blocks
from tests.unit.hardware.test_roofline import DENSE
from tests.unit.offload.test_simulation import assert_equal

NAME = "small-6x8-top2"
TRACE, PREDICTOR = ROOT / "resources/traces" / NAME, ROOT / "resources/predictors" / NAME
PLAN = ComparisonSettings(
    batch_sizes=[1, 4],
    sweep_batch_sizes=[4],
    seeds=2,
    sweep_seeds=2,
    sequences=8,
    tokens=12,
    capacity_shares=[0.5, 1.0],
)
HALF, LAYERS = Hierarchy((4,)), 6


@pytest.fixture(scope="module")
def recorded():
    """A recorded trace and its predictor."""
    return read_trace(TRACE), read_network(PREDICTOR)


@pytest.fixture(scope="module")
def sample(recorded):
    """Some of its held-out sequences."""
    return next(samples(*recorded, size_of(PLAN), (RECORDED,), 1))


def times(fetch: float, batch: int = 4) -> Times:
    """A layer takes 2 s and an expert 1 s."""
    return Times(np.full(LAYERS, 2.0), np.array([0.0, *[1.0] * batch]), (fetch,), fetch / 4)


@pytest.mark.parametrize("name", strategies())
def test_only_the_clairvoyant_go_by_what_is_not_known_yet(recorded, sample, name):
    """With all choices from a layer of a step on exchanged, the plans before are the same, unless it foresees."""
    strategy, step, layer = strategies()[name], 5, 3
    batches, _ = sample.parts(4)[0]
    changed = batches.choices.copy()
    later = batches.rows[step:].ravel()
    begin = np.where(np.isin(np.arange(len(changed)), batches.rows[step]), layer, LAYERS)
    begin[np.isin(np.arange(len(changed)), batches.rows[step + 1 :])] = 0
    exchanged = np.arange(LAYERS)[None, :] >= begin[:, None]
    changed[exchanged] = (changed[exchanged] + 1) % batches.experts
    assert len(later)

    other = replace(sample.trace, experts=changed)
    forecasts = [
        replace(sample.predictions, trace=trace, memo=type(sample.predictions.memo)())
        for trace in (sample.trace, other)
    ]
    plans = [
        strategy.prefetches(
            replace(batches, choices=predictions.trace.experts, memo=type(batches.memo)()), predictions, HALF
        )
        for predictions in forecasts
    ]
    prefetches = [plan.array() if isinstance(plan, PrefetchPlan) else plan for plan in plans]
    before = [ids[: step + 1].copy() for ids in prefetches]
    for ids in before:
        ids[step, layer + 1 :] = -1
    same = all(
        [expert for expert in one if expert >= 0] == [expert for expert in two if expert >= 0]
        for one, two in zip(
            before[0].reshape(-1, before[0].shape[2]), before[1].reshape(-1, before[1].shape[2]), strict=True
        )
    )
    if strategy.clairvoyant and strategy.prefetches is not Strategy("", "", 0).prefetches:
        assert not same
    else:
        assert same


@pytest.mark.parametrize("name", strategies())
@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 8),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.sampled_from([0.25, 1.0, 4.0]),
    st.booleans(),
    st.booleans(),
)
def test_every_strategy_runs_as_by_the_reference(sample, name, batch, capacities, fetch, deduplicated, per_layer):
    """Its plans, accesses and eviction rule are equal in tiers of any size, oversubscribed where they are small."""
    strategy, tiers = replace(strategies()[name], deduplicated=deduplicated), range(1, len(capacities) + 1)
    clock = replace(times(fetch, batch), transfer_seconds=tuple(fetch * tier for tier in tiers))
    arguments = (
        sample.parts(batch),
        sample.predictions.training,
        strategy,
        Hierarchy(tuple(capacities), per_layer),
        clock,
    )
    fast = run(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "simulate", reference.simulate)
        assert_equal(fast, run(*arguments))


@pytest.mark.parametrize("fetch", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("batch", [1, 4])
def test_bounds_hold_for_every_strategy(sample, fetch, batch):
    parts, capacity = sample.parts(batch), Hierarchy((7,))
    outcomes = {
        name: run(parts, sample.predictions.training, replace(strategy, deduplicated=True), capacity, times(fetch))
        for name, strategy in strategies().items()
    }
    nothing_kept = sum(outcomes["on_demand"].requests) * fetch + outcomes["on_demand"].compute_seconds
    for name, outcome in outcomes.items():
        if name != "all_resident":
            check_beside(outcome, outcomes["belady"], outcomes["all_resident"])
        assert outcomes["all_resident"].seconds <= outcome.seconds * (1 + 1e-12)
        assert outcome.seconds <= nothing_kept + fetch * len(outcome.step_seconds)
        moved = outcome.demand_seconds + outcome.prefetch_seconds
        on_demand_at_equal_bytes = outcome.compute_seconds + moved
        gain = on_demand_at_equal_bytes / outcome.seconds
        # What is still under way at the end is no part of the time.
        assert gain <= gain_bound(outcome.compute_seconds, moved) * (1 + 2 * fetch / outcome.seconds)
    assert outcomes["perfect_prefetch"].seconds <= outcomes["belady"].seconds * (1 + 1e-12)


def test_what_no_machine_can_do_is_caught(sample):
    outcome = run(sample.parts(4), sample.predictions.training, strategies()["prophet"], HALF, times(1.0))
    for wrong in (
        replace(outcome, step_seconds=outcome.step_seconds / 3),
        replace(outcome, step_seconds=outcome.step_seconds * 100),
        replace(outcome, pending=outcome.pending + 1),
        replace(outcome, routed=1),
        replace(outcome, sources=outcome.sources + 1),
    ):
        with pytest.raises(Impossible):
            check(wrong, times(1.0))
    fewer = replace(outcome, counts=outcome.counts * 0)
    belady = run(sample.parts(4), sample.predictions.training, strategies()["belady"], HALF, times(1.0))
    with pytest.raises(Impossible, match="Belady"):
        check_beside(fewer, belady, belady)


def test_every_batch_size_decodes_the_same_tokens(sample):
    for batch in (1, 3, 8):
        outcome = run(
            sample.parts(batch), sample.predictions.training, strategies()["on_demand"], HALF, times(1.0, batch)
        )
        assert outcome.routed == sample.trace.experts.size
        assert outcome.step_tokens.sum() == len(sample.trace)


@pytest.mark.parametrize("name", ["on_demand", "pre_gated", "prophet", "belady", "static_popular"])
def test_a_long_trace_is_replayed_in_pieces(recorded, sample, monkeypatch, name):
    """Where a piece ends, only what looks beyond it (plans before the pass) can differ; these strategies do not."""
    training, strategy = sample.predictions.training, strategies()[name]
    whole = run(sample.parts(2), training, strategy, HALF, times(1.0))
    monkeypatch.setattr(replay, "PIECE_TOKENS", 3 * PLAN.tokens)
    parts = list(parts_of(training, sample.trace, 2, "one_tenant_at_a_time"))
    assert len(parts) == 4
    pieces = run(iter(parts), training, strategy, HALF, times(1.0))
    assert pieces.step_seconds.tolist() == pytest.approx(whole.step_seconds.tolist())
    assert (pieces.counts == whole.counts).all()


def test_the_comparison_runs_everything_on_every_sample(recorded):
    def timed(batch):
        return times(1.0, batch)

    results, layers = comparative_results(NAME, *recorded, timed, timed, PLAN)
    described = results[results["as_described"] & (results["role"] == "strategy")]
    compared = [name for name, found in strategies().items() if found.role == "strategy"]
    expected = pd.MultiIndex.from_product([[RECORDED, SHUFFLED], PLAN.batch_sizes, range(PLAN.seeds), compared])
    keys = ["routing", "batch", "seed", "strategy"]
    assert sorted(described[keys].itertuples(index=False, name=None)) == sorted(expected)
    first = (results["routing"] == RECORDED) & (results["seed"] == 0)
    assert results["slowdown_bound"].notna().equals(first)
    pd.testing.assert_series_equal(
        results.loc[first, "slowdown_bound"], results.loc[first, "slowdown"], check_names=False
    )
    numbers = results.drop(columns="slowdown_bound").select_dtypes("number")
    assert np.isfinite(numbers.to_numpy(float)).all()
    assert (results["slowdown"] >= 1 - 1e-9).all()
    shares = results[["kept_share", "prefetched_share", "late_share", "missed_share"]].sum(axis=1)
    np.testing.assert_allclose(shares, 1)
    assert set(layers["layer"]) == set(recorded[0].router.layers)

    swept = sweep(NAME, *recorded, timed, PLAN)
    full = swept[swept["capacity_share"] == 1]
    np.testing.assert_allclose(full["slowdown"], 1)
    faster = swept[(swept["capacity_share"] == 0.5)].sort_values("link_speedup")
    assert faster.groupby("strategy")["slowdown"].apply(lambda found: found.is_monotonic_decreasing).all()


def test_too_few_sequences_are_told(recorded):
    many = PLAN.model_copy(update={"sequences": 1000})
    with pytest.raises(UserError, match="140 held-out sequences of 12 decode tokens, expected 1000"):
        next(samples(*recorded, size_of(many), (RECORDED,), 1))


def test_process_batch_is_that_of_the_report():
    """004:89-105; and no request is no saving, where the report's code divides by zero."""
    assert process_batch(0, [[3, 1], [1, 2], [1, 3]]) == ([1, 2, 3], 0.5)
    assert process_batch(7, [[5]]) == ([5], 0.0)
    assert process_batch(0, []) == ([], 0.0)


def test_deduplication_counts_each_batch(recorded):
    _, held_out = split(recorded[0])
    counted = pd.DataFrame(deduplication(NAME, held_out.described(), [1, 8], 5, SEED))
    assert counted.groupby("batch").size().to_dict() == {1: 5, 8: 5}
    alone, together = counted[counted["batch"] == 1], counted[counted["batch"] == 8]
    assert (alone[["request_dedup", "shared_requests"]] == 0).all(axis=None)
    np.testing.assert_allclose(together["request_dedup"], 1 - together["unique_experts"] / together["requests"])
    assert (together["shared_requests"] >= together["request_dedup"]).all()
    with pytest.raises(UserError, match="expected at least the largest batch, 500"):
        next(deduplication(NAME, held_out.described(), [500], 1, SEED))


def test_deduplication_interval_is_a_bootstrap_over_sequences(recorded):
    """A plain one: sequences drawn with replacement, then batches of different ones of them, each at a random token."""
    trace = split(recorded[0])[1].described()
    starts, batch, samples, random = sequence_starts(trace), 8, 20, np.random.default_rng(0)
    means = []
    for _ in range(200):
        copies = random.integers(len(starts) - 1, size=len(starts) - 1)
        unique = []
        for _ in range(samples):
            drawn = list(dict.fromkeys(random.permutation(copies).tolist()))[:batch]
            rows = [random.integers(starts[sequence], starts[sequence + 1]) for sequence in drawn]
            unique += [len(set(trace.experts[rows, layer].ravel().tolist())) for layer in range(LAYERS)]
        means.append(np.mean(unique))
    run = next(deduplication(NAME, trace, [batch], samples, SEED))
    low, high = np.quantile(means, (0.025, 0.975)) / trace.router.experts
    assert run.resident_share_high - run.resident_share_low == pytest.approx(high - low, rel=0.25)


def test_deduplication_interval_is_wider_than_that_of_batches():
    """Batches of 64 of the same 130 sequences are no independent draws of sequences."""
    _, held_out = split(read_trace(ROOT / "resources/traces/small-12x128-top1"))
    counted = pd.DataFrame(deduplication("small", held_out.described(), [64], 80, SEED))
    run = counted.iloc[0]
    assert run["resident_share_low"] < counted["resident_share"].mean() < run["resident_share_high"]
    assert run["resident_share_high"] - run["resident_share_low"] > 3 * counted["resident_share"].sem() * 1.99


def test_deduplication_of_too_few_sequences_has_no_interval(recorded):
    """No draw with replacement has all 16 of 16 sequences: what other sequences would save is not known."""
    decoded = split(recorded[0])[1].described()
    few = decoded.select(np.isin(decoded.sequence, np.unique(decoded.sequence)[:16]))
    run = next(deduplication(NAME, few, [16], 3, SEED))
    assert np.isnan([run.request_dedup_low, run.request_dedup_high]).all()


def test_the_iso_cache_of_the_report():
    """004:111-116."""
    assert iso_cache(100.0, 2.5) == (16, 16, 8)


def test_a_model_of_other_experts_is_refused(recorded, models):
    other = models["OLMoE-1B-7B"].architecture.model_dump()
    with pytest.raises(UserError, match="experts is 64, expected 8, as the trace of"):
        timing_model(other, None, recorded[0].router, 4096, None, 4.0)


def test_dense_model_times_no_trace(recorded):
    with pytest.raises(UserError, match="has no layer with experts, expected 8 experts, as the trace of"):
        timing_model(DENSE.model_dump(), None, recorded[0].router, 4096, None, 4.0)


def test_a_run_of_fewer_experts_a_token_is_timed_as_such(models, gpus):
    """Engines on small machines use 6 of 8; more than the model has is a mistake."""
    dumped = models["OLMoE-1B-7B"].architecture.model_dump()
    fewer = with_top_k(models["OLMoE-1B-7B"].architecture, 6).model_dump()
    assert fewer["ffns"]["moe"] == dumped["ffns"]["moe"] | {"top_k": 6}
    pace = ProfilePace(datasheet_profile("A100-80GB", gpus["A100-80GB"]))
    known = Router("OLMoE-1B-7B", 64, 6, (0, 1))
    got, expected = (timing_model(arch, pace, known, 4096, Precision(), 4.0)(4) for arch in (dumped, fewer))
    assert got.non_expert_seconds.tolist() == expected.non_expert_seconds.tolist()
    assert got.expert_seconds.tolist() == expected.expert_seconds.tolist()
    assert got.transfer_seconds == expected.transfer_seconds
    with pytest.raises(UserError, match="top_k is 8, expected at least 9, as the trace of"):
        timing_model(dumped, pace, Router("OLMoE-1B-7B", 64, 9, (0, 1)), 4096, Precision(), 4.0)


@pytest.mark.parametrize(
    ("prefetches", "problem"),
    [
        (
            lambda *_: np.full((12, LAYERS + 1, 1), 99),
            "step 0, before the pass: prefetches of expert id 99, expected layer",
        ),
        (lambda *_: np.tile(np.arange(5), (12, LAYERS + 1, 1)), "more prefetches than the 4 experts of capacity"),
        (lambda *_: np.zeros((2, 2)), "prefetches are float64 of shape (2, 2), expected whole numbers (12, 7, any)"),
    ],
)
def test_a_plugin_with_an_impossible_plan_is_one_line(sample, prefetches, problem):
    strategy = Strategy("mine", "here", 99, prefetches=prefetches, deduplicated=True)
    with pytest.raises(UserError) as told:
        run(sample.parts(8), sample.predictions.training, strategy, HALF, times(1.0, 8))
    assert problem in str(told.value)


def test_the_strategy_of_the_page_works_as_it_stands(sample):
    """Under 40 lines; what it prefetches is used, so that it hits more often than what only keeps."""
    ((_, example), _) = blocks("Add a strategy")
    assert example.count("\n") < 40
    defined: dict = {}
    exec(compile(example, "CONTRIBUTING.md", "exec"), defined)
    strategy, training = defined["STRATEGY"], sample.predictions.training
    for batch in (1, 2, 4):
        followed = run(sample.parts(batch), training, strategy, HALF, times(0.5, batch))
        on_demand = replace(strategies()["on_demand"], deduplicated=True)
        alone = run(sample.parts(batch), training, on_demand, HALF, times(0.5, batch))
        assert followed.routed == alone.routed
        assert followed.count(engine.PREFETCHED) > 0.02 * followed.requests.sum()
        assert followed.hit_rate > alone.hit_rate
        assert followed.seconds <= alone.seconds
    assert run(sample.parts(1), training, strategy, Hierarchy((1,)), times(0.5, 1)).count(engine.PREFETCHED)


@pytest.fixture
def sim(command):
    """Run `prophet-moe sim run` on the recorded trace."""
    return partial(command, "sim", "run", "--trace", str(TRACE))


def test_the_command_tells_what_the_library_finds(recorded, command, sim):
    code, told, errors = sim("--strategy", "prophet", "--capacity", "6", "--batch", "2", "--json")
    assert code == 0, errors
    result = json.loads(told)
    _, held_out = split(recorded[0])
    assert result["tokens"] == len(held_out.described())
    assert (result["capacity"], result["batch"], result["deduplicated"]) == ([6], 2, True)
    assert result["slowdown"] > 1 and len(result["layers"]) == LAYERS
    named = command("sim", "run", "--trace", NAME, "--strategy", "prophet", "--capacity", "6", "--batch", "2", "--json")
    assert json.loads(named[1]) | {"trace": str(TRACE)} == result
    _, shown, _ = sim("--strategy", "prophet", "--capacity", "6", "--batch", "2")
    for text in (f"{result['hit_rate']:.4f}", f"{result['step_ms_p99']:.3f}", "batch 2"):
        assert text in shown


def test_the_command_has_tiers_and_one_cache_for_all_layers(sim):
    options = ("--strategy", "on_demand", "--global", "--expert-mb", "2.5", "--json")
    tiers = json.loads(sim(*options, "--iso-cache", "100")[1])
    assert tiers["capacity"] == [16, 16, 8] and tiers["scope"] == "global"
    assert len(tiers["copies_by_source"]) == 3 and sum(tiers["copies_by_source"]) == tiers["demand_copies"]
    alone = json.loads(sim(*options, "--capacity", "16")[1])
    assert alone["demand_copies"] == tiers["demand_copies"]
    assert alone["step_ms_mean"] < tiers["step_ms_mean"]  # Behind the tiers is storage, behind the one host memory.


def test_the_list_names_every_strategy(command):
    _, shown, _ = command("sim", "list")
    assert all(name in shown and found.title in shown for name, found in strategies().items())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--strategy", "arc"], "--strategy: unknown strategy 'arc', expected one of on_demand, pre_gated, "),
        (
            ["--capacity", "3", "--batch", "16", "--deduplicated"],
            "capacity: got 3, expected at least 8, the experts that",
        ),
        (["--capacity", "abc"], "--capacity: got 'abc', expected whole numbers, such as 64 or 16,16,8"),
        (["--capacity", "4,,4"], "--capacity: got '4,,4', expected whole numbers"),
        (["--capacity", ""], "--capacity: got '', expected whole numbers"),
        (["--capacity", "9"], "--capacity: got 9, expected 1 to 8 (experts of a layer) in each tier"),
        (["--capacity", "4,4", "--inclusive"], "expected each inclusive tier to be larger than the one it holds"),
        (["--batch", "0"], "--batch: got 0, expected 1 to the 140 held-out sequences"),
        (["--trace", "none"], "none: holds no metadata.json"),
        (["--model", "OLMoE-1B-7B"], "experts is 64, expected 8"),
        (["--gpu", "A100"], "unknown GPU"),
        (["--expert-mb", "nan"], "--expert-mb: got nan, expected 0.001 to 1e+07 MB"),
        (["--iso-cache", "nan"], "--iso-cache: got nan, expected 0.001 to 1e+07 MB"),
    ],
)
def test_mistakes_are_one_line(sim, arguments, problem):
    given = [] if "--strategy" in arguments else ["--strategy", "on_demand"]
    given += [] if {"--capacity", "--iso-cache"} & set(arguments) else ["--capacity", "4"]
    code, told, errors = sim(*given, *arguments)
    assert (code, told) == (1, "")
    assert errors.startswith("error: ") and len(errors.splitlines()) == 1
    assert problem in errors


def test_times_that_are_none_are_refused(sample):
    for wrong in (np.nan, -1.0, np.inf):
        with pytest.raises(UserError, match="expected finite seconds from 0 on"):
            run(sample.parts(1), sample.predictions.training, strategies()["on_demand"], HALF, times(wrong, 1))
