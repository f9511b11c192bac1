"""Fits of the laws for u(B) to a trace, evaluated on sequences that they were not fitted to."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from prophet_moe.routing import law, sequences, statistics
from prophet_moe.routing.counted import popularity_of_counts
from prophet_moe.routing.law_schema import BATCHES, BATCHINGS, REPORTED_EXPONENT, SATURATION_SHARE, Fit, Residual
from prophet_moe.routing.statistics import Batching
from prophet_moe.routing.trace import Trace, sequence_starts

Floats = NDArray[np.float64]

SEED = 0
SAMPLES, RESAMPLES = 500, 100
"""Random batches of each bootstrap resample of the sequences, and the number of resamples."""
LARGEST_CORRELATION = 0.9


@dataclass(frozen=True)
class Observed:
    """What a law is fitted to: u(B) of some sequences, by batch size, and how popular the experts are in them."""

    experts: int
    top_k: int
    batches: tuple[int, ...]
    unique: Floats
    """(batches,), mean over layers."""
    popularity: Floats
    """(L, E): share of the tokens that choose each expert; each layer sums to k."""


@dataclass(frozen=True)
class Law:
    """A law with at most one fitted parameter: `predict(observed, parameter)` is u(B) at observed.batches."""

    name: str
    parameter: str
    predict: Callable[[Observed, float], Floats]
    fit: Callable[[Observed], float]


def observe(
    trace: Trace, batching: Batching, popularity: Floats, samples: int, seed: int, copies: NDArray | None = None
) -> Observed:
    """Return u(B) of `trace`, each sequence counted `copies` times; sizes that no draw reaches are left out."""
    unique = statistics.distinct_by_batch(trace, BATCHES, batching, samples, seed, copies).mean(axis=1)
    there = ~np.isnan(unique)
    batches = tuple(batch for batch, kept in zip(BATCHES, there, strict=True) if kept)
    return Observed(trace.router.experts, trace.router.top_k, batches, unique[there], popularity)


def choices_by_sequence(trace: Trace) -> Floats:
    """(S, L, E): tokens of each sequence that choose each expert."""
    starts = sequence_starts(trace)
    shape = (len(starts) - 1, len(trace.router.layers), trace.router.experts)
    owner = np.repeat(np.arange(shape[0]), np.diff(starts))[:, None, None]
    places = (owner * shape[1] + np.arange(shape[1])[:, None]) * shape[2] + trace.experts
    return np.bincount(places.ravel(), minlength=np.prod(shape)).reshape(shape).astype(float)


def _below_saturation(observed: Observed) -> NDArray[np.bool_]:
    return observed.unique <= SATURATION_SHARE * observed.experts


def fit_exponent(observed: Observed) -> float:
    """Return least squares of log(u/k) = a log B below saturation; NaN where only B = 1 lies below."""
    kept = _below_saturation(observed)
    x, y = np.log(np.array(observed.batches))[kept], np.log(observed.unique / observed.top_k)[kept]
    return float(x @ y / (x @ x)) if x.any() else np.nan


def fit_correlation(observed: Observed) -> float:
    """Return the correlation at which clustered occupancy has the least squared relative error."""
    return _least_squares(observed, lambda correlation: _clustered(observed, correlation))


def fit_popularity_cv(observed: Observed) -> float:
    """Return the popularity CV at which the Dirichlet law has the least squared relative error."""
    share = observed.top_k / observed.experts
    largest = np.sqrt((1 - share) / share)
    correlation = _least_squares(observed, lambda rho: dirichlet(observed, largest * np.sqrt(rho)))
    return largest * np.sqrt(correlation)


def _least_squares(observed: Observed, predict: Callable[[float], Floats]) -> float:
    """Return the correlation in [0, LARGEST_CORRELATION] at which `predict` is nearest to u(B)."""

    def error(correlation: float) -> float:
        return float(np.sum((predict(correlation) / observed.unique - 1) ** 2))

    result = minimize_scalar(error, bounds=(0, LARGEST_CORRELATION), method="bounded", options={"xatol": 1e-6})
    return float(result.x)


def _columns(observed: Observed) -> tuple[Floats, Floats, Floats]:
    batch = np.array(observed.batches, float)
    return np.full_like(batch, observed.experts), np.full_like(batch, observed.top_k), batch


def _power(observed: Observed, exponent: float) -> Floats:
    experts, top_k, batch = _columns(observed)
    return law.power_law(experts, top_k, exponent, batch)


def _uniform(observed: Observed, _parameter: float) -> Floats:
    return law.uniform_occupancy(*_columns(observed))


def dirichlet(observed: Observed, popularity_cv: float) -> Floats:
    """Return u(B) of the Dirichlet law at `popularity_cv`, at the batch sizes of `observed`."""
    experts, top_k, batch = _columns(observed)
    return law.dirichlet_occupancy(experts, top_k, np.full_like(batch, popularity_cv), batch)


def _clustered(observed: Observed, correlation: float) -> Floats:
    return law.clustered_occupancy(observed.popularity, correlation, observed.batches)


def _empirical(observed: Observed, _parameter: float) -> Floats:
    return observed.unique


def _nothing(_observed: Observed) -> float:
    return np.nan


LAWS = (
    Law("power_law", "exponent", _power, fit_exponent),
    Law("power_law_reported", "exponent", _power, lambda _observed: REPORTED_EXPONENT),
    Law("uniform_occupancy", "", _uniform, _nothing),
    Law("skewed_occupancy", "", lambda observed, _: _clustered(observed, 0.0), _nothing),
    Law("clustered_occupancy", "correlation", _clustered, fit_correlation),
    Law("dirichlet_occupancy", "variation", dirichlet, fit_popularity_cv),
    Law("empirical", "", _empirical, _nothing),
)
"""From the report's to the measurement itself; `skewed` and `clustered` need the measured popularity."""


