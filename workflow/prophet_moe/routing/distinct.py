"""How the number of distinct experts of a layer varies from step to step, by the law whose mean is u(B).

The tokens of a batch come one after another, as in Polya's urn. After i tokens, of which n_e chose expert e, the next
chooses e with probability

    ((1 - rho) k / E + rho n_e) / (1 - rho + i rho),

which sums to k over the experts, and gives u(B) of law.dirichlet_occupancy exactly. An expert that no token has chosen
is therefore chosen with q_i = (1 - rho) (k / E) / (1 - rho + i rho), and two such experts are both chosen with about
q_i^2 ((k - 1) / k) (E / (E - 1)), which is exact for k = 1 and for rho = 0. From the chances that one and that two
experts are missed follow mean and variance of the number of distinct experts; it is taken to be normal otherwise.
"""

from statistics import NormalDist

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import ndtr

from prophet_moe.routing import urn
from prophet_moe.routing.law import correlation_of, rest
from prophet_moe.routing.urn import ROUNDING_GUARD

Floats = NDArray[np.float64]


def quantile(
    unique: Floats, experts: Floats, top_k: Floats, popularity_cv: Floats, batch: Floats, share: float
) -> Floats:
    """Return the distinct experts that `share` of layer-steps do not exceed; whole numbers from k to min(E, k B).

    `unique` is u(B) of the same law; arrays of one shape. Half an expert is the correction for continuity.
    """
    bound = unique + NormalDist().inv_cdf(share) * deviation(unique, experts, top_k, popularity_cv, batch) - 0.5
    return np.clip(np.ceil(bound - ROUNDING_GUARD), top_k, np.minimum(experts, top_k * batch))


def overflow_share(
    unique: Floats, experts: Floats, top_k: Floats, popularity_cv: Floats, batch: Floats, resident: Floats
) -> Floats:
    """Return the share of layer-steps that need more than `resident` experts; 0 where no batch can, at min(E, kB)."""
    spread = deviation(unique, experts, top_k, popularity_cv, batch)
    above = np.floor(resident + ROUNDING_GUARD) + 0.5 - unique
    certain = np.where(above < 0, np.inf, -np.inf)
    share = ndtr(np.divide(-above, spread, out=certain, where=spread > ROUNDING_GUARD))
    return np.where(resident < np.minimum(experts, top_k * batch), share, 0.0)


def deviation(unique: Floats, experts: Floats, top_k: Floats, popularity_cv: Floats, batch: Floats) -> Floats:
    """Return the standard deviation of the number of distinct experts over layer-steps: see the head of this module."""
    share = top_k / experts
    pairs = np.maximum(experts - 1.0, 1.0)
    both = (top_k - 1.0) / top_k * experts / pairs
    missed = 1.0 - unique / experts
    missed_both = _missed_both(share, correlation_of(share, popularity_cv), both, batch.astype(np.int64))
    variance = experts * missed * (1.0 - missed) + experts * (experts - 1.0) * (missed_both - missed * missed)
    return np.sqrt(np.maximum(variance, 0.0))


@njit(cache=True)
def _missed_both(share, correlation, both, batch):
    """(n,): probability that B tokens miss two experts, `both` E/(E - 1) (k - 1)/k of each row."""
    missed = np.ones_like(share)
    for row in range(len(share)):
        rho = correlation[row]
        missed[row] = 1.0 - 2.0 * share[row] + share[row] * share[row] * both[row]
        for i in range(1, min(batch[row], urn.MULTIPLIED)):
            chosen = (1.0 - rho) * share[row] / (1.0 - rho + i * rho)
            missed[row] *= 1.0 - 2.0 * chosen + chosen * chosen * both[row]
        if batch[row] > urn.MULTIPLIED:
            spread = np.sqrt(max(0.0, 1.0 - both[row]))
            missed[row] *= rest(min(1.0, share[row] * (1.0 + spread)), rho, batch[row])
            missed[row] *= rest(share[row] * (1.0 - spread), rho, batch[row])
    return missed


def simulate(experts: int, top_k: int, popularity_cv: float, batch: int, draws: int, seed: int) -> NDArray[np.int64]:
    """(draws,): distinct experts of batches drawn token by token as the module's head says; the plain reference.

    Each token's k experts are a systematic sample in random order, which chooses every expert with exactly the
    probability that it shall have (Madow 1949, On the theory of systematic sampling, II).
    """
    rng = np.random.default_rng(seed)
    rho = correlation_of(np.array([top_k / experts]), np.array([popularity_cv]))[0]
    counts = np.zeros((draws, experts), np.int64)
    for token in range(batch):
        if token:
            chance = ((1 - rho) * top_k / experts + rho * counts) / (1 - rho + rho * token)
        else:
            chance = np.full((draws, experts), top_k / experts)
        order = rng.permuted(np.tile(np.arange(experts), (draws, 1)), axis=1)
        reached = np.floor(np.cumsum(np.take_along_axis(chance, order, axis=1), axis=1) + rng.random((draws, 1)))
        # The chances sum to k whatever rounding says: the last step ends at k.
        reached[:, -1] = top_k
        reached = np.minimum(reached, top_k)
        chosen = np.diff(reached, axis=1, prepend=0).astype(np.int64)
        counts[np.arange(draws)[:, None], order] += chosen
    return (counts > 0).sum(axis=1)
