"""How well a predictor tells the experts that a token chooses from the others, and the same power on other routing.

A generated trace has no model behind it, so no predictor can be trained on it that would mean anything. What carries
over from a measured predictor is its likelihood ratio: how much likelier a score is of an expert that is chosen than of
one that is not. It is measured by recency, since what the last tokens chose is both easy to predict and in a cache
already. The prior is the generated routing's own, and Bayes' rule makes a probability of the two.

In shapes: n tokens, L MoE layers, E experts, k choices, D lookaheads. Arrays of counts are (D, RECENCIES, 2, LEVELS):
the third axis is 0 for experts that were not chosen, 1 for those that were.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.predict.context import LOOKAHEADS, context_of
from prophet_moe.predict.network import Network
from prophet_moe.routing.trace import Trace, sequence_starts
from prophet_moe.tables import Table, integer, read_table
from prophet_moe.validation import REBUILD

LONGEST_GAPS = np.array([1, 2, 4, 8, 16, 32])
"""Tokens since a sequence chose an expert last, up to and including: the upper ends of the first recencies."""
LONGER, NEVER = len(LONGEST_GAPS), len(LONGEST_GAPS) + 1
RECENCIES = NEVER + 1
LOWEST_SCORE, SCORE_STEP, LEVELS = -8.0, 0.5, 33
"""Scores (log odds) are counted in steps; the first and last level are open."""
QUANTILES = 1024
"""Steps of the inverse distributions from which scores are drawn."""
POWER = Table(
    "discrimination",
    (
        integer("lookahead", "layers", "How many layers ahead the experts are predicted."),
        integer("recency", "", "How long ago the sequence chose the expert last: the number of its interval."),
        integer("level", "", "Score of the expert, the number of its step."),
        integer("chosen", "experts", "How often that score was given to an expert that was chosen."),
        integer("others", "experts", "How often it was given to an expert that was not."),
    ),
)
"""What is kept of one trace."""

Counts = NDArray[np.int64]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Discrimination:
    """How often each score was given, by lookahead, recency, and whether the expert was chosen."""

    counts: Counts
    """(D, RECENCIES, 2, LEVELS): number of scores given."""


def recency(trace: Trace) -> NDArray[np.uint8]:
    """(n, L, E): how long ago, in tokens, the sequence chose each expert in each layer, as one of RECENCIES."""
    return _recency(trace.experts, sequence_starts(trace), trace.router.experts, LONGEST_GAPS)


@njit(cache=True)
def _recency(experts, starts, count, longest):
    tokens, layers, top_k = experts.shape
    ages = np.full((tokens, layers, count), NEVER, np.uint8)
    last = np.empty((layers, count), np.int64)
    for sequence in range(len(starts) - 1):
        last[:] = -1
        for row in range(starts[sequence], starts[sequence + 1]):
            for layer in range(layers):
                for expert in range(count):
                    if last[layer, expert] >= 0:
                        gap, place = row - last[layer, expert], 0
                        while place < len(longest) and gap > longest[place]:
                            place += 1
                        ages[row, layer, expert] = place
                for rank in range(top_k):
                    last[layer, experts[row, layer, rank]] = row
    return ages


def measure(trace: Trace, network: Network) -> Discrimination:
    """Count the scores of `network` on a trace that it did not learn from, over all layers that a lookahead reaches."""
    seen, ages = context_of(trace), recency(trace)
    counts = np.zeros((len(LOOKAHEADS), RECENCIES, 2, LEVELS), np.int64)
    for place, lookahead in enumerate(LOOKAHEADS):
        for layer in range(lookahead, seen.choices.shape[1]):
            scores = network.scores(seen.inputs(layer, lookahead), layer, lookahead)
            _count(scores, seen.choices[:, layer], ages[:, layer], counts[place])
    return Discrimination(counts)


@njit(cache=True)
def _count(scores, chosen, ages, counts):
    """Add one layer to `counts` (RECENCIES, 2, LEVELS)."""
    truth = np.zeros(scores.shape[1], np.int64)
    for row in range(len(scores)):
        for expert in chosen[row]:
            truth[expert] = 1
        for expert in range(scores.shape[1]):
            level = int(np.floor((scores[row, expert] - LOWEST_SCORE) / SCORE_STEP))
            counts[ages[row, expert], truth[expert], max(0, min(LEVELS - 1, level))] += 1
        for expert in chosen[row]:
            truth[expert] = 0


def prior(trace: Trace) -> Counts:
    """(RECENCIES, 2): experts of each recency that were not chosen, and that were, over all tokens and layers."""
    return _prior(trace.experts, recency(trace))


@njit(cache=True)
def _prior(experts, ages):
    counts = np.zeros((RECENCIES, 2), np.int64)
    tokens, layers, top_k = experts.shape
    for row in range(tokens):
        for layer in range(layers):
            for expert in range(ages.shape[2]):
                counts[ages[row, layer, expert], 0] += 1
            for rank in range(top_k):
                age = ages[row, layer, experts[row, layer, rank]]
                counts[age, 0] -= 1
                counts[age, 1] += 1
    return counts


def posterior(power: Discrimination, prior: Counts) -> NDArray[np.float64]:
    """(D, RECENCIES, LEVELS): probability that an expert of this score is chosen, by Bayes' rule.

    Every level counts as if it had been seen half a time more, so that none is certain.
    """
    likelihood = (power.counts + 0.5) / (power.counts + 0.5).sum(axis=3, keepdims=True)
    weighted = likelihood * prior[None, :, :, None]
    total = weighted.sum(axis=2)
    return np.divide(weighted[:, :, 1], total, out=np.zeros_like(total), where=total > 0)


def transferred(power: Discrimination, prior: Counts, trace: Trace, seed: int) -> Probabilities:
    """(D, n, L, E): what a predictor of this power would say of `trace`, 0 in layers that a lookahead does not reach.

    An expert's score is drawn from those of its recency and truth. The same random number decides at every lookahead:
    what is missed three layers ahead tends to be missed one layer ahead.
    """
    probability = posterior(power, prior)
    share = np.cumsum(power.counts + 0.5, axis=3) / (power.counts + 0.5).sum(axis=3, keepdims=True)
    chance = (np.arange(QUANTILES) + 0.5) / QUANTILES
    levels = (share[..., None, :] < chance[:, None]).sum(axis=-1)
    drawn = np.take_along_axis(np.broadcast_to(probability[:, :, None], power.counts.shape), levels, axis=3)
    shape = (*trace.experts.shape[:2], trace.router.experts)
    random = np.random.default_rng(seed).integers(QUANTILES, size=shape, dtype=np.uint16)
    predicted = np.empty((len(LOOKAHEADS), *shape), np.float32)
    _look_up(trace.experts, recency(trace), random, drawn.astype(np.float32), predicted)
    for place, lookahead in enumerate(LOOKAHEADS):
        predicted[place, :, :lookahead] = 0
    return predicted


@njit(cache=True)
def _look_up(experts, ages, random, drawn, predicted):
    tokens, layers, count = ages.shape
    truth = np.zeros(count, np.int64)
    for row in range(tokens):
        for layer in range(layers):
            for expert in experts[row, layer]:
                truth[expert] = 1
            for expert in range(count):
                age, chance = ages[row, layer, expert], random[row, layer, expert]
                for place in range(len(predicted)):
                    predicted[place, row, layer, expert] = drawn[place, age, truth[expert], chance]
            for expert in experts[row, layer]:
                truth[expert] = 0


def as_rows(power: Discrimination) -> pd.DataFrame:
    """Return the counts as rows of POWER, one row per lookahead, recency and level."""
    index = np.indices(power.counts.shape[:2] + power.counts.shape[3:]).reshape(3, -1)
    others, chosen = (power.counts[:, :, truth].ravel() for truth in (0, 1))
    columns = (np.array(LOOKAHEADS)[index[0]], index[1], index[2], chosen, others)
    return pd.DataFrame(dict(zip((column.name for column in POWER.columns), columns, strict=True)))


def read_discrimination(path: Path) -> Discrimination:
    """Read what `as_rows` wrote; a file of another form is a UserError."""
    table = read_table(path, POWER)
    shape = (len(LOOKAHEADS), RECENCIES, LEVELS)
    if len(table) != np.prod(shape) or not (table >= 0).fillna(False).all(axis=None):
        problem = f"{len(table)} rows, expected {np.prod(shape)} of whole numbers from 0 on"
        raise UserError(str(path), problem, REBUILD)
    counts = [table[name].to_numpy(np.int64).reshape(shape) for name in ("others", "chosen")]
    return Discrimination(np.stack(counts, axis=2))
