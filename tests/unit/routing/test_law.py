"""Laws for u(B) against enumeration, SciPy's distributions, the scalar reference, and their bounds."""

from itertools import combinations, product
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaln, poch
from scipy.stats import betabinom

from prophet_moe.capacity import reference
from prophet_moe.routing import statistics
from prophet_moe.routing.law import (
    clustered_occupancy,
    dirichlet_occupancy,
    power_law,
    uniform_occupancy,
    unique_experts,
)
from prophet_moe.routing.sequences import popularity
from prophet_moe.settings.scenario import Routing
from tests.builders import make_trace, uniform_trace

LAWS = ("dirichlet_occupancy", "uniform_occupancy", "power_law")


def dirichlet(experts: int, top_k: int, popularity_cv: float, batches) -> np.ndarray:
    """Dirichlet occupancy of one router at several batch sizes."""
    columns = (np.full(len(batches), value, float) for value in (experts, top_k, popularity_cv))
    return dirichlet_occupancy(*columns, np.array(batches, float))


def uniform(experts: int, top_k: int, batches) -> np.ndarray:
    """Uniform occupancy of one router at several batch sizes."""
    return uniform_occupancy(*(np.full(len(batches), value, float) for value in (experts, top_k)), np.array(batches))


def popularity_cv_of(share: float, correlation: float) -> float:
    """Standard deviation over mean of a beta distribution with mean `share` and sum of parameters 1 / rho - 1."""
    return sqrt(correlation * (1 - share) / share)


@pytest.mark.parametrize(("experts", "top_k", "batch"), [(4, 1, 3), (4, 2, 2), (5, 2, 3), (6, 3, 2), (3, 3, 2)])
def test_uniform_occupancy_is_the_mean_over_all_outcomes(experts, top_k, batch):
    choices = list(combinations(range(experts), top_k))
    outcomes = [len(set().union(*tokens)) for tokens in product(choices, repeat=batch)]
    assert uniform(experts, top_k, [batch])[0] == pytest.approx(np.mean(outcomes), rel=1e-12)


@pytest.mark.parametrize("concentration", [0.1, 1.0, 7.5])
@pytest.mark.parametrize(("experts", "batch"), [(2, 5), (3, 4), (5, 3)])
def test_dirichlet_occupancy_is_the_mean_of_polyas_urn(experts, batch, concentration):
    """k = 1: an outcome with n_e tokens at expert e has probability prod (a)_(n_e) / (E a)_B, a the concentration."""
    expected = 0.0
    for tokens in product(range(experts), repeat=batch):
        counts = np.bincount(tokens, minlength=experts)
        expected += np.prod(poch(concentration, counts)) / poch(experts * concentration, batch) * len(set(tokens))
    popularity_cv = popularity_cv_of(1 / experts, 1 / (experts * concentration + 1))
    assert dirichlet(experts, 1, popularity_cv, [batch])[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("experts", "top_k"), [(8, 1), (8, 2), (64, 6), (128, 1), (5, 4)])
