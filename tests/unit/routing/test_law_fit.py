"""Fits of the laws for u(B): on traces drawn from a law they find its parameter, and what they report adds up."""

from dataclasses import asdict
from math import sqrt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from prophet_moe.errors import UserError
from prophet_moe.routing import law, law_fit
from prophet_moe.routing.law_fit import BATCHES, BATCHINGS, LAWS, SATURATION_SHARE, Observed
from prophet_moe.routing.sequences import TRAINING_SHARE, divisible, popularity, split_by_sequence
from prophet_moe.routing.trace import Trace, sequence_starts
from tests.builders import make_trace, traces, uniform_trace

EXPERTS = 32
POPULARITY_CV, CORRELATION = 0.8, 0.03
"""What the two traces below are drawn with."""
RESAMPLES = 60
FITTED = {"power_law", "clustered_occupancy", "dirichlet_occupancy"}


def beta_of(share: float, correlation: float) -> tuple[float, float]:
    """Parameters of the beta distribution with mean `share` whose draws are correlated by `correlation`."""
    return tuple(part * (1 - correlation) / correlation for part in (share, 1 - share))


def skewed_trace(layers: int = 8, lengths=(20,) * 200) -> Trace:
    """Independent tokens, k = 1; experts differ in popularity by POPULARITY_CV.

    The popularities of all layers together are evenly spaced quantiles of the beta distribution.
    """
    share, rng = 1 / EXPERTS, np.random.default_rng(1)
    places = (np.arange(EXPERTS * layers) + 0.5) / (EXPERTS * layers)
    quantiles = stats.beta.ppf(places, *beta_of(share, POPULARITY_CV**2 * share / (1 - share)))
    popularity = rng.permuted(quantiles.reshape(EXPERTS, layers).T, axis=1)
    popularity /= popularity.sum(axis=1, keepdims=True)
    choices = np.stack([rng.choice(EXPERTS, sum(lengths), p=shares) for shares in popularity], axis=1)
    return make_trace(choices[:, :, None], lengths, EXPERTS)


def clustered_trace(layers: int = 3, sequences: int = 160, tokens: int = 80) -> Trace:
    """k = 1; each sequence has a popularity of its own, drawn around the uniform one with CORRELATION."""
    rng = np.random.default_rng(1)
    concentration = (1 / CORRELATION - 1) / EXPERTS
    own = rng.dirichlet(np.full(EXPERTS, concentration), (sequences, layers))
    choices = [[rng.choice(EXPERTS, tokens, p=shares) for shares in sequence] for sequence in own]
    return make_trace(np.transpose(choices, (0, 2, 1)).reshape(-1, layers, 1), [tokens] * sequences, EXPERTS)


def cyclic_trace(sequences: int = 8, tokens: int = 100, experts: int = 128) -> Trace:
    """Every token chooses the next two experts: B consecutive ones choose 2 B, a power law of exponent 1."""
    start = np.random.default_rng(2).integers(experts, size=(sequences, 1))
    first = (start + 2 * np.arange(tokens)).reshape(-1, 1, 1)
    return make_trace((first + np.arange(2)) % experts, [tokens] * sequences, experts)


def fitted(trace: Trace, resamples: int = 10) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fits by (batching, law), and residuals; few resamples where the intervals do not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(law_fit, "RESAMPLES", resamples)
        fits, residuals = law_fit.fit_laws("drawn", trace)
    return pd.DataFrame(map(asdict, fits)).set_index(["batching", "law"]), pd.DataFrame(map(asdict, residuals))


@pytest.fixture(scope="module")
def skewed():
    """Fits and residuals of the skewed trace."""
    return fitted(skewed_trace(), RESAMPLES)


@pytest.fixture(scope="module")
def clustered():
    """Fits and residuals of the clustered trace."""
    return fitted(clustered_trace(), RESAMPLES)


