"""Predictors that only count. Each is `fit(inputs, chosen, experts)`, which returns a function from inputs to scores.

inputs (n, SOURCES k) as Context.inputs gives them, chosen (n, k) the ids to be predicted, scores (n, E).
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.predict.context import LAYERS_BEFORE, SOURCES, Ids
from prophet_moe.routing import statistics
from prophet_moe.routing.sequences import chosen_share

Floats = NDArray[np.float32]
Scores = Callable[[Ids], Floats]
Fit = Callable[[Ids, NDArray[np.uint16], int], Scores]

BACKING = np.float32(4.0)
"""Weight, in tokens, of the next shorter context in a transition probability."""


def popularity(inputs: Ids, chosen: NDArray[np.uint16], experts: int) -> Scores:
    """Fit a ranking by how often each expert is chosen."""
    often = chosen_share(chosen, experts)
    return lambda seen: np.broadcast_to(often, (len(seen), experts)).astype(np.float32)


def previous_token(inputs: Ids, chosen: NDArray[np.uint16], experts: int) -> Scores:
    """Fit a ranking that puts first what the token before chose at this layer, then goes by popularity."""
    often = chosen_share(chosen, experts)

    def scores(seen: Ids) -> Floats:
        ranked = np.zeros((len(seen), experts + 1), np.float32)
        ranked[:, :experts] = often
        last = _source(seen, LAYERS_BEFORE, experts)
        np.put_along_axis(ranked, last, np.take_along_axis(ranked, last, 1) + 1, 1)
        return ranked[:, :experts]

    return scores


def naive_bayes(inputs: Ids, chosen: NDArray[np.uint16], experts: int, sources: Sequence[int] = (0,)) -> Scores:
    """Fit log P(e) + sum of log P(j | e) over the ids j seen at `sources`, as `statistics.naive_bayes` counts them."""
    prior, evidence = np.zeros(experts), np.zeros((SOURCES * experts, experts), np.float32)
    for source in sources:
        joint = statistics.joint_counts(_source(inputs, source, experts), chosen, experts)
        prior, evidence[source * experts : (source + 1) * experts] = statistics.naive_bayes(joint, chosen)
    return lambda seen: _summed(seen, prior.astype(np.float32), evidence)


def transitions(inputs: Ids, chosen: NDArray[np.uint16], experts: int, order: int = 1) -> Scores:
    """Fit P(e | first choices of the `order` layers before), each context backed by the one shorter by a layer.

    P_n(e | c) = (n_ce + BACKING P_{n-1}(e | c')) / (n_c + BACKING), P_0 the popularity. Choices in rank order.
    """
    lengths = range(1, order + 1)
    fitted = conditional([_contexts(inputs, length, experts) for length in lengths], chosen, experts)
    return lambda seen: fitted([_contexts(seen, length, experts) for length in lengths])


def conditional(
    contexts: Sequence[NDArray[np.integer]], chosen: NDArray[np.uint16], experts: int
) -> Callable[[Sequence[NDArray[np.integer]]], Floats]:
    """Fit P(e | context) for tokens of several contexts (n,), the most telling last, each backed by those before it.

    Where no token is learned from, every expert is as likely as any other.
    """
    often = chosen_share(chosen, experts).astype(np.float32)
    tables = [_transition_counts(context, chosen, experts) for context in contexts]

    def scores(seen: Sequence[NDArray[np.integer]]) -> Floats:
        probability = np.tile(often, (len(seen[0]), 1))
        for (contexts_seen, counts, tokens), context in zip(tables, seen, strict=True):
            if not len(contexts_seen):
                continue
            place = np.minimum(np.searchsorted(contexts_seen, context), len(contexts_seen) - 1)
            _back(probability, np.where(contexts_seen[place] == context, place, -1), counts, tokens)
        return probability

    return scores


@njit(cache=True)
def _back(probability, place, counts, tokens):
    """Mix into each row of `probability` (n, E) what was counted of its context, `place` (n,), -1 where nothing was."""
    for row in range(len(place)):
        context = place[row]
        if context >= 0:
            for expert in range(probability.shape[1]):
                backed = counts[context, expert] + BACKING * probability[row, expert]
                probability[row, expert] = backed / (tokens[context] + BACKING)


COUNTING: dict[str, Fit] = {
    "popularity": popularity,
    "previous_token": previous_token,
    "naive_bayes": naive_bayes,
    "transitions_1": transitions,
    "transitions_2": partial(transitions, order=2),
    "transitions_3": partial(transitions, order=3),
    "naive_bayes_all_inputs": partial(naive_bayes, sources=range(SOURCES)),
}
"""The last one sees all that Prophet sees: what remains between the two is what learning adds."""


def _source(inputs: Ids, source: int, experts: int) -> Ids:
    """(n, k): ids of one source, 0 to E - 1; E where there is nothing."""
    ids = inputs.reshape(len(inputs), SOURCES, inputs.shape[1] // SOURCES)[:, source]
    return np.where(ids < SOURCES * experts, ids - source * experts, experts)


def _contexts(inputs: Ids, length: int, experts: int) -> NDArray[np.int64]:
    """(n,): first choices of `length` layers before, as one number."""
    code = np.zeros(len(inputs), np.int64)
    for source in range(length):
        code = code * (experts + 1) + _source(inputs, source, experts)[:, 0]
    return code


def _transition_counts(contexts: NDArray[np.int64], chosen: NDArray[np.uint16], experts: int) -> tuple:
    """Return the contexts there are (c,), how often each expert follows (c, E), and tokens by context (c,)."""
    distinct, place = np.unique(contexts, return_inverse=True)
    pairs = place[:, None] * experts + chosen
    counts = np.bincount(pairs.ravel(), minlength=len(distinct) * experts).reshape(-1, experts)
    return distinct, counts.astype(np.float32), np.bincount(place).astype(np.float32)


@njit(cache=True)
def _summed(inputs, prior, evidence):
    """(n, E): `prior` (E,) and the rows of `evidence` that `inputs` names."""
    scores = np.empty((len(inputs), len(prior)), np.float32)
    for row in range(len(inputs)):
        scores[row] = prior
        for seen in inputs[row]:
            if seen < len(evidence):
                scores[row] += evidence[seen]
    return scores
