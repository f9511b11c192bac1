"""Intervals hold what they promise about sequences that were not held out, and those of repeated values do not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prophet_moe.offload.replay import RECORDED, Sample, run, slots
from prophet_moe.offload.simulator.predictions import Predictions, TrainingStatistics
from prophet_moe.offload.simulator.simulation import Hierarchy, Times
from prophet_moe.offload.strategies import strategies
from prophet_moe.predict.context import split
from prophet_moe.routing.intervals import beyond_sample, half_width, mean_interval
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.trace import Trace, sequence_starts
from tests.conftest import ROOT

TRACE = ROOT / "resources/traces/small-12x128-top1"
SAMPLES, SEQUENCES, TOKENS = 5, 64, 32
"""As the comparison has them by default."""
STATIC = "static_popular"


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_interval_of_independent_values_is_scipys(values):
    scale = np.std(values, ddof=1) / np.sqrt(len(values))
    ends = stats.t(len(values) - 1, np.mean(values), scale).ppf((0.025, 0.975)) if scale else [np.mean(values)] * 2
    assert mean_interval(values) == pytest.approx((np.mean(values), *ends), abs=1e-12)


def test_interval_of_a_single_value_has_no_ends():
    mean, low, high = mean_interval([3.0])
    assert mean == 3 and np.isnan([low, high]).all()
    assert np.isnan(half_width(1.0, 1))


def test_interval_of_samples_of_all_sequences_has_no_ends():
    """They are one and the same sample: that they do not differ says nothing of other sequences."""
    assert np.isnan(mean_interval([1.0, 1.0], beyond_sample(1.0))[1:]).all()


def test_interval_of_a_small_share_is_that_of_independents():
    assert mean_interval([1.0, 2.0, 4.0], beyond_sample(1e-9)) == pytest.approx(mean_interval([1.0, 2.0, 4.0]))


@pytest.mark.parametrize("held_out", [80, 130, 1000])
def test_samples_that_share_sequences_cover_the_population(held_out):
    """2,000 sets of held-out sequences, with effects around 0: intervals by s^2 / D hold it far too seldom."""
    random = np.random.default_rng(held_out)
    within, naive = 0, 0
    repeats, samples, drawn = 2000, 5, 64
    for _ in range(repeats):
        effects = random.normal(size=held_out)
        means = [random.choice(effects, drawn, replace=False).mean() for _ in range(samples)]
        _, low, high = mean_interval(means, beyond_sample(drawn / held_out))
        within += low <= 0 <= high
        _, low, high = mean_interval(means)
        naive += low <= 0 <= high
    error = 4 * np.sqrt(0.95 * 0.05 / repeats)
    assert within / repeats == pytest.approx(0.95, abs=error)
    assert naive / repeats < {80: 0.5, 130: 0.7, 1000: 0.95}[held_out]


def test_interval_is_that_of_a_bootstrap_over_sequences():
    """Batch 1, where a sequence may be served twice: sequences drawn anew with replacement, then replayed as samples.

    Hit rate on demand, and, paired, how much more static popular hits. By s^2 / D the errors were 2 to 3 times smaller.
    """
    learned_from, held_out = split(read_trace(TRACE))
    decoded, training = held_out.described(), TrainingStatistics(learned_from)
    starts = sequence_starts(decoded)
    long = np.flatnonzero(np.diff(starts) >= TOKENS)
    random = np.random.default_rng(0)

    def hits(chosen):
        """Hit rate on demand, and what static popular has more, of sequences in this order."""
        tokens = in_order(decoded, starts[chosen])
        parts = Sample(Predictions(training, tokens), 0, RECORDED).parts(1)
        hierarchy = Hierarchy((slots(tokens.router.experts, 0.5),))
        layers = len(tokens.router.layers)
        times = Times(np.full(layers, 1e-3), 1e-4 * np.arange(2), (2e-3,), 1e-3)
        rates = [run(parts, training, strategies()[name], hierarchy, times).hit_rate for name in ("on_demand", STATIC)]
        return rates[0], rates[1] - rates[0]

    once = np.array([hits(random.permutation(long)[:SEQUENCES]) for _ in range(60)])
    share = SEQUENCES / len(long)
    found = once.std(axis=0, ddof=1) * np.sqrt(1 / SAMPLES + beyond_sample(share))
    means = []
    for _ in range(80):
        anew = random.choice(long, len(long))
        means.append(np.mean([hits(random.permutation(anew)[:SEQUENCES]) for _ in range(SAMPLES)], axis=0))
    expected = np.std(means, axis=0, ddof=1)
    np.testing.assert_allclose(found, expected, rtol=0.35)
    assert (once.std(axis=0, ddof=1) / np.sqrt(SAMPLES) < 0.6 * expected).all()


def in_order(trace: Trace, starts: np.ndarray) -> Trace:
    """The first TOKENS rows from each of `starts` on, as sequences of their own in this order."""
    rows = (starts[:, None] + np.arange(TOKENS)).ravel()
    columns = {name: getattr(trace, name)[rows] for name in ("position", "phase", "experts", "token")}
    return replace(trace, sequence=np.repeat(np.arange(len(starts), dtype=np.int32), TOKENS), **columns)
