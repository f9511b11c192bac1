"""How good predictors are: recall, calibration, and the gain of Prophet over counting, on sequences not learned from.

Half of the sequences are learned from, prompts included; decoded tokens of the others, or those of prefill where there
are none, are predicted. Shapes as in context.py; R resamples, S sequences.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.predict.context import LOOKAHEADS, Context, context_of, split
from prophet_moe.predict.counting import COUNTING
from prophet_moe.predict.gate import RouterInputs
from prophet_moe.predict.network import Network
from prophet_moe.predict.schema import DOMAIN, PredictorScore
from prophet_moe.routing.sequences import notes_of
from prophet_moe.routing.trace import Trace, sequence_starts

SEED = 0
RANKS = (8, 16)
"""Ranks K reported besides k and 2k (003:183)."""
RESAMPLES = 1000
BINS = 10
"""Bins of equal width in probability, for the calibration."""
BASELINES = ("popularity", "previous_token", "naive_bayes", "transitions_1", "transitions_2", "transitions_3")
"""Among these the best one is what Prophet is held against; naive Bayes on all inputs is shown besides."""
PROPHET, CONTROL, GATE, ORACLE = "prophet", "prophet_shuffled", "gate_input", "oracle"

Floats = NDArray[np.float64]


PredictorScores = Iterator[PredictorScore]


def evaluate_predictors(
    name: str, trace: Trace, network: Network, recorded: RouterInputs | None = None
) -> list[PredictorScore]:
    """Score every predictor at every lookahead that reaches a layer.

    Parameters
    ----------
    name : str
        What the rows call the trace.
    trace : Trace
        Half of its sequences is learned from, the other half predicted (`context.split`).
    network : Network
        The weights of Prophet's predictor, which must have learned from the first half.
    recorded : RouterInputs, optional
        Router inputs of some tokens; without them the predictor that applies the router itself is left out.

    Returns
    -------
    list of PredictorScore
        Recall at the ranks of `ranks_reported`, by layer and as means with 95 % bootstrap intervals over sequences;
        gains of Prophet over the best of BASELINES; its calibration.

    Notes
    -----
    `oracle` ranks the true choices first, so that no recall exceeds its. `prophet_shuffled` is the control: the network
    is asked about one token and scored on another.
    """
    train, test = split(trace)
    learned, seen = context_of(train), context_of(test)
    rows = np.flatnonzero(test.described_tokens())
    results: list[PredictorScore] = []
    for lookahead in (steps for steps in LOOKAHEADS if _layers(seen, steps)):
        ranks, bins = _ranks_by_layer(learned, seen, rows, network, lookahead)
        results += _recalls(name, test, rows, lookahead, ranks, "held_out")
        results += _recalls_by_domain(name, test, rows, lookahead, ranks)
        results += _gains(name, test, rows, lookahead, ranks)
        results += _calibration(name, lookahead, bins)
        sample, inputs = recorded.of_tokens(test, rows) if recorded else (rows[:0], None)
        if len(sample):
            at = np.searchsorted(rows, sample)
            among = {predictor: [layer[at] for layer in found] for predictor, found in ranks.items()}
            among[GATE] = [
                true_ranks(recorded.scores(inputs, layer, lookahead), seen.choices[sample, layer])
                for layer in _layers(seen, lookahead)
            ]
            results += _recalls(name, test, sample, lookahead, among, "router_inputs")
    return results


def _layers(context: Context, lookahead: int) -> range:
    """Return the layers for which something of the same token is known."""
    return range(lookahead, context.choices.shape[1])


Ranks = Mapping[str, list[NDArray[np.uint16]]]
"""For each predictor, layer by layer, the rank from 0 of each true choice, (n, k)."""


def _ranks_by_layer(
    learned: Context, seen: Context, rows: NDArray[np.int64], network: Network, lookahead: int
) -> tuple[Ranks, Floats]:
    """Return ranks by predictor, and the sums of Prophet's `reliability` over layers."""
    bins = np.zeros((3, BINS))
    ranks: dict[str, list] = {predictor: [] for predictor in (*COUNTING, PROPHET, CONTROL, ORACLE)}
    mixed = np.random.default_rng(SEED).permutation(len(rows))
    for layer in _layers(seen, lookahead):
        training, inputs = learned.inputs(layer, lookahead), seen.inputs(layer, lookahead)[rows]
        chosen = seen.choices[rows, layer]
        for predictor, fit in COUNTING.items():
            scores = fit(training, learned.choices[:, layer], seen.experts)
            ranks[predictor].append(true_ranks(scores(inputs), chosen))
        scores = network.scores(inputs, layer, lookahead)
        ranks[PROPHET].append(true_ranks(scores, chosen))
        bins += reliability(scores, chosen)
        # The same network, asked about one token and scored on another: what it knows without its inputs.
        ranks[CONTROL].append(true_ranks(scores[mixed], chosen))
        ranks[ORACLE].append(np.broadcast_to(np.arange(chosen.shape[1], dtype=np.uint16), chosen.shape))
    return ranks, bins


@njit(cache=True)
def true_ranks(scores, chosen):
    """(n, k): rank from 0 of each of `chosen` (n, k) by `scores` (n, E), highest first, equal scores by id."""
    ranks = np.empty(chosen.shape, np.uint16)
    for row in range(len(chosen)):
        for place, expert in enumerate(chosen[row]):
            own, rank = scores[row, expert], 0
            for other in range(scores.shape[1]):
                rank += scores[row, other] > own or (scores[row, other] == own and other < expert)
            ranks[row, place] = rank
    return ranks


