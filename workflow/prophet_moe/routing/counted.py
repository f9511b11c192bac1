"""What counts of choices say about a model's routing: popularity, how much it varies, and what of them looks wrong.

Needs NumPy only.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prophet_moe.routing.trace import Counts

COLLAPSED = 0.9
"""A router has collapsed in a layer whose popularity CV is this share of the most that there can be."""
BY_CHANCE = 0.5
"""Tokens are few where choices of a uniform router would vary by this share of what the counts vary by."""


def popularity(counts: Counts) -> NDArray[np.float64]:
    """(L, E): share of the tokens that choose each expert, over all windows; each layer sums to k."""
    return popularity_of_counts(counts.counts.sum(axis=0), counts.router.top_k)


def popularity_of_counts(chosen: NDArray, top_k: int) -> NDArray[np.float64]:
    """(L, E): share of the tokens that choose each expert, from how often each was chosen (L, E); a layer sums to k."""
    return top_k * chosen / chosen.sum(axis=1, keepdims=True)


def popularity_cv(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """(L,): standard deviation of the experts' popularity (L, E) over its mean."""
    return shares.std(axis=1) / shares.mean(axis=1)


def overall(values: NDArray[np.float64]) -> float:
    """Return one popularity CV for all layers: the root mean square of `values` (L,).

    At it the law for u(B) is exact at B = 2.
    """
    return float(np.sqrt(np.mean(values**2)))


def popularity_cv_by_chance(counts: Counts) -> NDArray[np.float64]:
    """(L,): what the popularity CV would be, about, if all experts were as popular: the tokens are a sample."""
    tokens = counts.counts.sum(axis=(0, 2)) / counts.router.top_k
    share = counts.router.top_k / counts.router.experts
    return np.sqrt((1 - share) / share / tokens)


def doubts(counts: Counts) -> Iterator[str]:
    """Yield a sentence for each thing that is possible, but seldom right."""
    router, choices = counts.router, counts.counts.sum(axis=2)
    broken = np.argwhere(choices % router.top_k)
    if len(broken):
        window, layer = broken[0]
        yield (
            f"window {window}, layer {router.layers[layer]} has {choices[window, layer]} choices, no multiple of top-k "
            f"{router.top_k}: choices were dropped, or the counts are of another model"
        )
    unequal = np.flatnonzero((choices != choices[:, :1]).any(axis=1))
    if len(unequal):
        low, high = choices[unequal[0]].min(), choices[unequal[0]].max()
        yield f"layers of window {unequal[0]} have {low} to {high} choices: not every layer counted every token"
    if router.experts == router.top_k:
        return
    measured, chance = popularity_cv(popularity(counts)), popularity_cv_by_chance(counts)
    most = np.sqrt(router.experts / router.top_k - 1)
    collapsed = [str(router.layers[layer]) for layer in np.flatnonzero(measured >= COLLAPSED * most)]
    if collapsed:
        yield (
            f"the router has collapsed in layers {', '.join(collapsed)}: nearly all tokens choose the same "
            f"{router.top_k} experts"
        )
    if overall(chance) >= BY_CHANCE * overall(measured):
        yield (
            f"the tokens are few: by chance alone popularity would vary by {overall(chance):.2f} of its mean, "
            f"counted is {overall(measured):.2f}"
        )
