"""The distribution of distinct experts: quantiles and overflows against simulated batches, and what must hold."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.routing import distinct, sequences, statistics, store
from prophet_moe.routing.law import dirichlet_occupancy
from tests.builders import make_trace, uniform_trace
from tests.conftest import ROOT

DRAWS = 4000
ROUTERS = st.sampled_from([(4, 2), (8, 2), (16, 1), (60, 4), (64, 6), (64, 8), (128, 1), (128, 8), (256, 8)])
POPULARITY_CVS = st.sampled_from([0.0, 0.3, 0.484, 0.685, 1.0, 1.6])


def columns(*numbers) -> list[np.ndarray]:
    """Each of the numbers as an array of one element: the columns of a table with a single row."""
    return [np.array([number], float) for number in numbers]


def quantile(share: float, *router_and_batch) -> int:
    """The quantile of one configuration (E, k, V, B)."""
    given_ = columns(*router_and_batch)
    return int(distinct.quantile(dirichlet_occupancy(*given_), *given_, share)[0])


@settings(max_examples=60, deadline=None)
@given(ROUTERS, POPULARITY_CVS, st.integers(2, 40), st.sampled_from([0.5, 0.9, 0.99]), st.integers(0, 2**32))
def test_quantile_is_at_most_one_off_the_simulated(router, popularity_cv, batch, share, seed):
    """Simulated quantiles of the share -+ three standard errors leave room for the simulation's own error."""
    drawn = distinct.simulate(*router, popularity_cv, batch, DRAWS, seed)
    error = 3 * np.sqrt(share * (1 - share) / DRAWS)
    low, high = np.quantile(drawn, (share - error, min(1, share + error)), method="inverted_cdf")
    assert low - 1 <= quantile(share, *router, popularity_cv, batch) <= high + 1


@settings(max_examples=40, deadline=None)
@given(ROUTERS, POPULARITY_CVS, st.integers(1, 40), st.integers(0, 2**32))
def test_mean_and_deviation_are_those_simulated(router, popularity_cv, batch, seed):
    drawn = distinct.simulate(*router, popularity_cv, batch, DRAWS, seed)
    row = columns(*router, popularity_cv, batch)
    unique = dirichlet_occupancy(*row)
    spread = distinct.deviation(unique, *row)[0]
    assert drawn.mean() == pytest.approx(unique[0], abs=5 * max(drawn.std(), spread) / np.sqrt(DRAWS) + 1e-9)
    # Exact for one choice a token and for uniform routing; at most a fifth off where popularity varies most.
    assert spread == pytest.approx(drawn.std(), rel=0.2, abs=0.05)


@settings(max_examples=40, deadline=None)
@given(ROUTERS, POPULARITY_CVS, st.integers(1, 40), st.integers(-2, 3), st.integers(0, 2**32))
def test_overflow_share_is_the_simulated_one(router, popularity_cv, batch, apart, seed):
    drawn = distinct.simulate(*router, popularity_cv, batch, DRAWS, seed)
    row = columns(*router, popularity_cv, batch)
    unique = dirichlet_occupancy(*row)
    resident = np.ceil(unique - 1e-9) + apart
    share = distinct.overflow_share(unique, *row, resident)[0]
    # The normal shape is coarse where the number of distinct experts hardly varies: there within one expert.
    assert (drawn > resident[0] + 1).mean() - 0.02 <= share <= (drawn > resident[0] - 1).mean() + 0.02
    if distinct.deviation(unique, *row)[0] >= 2:
        assert share == pytest.approx((drawn > resident[0]).mean(), abs=0.06)


def test_one_token_needs_k_experts_whatever_the_share():
    for experts, top_k in [(1, 1), (8, 8), (64, 6), (128, 1)]:
        for share in (0.01, 0.5, 0.999999):
            assert quantile(share, experts, top_k, 0.5, 1) == top_k


def test_quantile_is_between_k_and_what_a_batch_can_need():
    assert quantile(0.999, 128, 1, 0.3, 4) == 4
    assert quantile(0.001, 64, 6, 9.0, 4) == 6
    assert quantile(0.999, 8, 2, 0.0, 64) == 8


def test_quantile_of_the_audited_trace_is_the_audited():
    """Switch-like routing, 128 experts, top-1: 99 % of layer-steps of 16, 32, 64 tokens (sd 1.0, 1.9, 2.9)."""
    found = [quantile(0.99, 128, 1, 0.685, batch) for batch in (16, 32, 64)]
    assert found == [16, 31, 53]
    row = columns(128, 1, 0.685, 64)
    assert distinct.deviation(dirichlet_occupancy(*row), *row)[0] == pytest.approx(2.9, abs=0.2)


@pytest.mark.parametrize(("experts", "top_k"), [(64, 6), (128, 1)])
def test_quantile_of_a_trace_is_that_of_its_law(experts, top_k):
    batches = (1, 4, 16)
    uniform = uniform_trace([40] * 60, 4, experts, top_k)
    found = statistics.distinct_quantile(uniform, batches, 0.99)
    np.testing.assert_allclose(found, [quantile(0.99, experts, top_k, 0.0, batch) for batch in batches], atol=1)
    assert found[0] == top_k


def test_quantile_of_a_skewed_trace_is_that_of_its_law():
    """One popularity a layer, drawn as the law supposes; many layers, so that their mean is the law's."""
    rng = np.random.default_rng(0)
    experts, popularity_cv = 64, 0.7
    concentration = ((experts - 1) / popularity_cv**2 - 1) / experts
    layers = [rng.choice(experts, 2400, p=rng.dirichlet(np.full(experts, concentration))) for _ in range(200)]
    trace = make_trace(np.stack(layers, axis=1)[:, :, None], [40] * 60, experts)
    found = statistics.distinct_quantile(trace, (4, 16, 32), 0.99)
    np.testing.assert_allclose(
        found, [quantile(0.99, experts, 1, popularity_cv, batch) for batch in (4, 16, 32)], atol=1
    )


@pytest.mark.parametrize("name", ["small-12x128-top1", "small-6x64-top8", "small-6x8-top2"])
def test_quantile_of_recorded_traces_is_nearly_their_laws(name):
    """Experts of top-8 are chosen together more often than the law knows: one expert more, never fewer."""
    trace = sequences.without_repetition(store.read_trace(ROOT / "resources/traces" / name)).described()
    fits = pd.read_csv(ROOT / "tables/data/routing_law_fits.csv").set_index(["trace", "batching", "law"])["value"]
    popularity_cv = fits[name, "staggered", "dirichlet_occupancy"]
    batches = (1, 4, 8, 16, 32, 64)
    router = (trace.router.experts, trace.router.top_k, popularity_cv)
    found = statistics.distinct_quantile(trace, batches, 0.99)
    apart = found - [quantile(0.99, *router, batch) for batch in batches]
    assert set(apart) <= {0, 1}


def test_quantile_of_batches_no_draw_reaches_is_missing():
    found = statistics.distinct_quantile(uniform_trace([5, 5], 2, 8, 2), (1, 2, 3), 0.99)
    assert np.isnan(found).tolist() == [False, False, True]
