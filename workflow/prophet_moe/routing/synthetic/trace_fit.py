"""Generator parameters by layer, fitted to the moments of a trace."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prophet_moe.routing import sequences, statistics
from prophet_moe.routing.synthetic.generator import Parameters, generate
from prophet_moe.routing.trace import Trace, sequence_starts

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """What is generated in each round of a fit, and how many of its tokens measure recall."""

    sequences: int = 320
    tokens_per_sequence: int = 48
    train_tokens: int = 6000
    test_tokens: int = 2000


@dataclass(frozen=True)
class Moments:
    """The statistics of a trace that a generator is fitted to."""

    load: Floats
    """(L, E): share of each expert in all choices."""
    overlap: Floats
    """(L,): overlap of the choices of consecutive tokens."""
    recall: Floats
    """(L - 1,): recall@k of naive Bayes on the layer before."""
    distinct: Floats
    """(L,): experts that `window` consecutive tokens choose."""


def moments(trace: Trace, window: int, sample: Sample, seed: int) -> Moments:
    """Measure a trace of at least two sequences, one of them of `window` tokens."""
    train, test = sequences.split_by_sequence(trace, 0.5, seed)
    recall = statistics.next_layer_recall(
        _thinned(train, sample.train_tokens), _thinned(test, sample.test_tokens), (trace.router.top_k,)
    )
    return Moments(
        statistics.load(trace),
        statistics.consecutive_overlap(trace),
        recall.naive_bayes[0],
        statistics.distinct_by_batch(trace, (window,), "prefill", seed=seed)[0],
    )


def _thinned(trace: Trace, tokens: int) -> Trace:
    """Return about `tokens` tokens, evenly spread; all where there are fewer."""
    return trace.select(np.arange(len(trace)) % max(1, len(trace) // tokens) == 0)


def fit(trace: Trace, rounds: int = 24, sample: Sample | None = None, seed: int = 0) -> Parameters:
    """Return the generator parameters whose traces have the moments of `trace`.

    Every round generates a sample and moves each parameter by what its moment lacks: weights by the load, coupling by
    the recall, persistence by the overlap, affinity by the distinct experts of 2E/k tokens. The last half of the rounds
    is averaged.
    """
    sample = sample or Sample()
    router, layers = trace.router, len(trace.router.layers)
    longest = min(int(np.diff(sequence_starts(trace)).max()), sample.tokens_per_sequence)
    window = min(2 * router.experts // router.top_k, longest)
    target = moments(trace, window, sample, seed)
    target = replace(target, load=np.maximum(target.load, 0.5 / (len(trace) * router.top_k)))
    now = Parameters(router, target.load, target.load, np.zeros(layers), np.full(layers, 0.2), np.ones(layers))
    visited = []
    for step in range(rounds):
        generated = generate(now, sample.sequences, sample.tokens_per_sequence, seed + step)
        now = _moved(now, target, moments(generated, window, sample, seed))
        visited.append(now)
    late = visited[rounds // 2 :]
    moving = ("weights", "coupling", "persistence", "affinity")
    return replace(now, **{name: np.mean([getattr(each, name) for each in late], axis=0) for name in moving})


def _moved(now: Parameters, target: Moments, measured: Moments) -> Parameters:
    """Return the parameters one step on; bounds keep a moment that cannot be reached from driving one without end."""
    missing = np.concatenate([[0], target.recall - measured.recall])
    weights = now.weights * np.sqrt((target.load / measured.load.clip(target.load.min())).clip(0.5, 2))
    return replace(
        now,
        weights=weights / weights.sum(axis=1, keepdims=True),
        coupling=np.clip(now.coupling + 4 * missing, -7, 7),
        persistence=np.clip(now.persistence + target.overlap - measured.overlap, 0, 0.98),
        affinity=np.sqrt(np.clip(now.affinity**2 + 4 * np.log(measured.distinct / target.distinct), 0, 9)),
    )
