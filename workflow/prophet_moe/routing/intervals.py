"""Intervals of means: over independent values, over samples that share sequences, and for one value more.

Comparisons replay D samples of n of the N sequences that were held out, each drawn without replacement, all strategies
on the same ones. Two samples share n^2 / N sequences on average, so they are no independent values: their spread s is
that around the N, and says too little of other sequences of the same kind. With f = n / N, the mean over one sample
varies by S^2 / n (1 - f) around the N and the mean over the N by S^2 / N around those of all sequences there could be;
s^2 estimates the former, so s^2 f / (1 - f) the latter, and the mean over D samples has the variance
s^2 (1 / D + f / (1 - f)) (Nadeau and Bengio, Inference for the Generalization Error, 2003; for f = 1/2 the repeated
half-sample bootstrap: Saigo, Shao and Sitter 2001; Shao and Tu, The Jackknife and Bootstrap, 1995; Politis, Romano and
Wolf, Subsampling, 1999). Differences and ratios are taken within a sample, so that the interval is paired.

A bootstrap that draws sequences with replacement cannot be replayed: a batch would hold a sequence twice, which would
ask for its experts with itself.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

CONFIDENCE = 0.95


def half_width(deviation: ArrayLike, count: ArrayLike, beyond: ArrayLike = 0.0) -> np.ndarray:
    """Return half of the 95 % interval of a mean over `count` values, by Student's t: t s sqrt(1 / count + `beyond`).

    `deviation` s is the standard deviation of the values. `beyond` is 0 for independent values, `beyond_sample(share)`
    for samples that share sequences, and 1 for where one value more lies. A single value has no interval: NaN.
    """
    count = np.asarray(count)
    return stdtrit(count - 1, (1 + CONFIDENCE) / 2) * np.asarray(deviation) * np.sqrt(1 / count + np.asarray(beyond))


def beyond_sample(share: ArrayLike) -> np.ndarray:
    """Return the variance f / (1 - f), in that between samples, of a mean where each holds a `share` f of all.

    Where samples hold all sequences, their spread says nothing of others: NaN.
    """
    share = np.asarray(share, float)
    return share / np.where(share < 1, 1 - share, np.nan)


def mean_interval(values: ArrayLike, beyond: ArrayLike = 0.0) -> tuple[float, float, float]:
    """Return the mean of `values` (n,) and the ends of its 95 % interval, by `half_width`; NaN ends for one value."""
    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) == 1:
        return mean, np.nan, np.nan
    half = float(half_width(values.std(ddof=1), len(values), beyond))
    return mean, mean - half, mean + half