@settings(deadline=None)
@given(trace=traces())
def test_choices_by_sequence(trace):
    found = law_fit.choices_by_sequence(trace)
    expected = np.zeros_like(found)
    numbers = {sequence: place for place, sequence in enumerate(dict.fromkeys(trace.sequence.tolist()))}
    for sequence, choices in zip(trace.sequence.tolist(), trace.experts.tolist(), strict=True):
        for layer, chosen in enumerate(choices):
            for expert in chosen:
                expected[numbers[sequence], layer, expert] += 1
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (len(sequence_starts(trace)) - 1, len(trace.router.layers), trace.router.experts)
    np.testing.assert_allclose(popularity(trace), found.sum(axis=0) / len(trace))


def observed(unique, experts=64, top_k=2, batches=BATCHES) -> Observed:
    """An observation of equally popular experts."""
    return Observed(experts, top_k, batches, np.asarray(unique), np.full((1, experts), top_k / experts))


@settings(deadline=None)
@given(exponent=st.floats(0.1, 1), top_k=st.integers(1, 8), experts=st.integers(16, 500), excess=st.floats(0.76, 1))
def test_a_power_law_is_found_whatever_comes_above_saturation(exponent, top_k, experts, excess):
    batch = np.array(BATCHES, float)
    unique = top_k * batch**exponent
    unique = np.where(unique <= SATURATION_SHARE * experts, unique, excess * experts)
    found = law_fit.fit_exponent(observed(unique, experts, top_k))
    if unique[1] <= SATURATION_SHARE * experts:
        assert found == pytest.approx(exponent, rel=1e-9)
    else:
        assert np.isnan(found)


@settings(deadline=None, max_examples=30)
@given(correlation=st.floats(0, 0.89), experts=st.integers(8, 200), top_k=st.integers(1, 6))
def test_parameters_of_exact_laws_are_found(correlation, experts, top_k):
    """Within the 1e-6 of the correlation to which it is sought, where equal popularity makes both laws one."""
    share = top_k / experts
    given_unique = law.clustered_occupancy(np.full((1, experts), share), correlation, BATCHES)
    seen = observed(given_unique, experts, top_k)
    assert law_fit.fit_correlation(seen) == pytest.approx(correlation, abs=1e-5)
    assert law_fit.fit_popularity_cv(seen) ** 2 * share / (1 - share) == pytest.approx(correlation, abs=1e-5)
    popularity_cv = sqrt(correlation * (1 - share) / share)
    np.testing.assert_allclose(law_fit.dirichlet(seen, popularity_cv), given_unique, rtol=1e-9)


def test_fit_popularity_cv_finds_that_of_a_trace(skewed):
    """Of its popularity, whatever the batches: tokens are independent. 95 % intervals: a seed in twenty misses it."""
    fits, _ = skewed
    for batching in BATCHINGS:
        fit = fits.loc[batching, "dirichlet_occupancy"]
        assert fit["low"] <= POPULARITY_CV <= fit["high"]
        assert fit["low"] <= fit["value"] <= fit["high"]
        assert fit["high"] - fit["low"] < 0.15
        assert fits.loc[batching, "clustered_occupancy"]["low"] < 1e-3


def test_the_correlation_of_a_trace_is_found(clustered):
    """Among tokens of one sequence, and none among those of different ones."""
    fits, _ = clustered
    share = 1 / EXPERTS
    fit = fits.loc["prefill", "clustered_occupancy"]
    assert fit["low"] <= CORRELATION <= fit["high"] < 2 * CORRELATION
    fit = fits.loc["prefill", "dirichlet_occupancy"]
    assert fit["low"] <= sqrt(CORRELATION * (1 - share) / share) <= fit["high"]
    for batching in ("staggered", "decode_step"):
        assert fits.loc[batching, "clustered_occupancy"]["value"] < CORRELATION / 20
        assert fits.loc[batching, "uniform_occupancy"]["held_out_error_pct"] < 1


