"""Laws for u(B), the distinct routed experts that a batch of B tokens activates in one MoE layer.

If a token chooses expert e with probability p_e, B tokens that choose independently miss it with probability
(1 - p_e)^B. If instead the tokens of a batch share one unknown popularity, drawn around p_e as in a
Dirichlet-multinomial (Polya's urn) with correlation rho between any two of them, they miss it with probability

    prod over i < B of ((1 - rho) (1 - p_e) + i rho) / (1 - rho + i rho),

which is (1 - p_e)^B at rho = 0 (Johnson, Kotz, Balakrishnan: Discrete Multivariate Distributions, 1997, chapter 35).
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.routing import urn
from prophet_moe.settings.scenario import Routing

Floats = NDArray[np.float64]

rest = njit(cache=True)(urn.rest)
"""urn.rest, compiled."""


def unique_experts(routing: Routing, experts: Floats, top_k: Floats, popularity_cv: Floats, batch: Floats) -> Floats:
    """Return u(B), the distinct routed experts that a batch activates in one layer, by the law of a scenario.

    Parameters
    ----------
    routing : Routing
        The law and, for the power law, its exponent.
    experts, top_k, popularity_cv, batch : array (n,)
        E, k, the popularity CV and the tokens B of each case.

    Returns
    -------
    array (n,)
        Expected values, not rounded.
    """
    if routing.law == "power_law":
        return power_law(experts, top_k, routing.exponent, batch)
    if routing.law == "uniform_occupancy":
        return uniform_occupancy(experts, top_k, batch)
    return dirichlet_occupancy(experts, top_k, popularity_cv, batch)


def power_law(experts: Floats, top_k: Floats, exponent: float, batch: Floats) -> Floats:
    """u(B) = min(E, k B^exponent), the law that the report uses (000:862)."""
    return np.minimum(experts, top_k * batch**exponent)


def uniform_occupancy(experts: Floats, top_k: Floats, batch: Floats) -> Floats:
    """Return the expected distinct experts when each token draws k of E uniformly: E (1 - (1 - k/E)^B).

    Exact for independent tokens: one token misses a given expert with probability 1 - k/E.
    """
    return experts * (1.0 - (1.0 - top_k / experts) ** batch)


def dirichlet_occupancy(experts: Floats, top_k: Floats, popularity_cv: Floats, batch: Floats) -> Floats:
    """Return u(B) where only the spread of the experts' popularity is known: a symmetric Dirichlet-multinomial.

    Parameters
    ----------
    experts, top_k : array (n,)
        Routed experts E and choices per token k.
    popularity_cv : array (n,)
        Standard deviation of the popularity p_e over its mean k/E; 0 is uniform occupancy.
    batch : array (n,)
        Tokens B, whole numbers.

    Returns
    -------
    array (n,)
        Expected distinct experts, between k and E.

    Notes
    -----
    Skew over all tokens and clustering within a batch have the same effect here, so one number holds both.

    References
    ----------
    Johnson, Kotz and Balakrishnan, Discrete Multivariate Distributions, 1997, chapter 35.
    """
    share = top_k / experts
    return experts * (1.0 - _missed(share, correlation_of(share, popularity_cv), batch.astype(np.int64)))


def correlation_of(share: Floats, popularity_cv: Floats) -> Floats:
    """Return the correlation rho of two tokens, from the `share` k/E and the `popularity_cv`; 0 to 1, arrays alike."""
    correlation = np.zeros_like(share)
    np.divide(popularity_cv**2 * share, 1.0 - share, out=correlation, where=share < 1.0)
    return np.minimum(correlation, 1.0)


@njit(cache=True)
def _missed(share, correlation, batch):
    """(n,): probability that B tokens miss an expert of popularity `share`: the product of the module's head."""
    missed = 1.0 - share
    for row in range(len(share)):
        rho = correlation[row]
        for i in range(1, min(batch[row], urn.MULTIPLIED)):
            missed[row] *= ((1.0 - rho) * (1.0 - share[row]) + i * rho) / (1.0 - rho + i * rho)
        if batch[row] > urn.MULTIPLIED:
            missed[row] *= rest(share[row], rho, batch[row])
    return missed


def clustered_occupancy(popularity: Floats, correlation: float, batches: Sequence[int]) -> Floats:
    """(number of batches,): u(B), mean over layers, from the measured popularity p_e (L, E); batches ascending.

    Tokens of a batch are correlated by rho >= 0. rho = 0 is skewed occupancy: exact, in expectation, for tokens of
    sequences drawn at random.
    """
    missed = _missed_by_popularity(popularity.ravel(), correlation, np.array(batches))
    return popularity.shape[1] - missed / len(popularity)


@njit(cache=True)
def _missed_by_popularity(popularity, rho, batches):
    """(number of batches,): the product of the module's head, summed over `popularity` (n,)."""
    total = np.zeros(len(batches))
    missed, unlikely = 1.0 - popularity, (1.0 - rho) * (1.0 - popularity)
    size = 1
    for place, batch in enumerate(batches):
        while size < batch:
            for expert in range(len(missed)):
                missed[expert] *= (unlikely[expert] + size * rho) / (1.0 - rho + size * rho)
            size += 1
        for expert in range(len(missed)):
            total[place] += missed[expert]
    return total