@pytest.mark.parametrize("correlation", [1e-3, 0.02, 0.4, 0.95])
def test_dirichlet_occupancy_is_a_beta_binomial_by_expert(experts, top_k, correlation):
    share, batches = top_k / experts, np.array([1, 2, 3, 17, 64, 500])
    a, b = (part * (1 - correlation) / correlation for part in (share, 1 - share))
    found = dirichlet(experts, top_k, popularity_cv_of(share, correlation), batches)
    missed = 1 - found / experts
    np.testing.assert_allclose(missed, betabinom.pmf(0, batches, a, b), rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(missed, np.exp(betaln(a, b + batches) - betaln(a, b)), rtol=1e-8, atol=1e-11)


@st.composite
def routers(draw) -> tuple[int, int, float]:
    """E, k, and a popularity CV between 0 and the largest possible."""
    experts = draw(st.integers(1, 300))
    top_k = draw(st.integers(1, experts))
    return experts, top_k, draw(st.floats(0, 1)) * sqrt(experts / top_k - 1)


@settings(deadline=None, max_examples=50)
@given(router=routers(), batch=st.integers(1, 600))
def test_dirichlet_at_popularity_cv_zero_is_uniform(router, batch):
    experts, top_k, _ = router
    np.testing.assert_allclose(
        dirichlet(experts, top_k, 0, [batch]), uniform(experts, top_k, [batch]), rtol=1e-12, atol=0
    )


@settings(deadline=None, max_examples=50)
@given(router=routers(), share=st.floats(0, 1), batch=st.integers(1, 300))
def test_dirichlet_occupancy_is_bounded_and_monotone(router, share, batch):
    """Between k and E; a larger popularity CV, no more experts; more tokens, no fewer; rounding of 1e-12 allowed."""
    experts, top_k, popularity_cv = router
    (here, more_tokens), less_popularity_cv = (
        dirichlet(experts, top_k, popularity_cv, [batch, batch + 1]),
        dirichlet(experts, top_k, share * popularity_cv, [batch])[0],
    )
    slack = 1e-12 * experts
    assert top_k - slack <= here <= more_tokens + slack
    assert here <= less_popularity_cv + slack <= experts + 2 * slack
    assert less_popularity_cv <= uniform(experts, top_k, [batch])[0] + slack


def test_dirichlet_at_the_largest_popularity_cv_leaves_k():
    for popularity_cv in (sqrt(64 / 6 - 1), 10.0, 1e6):
        np.testing.assert_allclose(dirichlet(64, 6, popularity_cv, [1, 2, 1000]), 6, rtol=1e-12)
    assert dirichlet(8, 8, 3.0, [1, 5]).tolist() == [8, 8]


@settings(deadline=None, max_examples=50)
@given(router=routers(), batches=st.lists(st.integers(1, 200), min_size=1, max_size=5).map(sorted))
def test_clustered_occupancy_of_equal_experts_is_dirichlet(router, batches):
    experts, top_k, popularity_cv = router
    share = top_k / experts
    correlation = popularity_cv**2 * share / (1 - share) if share < 1 else 0.0
    popularity = np.full((3, experts), share)
    found = clustered_occupancy(popularity, correlation, batches)
    np.testing.assert_allclose(found, dirichlet(experts, top_k, popularity_cv, batches), rtol=1e-10)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    correlation=st.floats(0.001, 0.99),
    batches=st.lists(st.integers(1, 60), min_size=1, max_size=4, unique=True).map(sorted),
)
def test_clustered_occupancy_of_any_popularity(seed, correlation, batches):
    """rho = 0 is E - sum (1 - p)^B; else every expert is a beta-binomial of its own mean; the mean over layers."""
    rng = np.random.default_rng(seed)
    popularity = 3 * rng.dirichlet(np.full(9, 5.0), 4)
    popularity = np.clip(popularity, 1e-6, 1 - 1e-6)
    for place, batch in enumerate(batches):
        skewed = (9 - ((1 - popularity) ** batch).sum(axis=1)).mean()
        assert clustered_occupancy(popularity, 0.0, batches)[place] == pytest.approx(skewed, rel=1e-12)
        a, b = (part * (1 - correlation) / correlation for part in (popularity, 1 - popularity))
        clustered = (9 - betabinom.pmf(0, batch, a, b).sum(axis=1)).mean()
        assert clustered_occupancy(popularity, correlation, batches)[place] == pytest.approx(clustered, rel=1e-8)
        assert clustered <= skewed + 1e-9


def distinct_of(trace, rows) -> float:
    """Distinct experts of `rows`, mean over layers."""
    chosen = trace.experts[list(rows)]
    return np.mean([len(set(chosen[:, layer].ravel().tolist())) for layer in range(chosen.shape[1])])


def test_skewed_occupancy_is_exact_for_sequences_drawn_at_random():
    """Over all batches of a trace's tokens, drawn with replacement, the mean is exactly the law's."""
    trace = uniform_trace([1] * 6, 2, 7, 2, seed=4)
    skewed = clustered_occupancy(popularity(trace), 0.0, (1, 2, 3, 4))
    for batch, law in zip((1, 2, 3, 4), skewed, strict=True):
        outcomes = [distinct_of(trace, rows) for rows in product(range(6), repeat=batch)]
        assert law == pytest.approx(np.mean(outcomes), rel=1e-12)