def fit_laws(name: str, trace: Trace) -> tuple[list[Fit], list[Residual]]:
    """Fit every law for u(B) to a trace, under every way of batching.

    Parameters
    ----------
    name : str
        What the rows call the trace.
    trace : Trace
        Described tokens without repetition, of two sequences or more.

    Returns
    -------
    fits : list of Fit
        Parameters from all sequences with 95 % bootstrap intervals, errors on the half that was not fitted.
    residuals : list of Residual
        Prediction and measurement at each batch size.
    """
    fits, residuals = [], []
    halves = sequences.split_by_sequence(trace, sequences.TRAINING_SHARE, SEED)
    for batching in BATCHINGS:
        everything, *split = (
            observe(part, batching, sequences.popularity(part), 4 * SAMPLES, SEED) for part in (trace, *halves)
        )
        train, test = _to_common_batches(*split)
        anew = list(_resampled(trace, batching))
        for candidate in LAWS:
            predicted = candidate.predict(train, candidate.fit(train))
            fits.append(_evaluated(name, trace.router.model, batching, candidate, everything, anew, predicted, test))
            relative = 100 * (predicted / test.unique - 1)
            residuals += [
                Residual(name, train.experts, train.top_k, batching, candidate.name, *row)
                for row in zip(test.batches, predicted, test.unique, relative, strict=True)
            ]
    return fits, residuals


def _to_common_batches(*halves: Observed) -> Iterator[Observed]:
    common = tuple(sorted(set.intersection(*(set(half.batches) for half in halves))))
    for half in halves:
        kept = [half.batches.index(batch) for batch in common]
        yield Observed(half.experts, half.top_k, common, half.unique[kept], half.popularity)


def _resampled(trace: Trace, batching: Batching) -> Iterator[Observed]:
    """Yield the observation on sequences drawn anew with replacement, RESAMPLES times."""
    rng = np.random.default_rng(SEED)
    choices = choices_by_sequence(trace)
    for copies in statistics.drawn_anew(len(choices), RESAMPLES, rng):
        chosen = np.tensordot(copies, choices, 1)
        popularity = popularity_of_counts(chosen, trace.router.top_k)
        yield observe(trace, batching, popularity, SAMPLES, int(rng.integers(2**63)), copies)


def _evaluated(
    name: str,
    model: str,
    batching: str,
    candidate: Law,
    everything: Observed,
    anew: Sequence[Observed],
    predicted: Floats,
    test: Observed,
) -> Fit:
    value = candidate.fit(everything)
    low, high = np.nan, np.nan
    if candidate.parameter and candidate.name != "power_law_reported":
        values = np.array([candidate.fit(observed) for observed in anew])
        # A resample of few sequences may reach no batch that tells the parameter.
        low, high = (
            np.quantile(values[np.isfinite(values)], (0.025, 0.975)) if np.isfinite(values).any() else (np.nan,) * 2
        )
    largest = everything.batches[-1]
    if candidate.fit is fit_exponent:
        below = np.array(everything.batches)[_below_saturation(everything)]
        largest = int(below.max(initial=1))
    relative = 100 * (predicted / test.unique - 1)
    squares = np.sum((predicted - test.unique) ** 2) / np.sum((test.unique - test.unique.mean()) ** 2)
    return Fit(
        name,
        model,
        everything.experts,
        everything.top_k,
        batching,
        candidate.name,
        candidate.parameter,
        value,
        low,
        high,
        largest,
        1 - squares,
        float(np.sqrt(np.mean(relative[1:] ** 2))),
        float(relative[np.argmax(np.abs(relative))]),
    )