def ranks_reported(top_k: int, experts: int) -> tuple[int, ...]:
    """Return the ranks K of recall@K: k, 2k and RANKS, as far as there are experts."""
    return tuple(sorted({rank for rank in (top_k, 2 * top_k, *RANKS) if rank <= experts}))


@dataclass(frozen=True)
class Sequences:
    """Which sequence each predicted token is of, and sequences drawn anew with replacement: the same for everyone."""

    owner: NDArray[np.int64]
    """(n,): number of the sequence of each predicted token."""
    drawn: NDArray[np.int64]
    """(R, S): how often each resample holds each sequence."""

    def recall(self, ranks: list[NDArray[np.uint16]], rank: int) -> Floats:
        """(R,): recall@`rank`, mean over layers, on every resample."""
        hits = np.bincount(self.owner, sum((layer < rank).sum(axis=1) for layer in ranks))
        choices = np.bincount(self.owner) * len(ranks) * ranks[0].shape[1]
        return (self.drawn @ hits) / (self.drawn @ choices)


def _sequences(test: Trace, rows: NDArray[np.int64]) -> Sequences:
    owner = np.searchsorted(sequence_starts(test), rows, side="right") - 1
    there, owner = np.unique(owner, return_inverse=True)
    share = np.full(len(there), 1 / len(there))
    return Sequences(owner, np.random.default_rng(SEED).multinomial(len(there), share, RESAMPLES))


def _recalls(
    name: str, test: Trace, rows: NDArray[np.int64], lookahead: int, ranks: Ranks, tokens: str
) -> PredictorScores:
    layers, sequences = test.router.layers[lookahead:], _sequences(test, rows)
    for predictor, found in ranks.items():
        for rank in ranks_reported(test.router.top_k, test.router.experts):
            by_layer = [float((layer < rank).mean()) for layer in found]
            low, high = np.quantile(sequences.recall(found, rank), (0.025, 0.975))
            mean = float(np.mean(by_layer))
            yield PredictorScore(name, predictor, tokens, lookahead, None, "recall", rank, mean, low, high)
            for layer, value in zip(layers, by_layer, strict=True):
                yield PredictorScore(name, predictor, tokens, lookahead, layer, "recall", rank, value)


def _recalls_by_domain(
    name: str, test: Trace, rows: NDArray[np.int64], lookahead: int, ranks: Ranks
) -> PredictorScores:
    """Yield means over layers for the held-out tokens of each domain, where the trace's source names domains."""
    labels = np.repeat(notes_of(test, "label"), np.diff(sequence_starts(test)))[rows]
    for domain in filter(None, dict.fromkeys(labels.tolist())):
        at = np.flatnonzero(labels == domain)
        among = {predictor: [layer[at] for layer in ranks[predictor]] for predictor in (*COUNTING, PROPHET)}
        for score in _recalls(name, test, rows[at], lookahead, among, f"{DOMAIN}{domain}"):
            if score.layer is None:
                yield score


def _gains(name: str, test: Trace, rows: NDArray[np.int64], lookahead: int, ranks: Ranks) -> PredictorScores:
    """Prophet's recall less that of the best baseline, and of naive Bayes on the same inputs."""
    sequences = _sequences(test, rows)
    for rank in ranks_reported(test.router.top_k, test.router.experts):
        mean = {of: float(np.mean([(layer < rank).mean() for layer in found])) for of, found in ranks.items()}
        best = max(BASELINES, key=mean.get)
        for other in (best, "naive_bayes_all_inputs"):
            apart = sequences.recall(ranks[PROPHET], rank) - sequences.recall(ranks[other], rank)
            low, high = np.quantile(apart, (0.025, 0.975))
            gain = mean[PROPHET] - mean[other]
            yield PredictorScore(
                name, PROPHET, "held_out", lookahead, None, "recall_gain", rank, gain, low, high, other
            )


@njit(cache=True)
def reliability(scores, chosen):
    """(3, BINS): by bin of predicted probability, the sum of it, the choices that came true, and the predictions."""
    bins = np.zeros((3, BINS))
    for row in range(len(scores)):
        for expert in range(scores.shape[1]):
            probability = 1.0 / (1.0 + np.exp(-scores[row, expert]))
            place = min(int(probability * BINS), BINS - 1)
            bins[0, place] += probability
            bins[2, place] += 1
        for expert in chosen[row]:
            probability = 1.0 / (1.0 + np.exp(-scores[row, expert]))
            bins[1, min(int(probability * BINS), BINS - 1)] += 1
    return bins


def _calibration(name: str, lookahead: int, bins: Floats) -> PredictorScores:
    """Expected calibration error, and by bin the mean predicted probability, the share come true, and its weight."""
    predicted, true, count = bins
    filled = count > 0
    error = np.abs(predicted - true).sum() / count.sum()
    yield PredictorScore(name, PROPHET, "held_out", lookahead, None, "calibration_error", None, float(error))
    for probability, correct, weight in zip(predicted[filled], true[filled], count[filled], strict=True):
        said_mean = probability / weight
        yield PredictorScore(name, PROPHET, "held_out", lookahead, None, "reliability", said_mean, correct / weight)
        share = weight / count.sum()
        yield PredictorScore(name, PROPHET, "held_out", lookahead, None, "reliability_share", said_mean, share)