def test_batches_of_one_token_sequences_follow_skewed_occupancy():
    """Drawn without replacement an expert of n tokens is missed by C(S - n, B) of C(S, B) batches: hypergeometric.

    The trace's draws agree with that within four standard errors, found from independent seeds; and skewed occupancy,
    which replaces, is the same but for terms of B/S.
    """
    sequences, experts, batches = 3000, 24, (1, 2, 8, 32)
    rng = np.random.default_rng(1)
    drawn = rng.dirichlet(np.full(experts, 0.7), 3)
    choices = np.stack([rng.choice(experts, sequences, p=shares) for shares in drawn], axis=1)[:, :, None]
    trace = make_trace(choices, [1] * sequences, experts)
    chosen = np.rint(popularity(trace) * sequences).astype(int)

    missed = [
        np.sum([comb(sequences - n, batch) / comb(sequences, batch) for n in chosen.ravel().tolist()]) / 3
        for batch in batches
    ]
    exact = experts - np.array(missed)
    draws = np.array(
        [statistics.distinct_by_batch(trace, batches, "staggered", 1000, seed).mean(axis=1) for seed in range(12)]
    )
    error = draws.std(axis=0, ddof=1) / sqrt(len(draws))
    assert draws[:, 0].tolist() == [1] * len(draws)
    assert (np.abs(draws.mean(axis=0) - exact)[1:] < 4 * error[1:]).all()
    assert error.max() < 0.05
    skewed = clustered_occupancy(popularity(trace), 0.0, batches)
    np.testing.assert_allclose(skewed, exact, rtol=max(batches) / sequences)
    assert (uniform(experts, 1, batches)[1:] > skewed[1:] + 10 * error[1:]).all()


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(st.tuples(routers(), st.integers(1, 400), st.floats(0, 2)), min_size=1, max_size=8),
    law=st.sampled_from(LAWS),
    exponent=st.floats(0.01, 1),
)
def test_the_scalar_reference_is_the_law(rows, law, exponent):
    """Popularity CVs of up to twice the largest possible, for a given one may be too large for a model."""
    routing = Routing(law=law, exponent=exponent)
    columns = [
        np.array(column, float)
        for column in zip(
            *((e, k, excess * popularity_cv, b) for (e, k, popularity_cv), b, excess in rows), strict=True
        )
    ]
    expected = [
        reference.unique_experts(routing, int(e), int(k), popularity_cv, int(batch))
        for e, k, popularity_cv, batch in zip(*columns, strict=True)
    ]
    np.testing.assert_allclose(unique_experts(routing, *columns), expected, rtol=1e-12)


def test_each_name_is_its_law():
    experts, top_k, popularity_cv, batch = (np.array([value]) for value in (64.0, 6.0, 0.8, 8.0))
    found = {
        law: unique_experts(Routing(law=law, exponent=0.7), experts, top_k, popularity_cv, batch)[0] for law in LAWS
    }
    assert found == {
        "power_law": power_law(experts, top_k, 0.7, batch)[0],
        "uniform_occupancy": uniform_occupancy(experts, top_k, batch)[0],
        "dirichlet_occupancy": dirichlet_occupancy(experts, top_k, popularity_cv, batch)[0],
    }
    assert len(set(found.values())) == 3


@pytest.mark.parametrize("law", LAWS)
def test_laws_grow_with_the_batch_up_to_all_experts(law):
    batch = np.arange(1.0, 2049.0)
    columns = (np.full_like(batch, value) for value in (64, 6, 0.5))
    unique = unique_experts(Routing(law=law), *columns, batch)
    assert unique[0] == pytest.approx(6)
    assert np.all(np.diff(unique) >= 0)
    assert unique[-1] == pytest.approx(64, rel=1e-3)
