"""The power of a measured predictor, carried over to other routing, does what the predictor itself would do."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.errors import UserError
from prophet_moe.hardware.pace import ProfilePace
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.offload.proxies import GivenPredictions
from prophet_moe.offload.replay import RECORDED, Sample, draw, run
from prophet_moe.offload.simulator.predictions import Predictions, TrainingStatistics
from prophet_moe.offload.simulator.simulation import Hierarchy
from prophet_moe.offload.simulator.timing import times_of
from prophet_moe.offload.strategies import strategies
from prophet_moe.precision import BF16
from prophet_moe.predict import discrimination
from prophet_moe.predict.context import LOOKAHEADS, split
from prophet_moe.predict.discrimination import LONGEST_GAPS, NEVER, Discrimination, read_discrimination
from prophet_moe.predict.network import read_network
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.trace import DECODE, Origin, Router, Trace, sequence_starts
from prophet_moe.tables import write_table
from tests.conftest import ROOT

NAME, MODEL, GPU = "small-6x64-top8", "OLMoE-1B-7B", "A100-80GB"


def made_trace(seed: int, experts: int = 6, top_k: int = 2, tokens: int = 40) -> Trace:
    """Random routing of two layers in sequences of random lengths."""
    random = np.random.default_rng(seed)
    chosen = np.array([[random.permutation(experts)[:top_k] for _ in range(2)] for _ in range(tokens)], np.uint16)
    sequence = np.sort(random.integers(0, 3, tokens)).astype(np.int32)
    position = np.arange(tokens, dtype=np.int32)
    router, phase = Router("made", experts, top_k, (0, 1)), np.full(tokens, DECODE, np.uint8)
    return Trace(router, sequence, position, phase, chosen, ranked=False, origin=Origin("made", ""))


def plain_recency(trace: Trace) -> np.ndarray:
    """Recency by looking back token by token."""
    starts = sequence_starts(trace)
    found = np.full((len(trace), *trace.experts.shape[1:2], trace.router.experts), NEVER)
    for first, last in pairwise(starts):
        for row in range(first, last):
            for layer in range(trace.experts.shape[1]):
                for expert in range(trace.router.experts):
                    gaps = [row - past for past in range(first, row) if expert in trace.experts[past, layer]]
                    if gaps:
                        found[row, layer, expert] = int(np.searchsorted(LONGEST_GAPS, min(gaps)))
    return found


@given(st.integers(0, 10**6))
def test_recency_is_what_looking_back_finds(seed):
    trace = made_trace(seed)
    np.testing.assert_array_equal(discrimination.recency(trace), plain_recency(trace))


@given(st.integers(0, 10**6))
def test_prior_counts_every_expert_of_every_token(seed):
    trace = made_trace(seed)
    found, ages = discrimination.prior(trace), plain_recency(trace)
    truth = (trace.experts[..., None] == np.arange(trace.router.experts)).any(axis=2)
    for age in range(discrimination.RECENCIES):
        assert found[age].tolist() == [int(((ages == age) & ~truth).sum()), int(((ages == age) & truth).sum())]


@pytest.fixture(scope="module")
def measured():
    """A recorded trace's held-out half, its learned half, its predictor, and the predictor's power on the former."""
    trace, network = read_trace(ROOT / "resources/traces" / NAME), read_network(ROOT / "resources/predictors" / NAME)
    learned_from, held_out = split(trace)
    return learned_from, held_out.described(), network, discrimination.measure(held_out.described(), network)


def test_power_counts_every_expert_a_lookahead_reaches(measured):
    _, held_out, _, power = measured
    layers, experts = held_out.experts.shape[1], held_out.router.experts
    for place, lookahead in enumerate(LOOKAHEADS):
        assert power.counts[place].sum() == len(held_out) * (layers - lookahead) * experts
        assert power.counts[place, :, 1].sum() == held_out.experts[:, lookahead:].size


def test_posterior_is_calibrated_on_its_own_prior(measured):
    """What is said to be chosen with 20 to 30 % is chosen so often, where the prior is that of the scores."""
    _, _, _, power = measured
    own = power.counts[0].sum(axis=2)
    given = discrimination.posterior(power, own)[0]
    chosen, count = power.counts[0][:, 1], power.counts[0].sum(axis=1)
    between = (given > 0.2) & (given < 0.3)
    assert count[between].sum() > 1000
    assert (given * count)[between].sum() == pytest.approx(chosen[between].sum(), rel=0.02)


def replays(measured, model, models, gpus, given, batch: int, capacity: int) -> list:
    """Outcomes of Prophet with its own predictor, with what is `said` of the tokens, and of no prediction."""
    learned_from, held_out, network, _ = measured
    training, tokens = TrainingStatistics(learned_from, network), draw(held_out, 32, 64, seed=0)
    arch, pace = models[model].architecture, ProfilePace(datasheet_profile(GPU, gpus[GPU]))
    times = times_of(arch, pace, held_out.experts.shape[1], batch, 4096, BF16, 4.0)
    prophet, on_demand = (replace(strategies()[name], deduplicated=True) for name in ("prophet", "on_demand"))
    foretold = GivenPredictions(training, tokens, given=given(tokens))
    runs = ((Predictions(training, tokens), prophet), (foretold, prophet), (Predictions(training, tokens), on_demand))
    return [
        run(Sample(predictions, 0, RECORDED).parts(batch), training, strategy, Hierarchy((capacity,)), times)
        for predictions, strategy in runs
    ]


@pytest.mark.parametrize(("batch", "capacity"), [(1, 16), (1, 40), (8, 48)])
def test_transferred_prophet_does_as_prophet_itself(measured, models, gpus, batch, capacity):
    """On the trace that the power was measured on, hits agree to half a point and the slowdown to 3 %."""
    _, held_out, _, power = measured
    prior = discrimination.prior(held_out)

    def given(tokens):
        return discrimination.transferred(power, prior, tokens, seed=1)

    own, carried, without = replays(measured, MODEL, models, gpus, given, batch, capacity)
    assert carried.hit_rate == pytest.approx(own.hit_rate, abs=0.005)
    assert carried.seconds == pytest.approx(own.seconds, rel=0.03)
    assert own.seconds != pytest.approx(without.seconds, rel=0.01), "the test would not tell Prophet from no prediction"


@pytest.mark.parametrize(
    ("name", "model", "capacity"),
    [(NAME, MODEL, 32), ("small-6x8-top2", "Mixtral-8x7B", 4), ("small-12x128-top1", "Switch-Base-128", 64)],
)
@pytest.mark.parametrize("batch", [1, 8])
def test_power_of_another_trace_serves_within_a_tenth(models, gpus, name, model, capacity, batch):
    """With the power measured on gpt-oss-20b, as the frontier has it: hits to 2 points, time to 10 %."""
    trace, network = read_trace(ROOT / "resources/traces" / name), read_network(ROOT / "resources/predictors" / name)
    learned_from, held_out = split(trace)
    held_out = held_out.described()
    power = read_discrimination(ROOT / "resources/statistics/gpt-oss-20b-decode/discrimination.csv")
    prior = discrimination.prior(held_out)

    def given(tokens):
        return discrimination.transferred(power, prior, tokens, seed=1)

    own, carried, _ = replays((learned_from, held_out, network, power), model, models, gpus, given, batch, capacity)
    assert carried.hit_rate == pytest.approx(own.hit_rate, abs=0.02)
    assert carried.seconds == pytest.approx(own.seconds, rel=0.1)


def test_transferred_says_nothing_beyond_its_reach(measured):
    _, held_out, _, power = measured
    given = discrimination.transferred(power, discrimination.prior(held_out), draw(held_out, 4, 8, seed=0), seed=1)
    for place, lookahead in enumerate(LOOKAHEADS):
        assert not given[place, :, :lookahead].any()
        assert (given[place, :, lookahead:] > 0).any()
    assert ((given >= 0) & (given < 1)).all()


def test_discrimination_is_read_as_written(measured, tmp_path):
    *_, power = measured
    write_table(tmp_path / "power.csv", discrimination.as_rows(power), discrimination.POWER)
    np.testing.assert_array_equal(discrimination.read_discrimination(tmp_path / "power.csv").counts, power.counts)


@pytest.mark.parametrize("mistake", ["a row less", "a negative count", "a word"])
def test_damaged_discrimination_is_one_line(measured, tmp_path, mistake):
    *_, power = measured
    table = discrimination.as_rows(Discrimination(power.counts))
    if mistake == "a row less":
        table = table.iloc[1:]
    else:
        table = table.astype({"chosen": object})
        table.loc[3, "chosen"] = -1 if mistake == "a negative count" else "many"
    table.to_csv(tmp_path / "power.csv", index=False)
    with pytest.raises(UserError, match=r"whole numbers from 0 on|line 5: chosen: got 'many'"):
        discrimination.read_discrimination(tmp_path / "power.csv")
