"""How many experts a predictor must name so that all experts of a layer-step are among them.

Sequences that the predictor did not learn from decode together, each at a token of its own. The experts of a layer are
ranked by the probability 1 - prod over tokens of (1 - p) that at least one token of the batch chooses them.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prophet_moe.predict.context import context_of, split
from prophet_moe.predict.network import Network
from prophet_moe.routing.statistics import random_batches
from prophet_moe.routing.trace import Trace

BATCHES = (1, 4, 16)
SHARES = (0.5, 0.9, 0.99)
"""Shares of the layer-steps whose experts are all among the predicted."""
LOOKAHEAD, SAMPLES, SEED = 1, 2000, 0


def predicted_sets(name: str, trace: Trace, network: Network, batches: Sequence[int] = BATCHES) -> pd.DataFrame:
    """Measure how many experts a predictor must name so that all experts of a layer-step are among them.

    Parameters
    ----------
    name : str
        What the rows call the trace.
    trace : Trace
        Its held-out half is predicted.
    network : Network
        Prophet's predictor, which learned from the other half.
    batches : sequence of int
        Tokens decoded together; sizes above the number of sequences have no row.

    Returns
    -------
    DataFrame
        One row per batch size: distinct experts of a layer-step, and in predicted_set_p50, _p90 and _p99 the size that
        suffices for that share of layer-steps. Layers without a layer before them are left out.
    """
    test = split(trace)[1]
    seen, rows = context_of(test), np.flatnonzero(test.described_tokens())
    drawn = random_batches(test.described(), max(batches), "staggered", SAMPLES, SEED)
    layers = range(LOOKAHEAD, seen.choices.shape[1])
    missed = [_log_missed(network.scores(seen.inputs(at, LOOKAHEAD)[rows], at, LOOKAHEAD)) for at in layers]
    table = []
    for batch in batches:
        tokens = drawn[drawn[:, batch - 1] >= 0, :batch]
        if not len(tokens):
            continue
        chosen = [chosen_of(seen.choices[rows[tokens], layer], seen.experts) for layer in layers]
        needed = [needed_set(log[tokens].sum(axis=1), true) for log, true in zip(missed, chosen, strict=True)]
        distinct = np.concatenate([true.sum(axis=1) for true in chosen])
        sizes = np.quantile(np.concatenate(needed), SHARES, method="inverted_cdf")
        table.append(
            {
                "trace": name,
                "num_experts": seen.experts,
                "top_k": seen.choices.shape[2],
                "batch_size": batch,
                "layer_steps": len(distinct),
                "mean_distinct": distinct.mean(),
                "distinct_p99": int(np.quantile(distinct, 0.99, method="inverted_cdf")),
            }
            | {f"predicted_set_p{100 * share:.0f}": int(size) for share, size in zip(SHARES, sizes, strict=True)}
        )
    return pd.DataFrame(table)


def _log_missed(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """log(1 - p) of scores, where p = 1 / (1 + exp(-score))."""
    return -np.logaddexp(0.0, scores.astype(np.float64))


def chosen_of(choices: NDArray[np.uint16], experts: int) -> NDArray[np.bool_]:
    """(n, E): whether any token of each batch chooses the expert, from `choices` (n, B, k)."""
    chosen = np.zeros((len(choices), experts), bool)
    chosen[np.arange(len(choices))[:, None], choices.reshape(len(choices), -1)] = True
    return chosen


def needed_set(missed: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,): experts named, the least likely missed first, until all `chosen` (n, E) are there; of equals all are."""
    last = np.where(chosen, missed, -np.inf).max(axis=1, keepdims=True)
    return (missed <= last).sum(axis=1)