def test_the_law_of_a_trace_predicts_its_other_half(skewed, clustered):
    """Within one percent, and nearer than laws that leave out what matters."""
    (skewed, _), (clustered, _) = skewed, clustered
    error = "held_out_error_pct"
    for batching in BATCHINGS:
        assert skewed.loc[batching, "skewed_occupancy"][error] < 1
        assert skewed.loc[batching, "dirichlet_occupancy"][error] < 1
        assert skewed.loc[batching, "uniform_occupancy"][error] > 5
        assert skewed.loc[batching, "power_law"][error] > 3
        assert skewed.loc[batching, "dirichlet_occupancy"]["r_squared"] > 0.999
    assert clustered.loc["prefill", "clustered_occupancy"][error] < 1
    assert clustered.loc["prefill", "skewed_occupancy"][error] > 5


@pytest.mark.parametrize(("drawn", "longest"), [("skewed", 20), ("clustered", 80)])
def test_every_law_has_its_rows(drawn, longest, request):
    fits, residuals = request.getfixturevalue(drawn)
    assert sorted(fits.index) == sorted((batching, candidate.name) for batching in BATCHINGS for candidate in LAWS)
    for (_, name), fit in fits.iterrows():
        parameter = next(candidate.parameter for candidate in LAWS if candidate.name == name)
        assert fit["parameter"] == parameter
        assert np.isnan(fit["value"]) == (parameter == "")
        assert np.isnan(fit["low"]) == np.isnan(fit["high"]) == (name not in FITTED)
        assert (fit["trace"], fit["model"], fit["experts"], fit["top_k"]) == ("drawn", "test", EXPERTS, 1)
    for (batching, _), rows in residuals.groupby(["batching", "law"]):
        assert tuple(rows["batch"]) == tuple(b for b in BATCHES if batching != "prefill" or b <= longest)
    assert fits.loc["staggered", "power_law_reported"]["value"] == law_fit.REPORTED_EXPONENT


@pytest.mark.parametrize("drawn", ["skewed", "clustered"])
def test_fits_are_what_their_residuals_say(drawn, request):
    fits, residuals = request.getfixturevalue(drawn)
    residual = 100 * (residuals["predicted"] - residuals["held_out"]) / residuals["held_out"]
    np.testing.assert_allclose(residuals["residual_pct"], residual, atol=1e-9)
    for key, rows in residuals.groupby(["batching", "law"]):
        fit, beyond_one = fits.loc[key], rows[rows["batch"] > 1]
        assert fit["held_out_error_pct"] == pytest.approx(sqrt((beyond_one["residual_pct"] ** 2).mean()))
        assert fit["worst_residual_pct"] == rows["residual_pct"].loc[rows["residual_pct"].abs().idxmax()]
        explained = 1 - ((rows["predicted"] - rows["held_out"]) ** 2).mean() / rows["held_out"].var(ddof=0)
        assert fit["r_squared"] == pytest.approx(explained)
    for _, rows in residuals.groupby(["batching", "batch"]):
        assert len(rows) == len(LAWS) and len(set(rows["held_out"])) == 1


def test_laws_are_fitted_to_one_half_and_judged_on_the_other(clustered):
    _, residuals = clustered
    learned, held_out = split_by_sequence(clustered_trace(), TRAINING_SHARE, law_fit.SEED)
    rows = residuals[residuals["batching"] == "prefill"].set_index("law")
    for part, column, name in ((learned, "predicted", "empirical"), (held_out, "held_out", "uniform_occupancy")):
        seen = law_fit.observe(part, "prefill", popularity(part), 4 * law_fit.SAMPLES, law_fit.SEED)
        np.testing.assert_array_equal(rows.loc[name, column], seen.unique)
    skewed = law.clustered_occupancy(popularity(learned), 0.0, BATCHES)
    np.testing.assert_allclose(rows.loc["skewed_occupancy", "predicted"], skewed)


def test_a_resample_draws_as_many_sequences_as_there_are():
    """Sequence s has one token, which chooses experts 2s and 2s + 1: popularity tells how often each was drawn."""
    trace = make_trace(np.arange(12).reshape(6, 1, 2), [1] * 6, 12)
    drawn = []
    for seen in law_fit._resampled(trace, "staggered"):
        copies = 6 * seen.popularity[0].reshape(6, 2)
        np.testing.assert_allclose(copies[:, 0], copies[:, 1])
        np.testing.assert_allclose(copies, np.rint(copies), atol=1e-9)
        assert copies.sum() == pytest.approx(6 * 2)
        assert seen.batches == tuple(b for b in BATCHES if b <= np.count_nonzero(copies[:, 0]))
        assert seen.unique.tolist() == [2 * b for b in seen.batches]
        drawn.append(tuple(np.rint(copies[:, 0])))
    assert len(drawn) == law_fit.RESAMPLES
    assert len(set(drawn)) > law_fit.RESAMPLES / 2
    np.testing.assert_allclose(np.mean(drawn, axis=0), 1, atol=4 * sqrt(5 / 6 / law_fit.RESAMPLES))


def test_a_power_law_is_fitted_below_saturation_alone():
    """k = 3 of 24: the largest B with at most 18 distinct experts, and least squares through the origin there."""
    trace = uniform_trace([20] * 130, 2, 24, 3)
    fits, _ = fitted(trace)
    for batching in BATCHINGS:
        seen = law_fit.observe(trace, batching, popularity(trace), 4 * law_fit.SAMPLES, law_fit.SEED)
        below = [(b, u) for b, u in zip(seen.batches, seen.unique, strict=True) if u <= SATURATION_SHARE * 24]
        x, y = np.log(np.array(below) / [1, 3]).T
        expected = np.linalg.lstsq(x[:, None], y)[0][0]
        fit = fits.loc[batching, "power_law"]
        assert fit["value"] == pytest.approx(expected)
        assert fit["largest_batch"] == below[-1][0] < seen.batches[-1]
        assert fits.loc[batching, "dirichlet_occupancy"]["largest_batch"] == seen.batches[-1]


def test_a_trace_that_follows_a_power_law():
    """Until it saturates; eight sequences fill no larger staggered batch, and halves of them none above four."""
    (fits, residuals), again = fitted(cyclic_trace()), fitted(cyclic_trace())
    pd.testing.assert_frame_equal(fits, again[0])
    pd.testing.assert_frame_equal(residuals, again[1])
    fit = fits.loc["prefill", "power_law"]
    assert [fit["value"], fit["low"], fit["high"]] == pytest.approx([1, 1, 1], abs=1e-12)
    assert fit["held_out_error_pct"] == pytest.approx(0, abs=1e-10)
    assert fit["largest_batch"] == 32
    assert fits.loc["staggered", "dirichlet_occupancy"]["largest_batch"] == 8
    batches = {batching: tuple(rows["batch"].unique()) for batching, rows in residuals.groupby("batching")}
    assert batches == {"prefill": BATCHES, "staggered": (1, 2, 4), "decode_step": (1, 2, 4)}


def test_a_trace_of_one_sequence_cannot_be_judged():
    one = uniform_trace([10], 2, 8, 2)
    with pytest.raises(UserError, match="has 1 sequence without repetition, expected at least 2"):
        divisible(one, "here")
    two = uniform_trace([10, 10], 2, 8, 2)
    assert divisible(two, "here") is two


def test_saturated_layers_and_short_traces_have_no_exponent():
    fits, _ = law_fit.fit_laws("all", uniform_trace([10] * 4, 2, 5, 4))
    power = next(fit for fit in fits if fit.law == "power_law" and fit.batching == "staggered")
    assert np.isnan(power.value) and power.largest_batch == 1
