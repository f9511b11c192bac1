"""Proxy routing for a model of which no trace is available.

A recorded trace is the proxy of models of its own E and k. Every other model is replayed on generated routing of its
own E, k and popularity CV, so that the experts of a batch, u(B), are those of the law that its memory rests on. Its
locality is that of the nearest model whose hit rates were published (`routing.nearest`). Its predictions come from how
well a measured predictor separates chosen experts from others (`predict.discrimination`).
"""

from dataclasses import dataclass

import numpy as np

from prophet_moe.offload.replay import RECORDED, Sample, SampleSize, samples
from prophet_moe.offload.simulator.predictions import Predictions, Probabilities, TrainingStatistics
from prophet_moe.predict.discrimination import Discrimination, prior, transferred
from prophet_moe.predict.network import Network
from prophet_moe.routing.calibrated import Calibrated
from prophet_moe.routing.synthetic import generate
from prophet_moe.routing.trace import Router, Trace

HISTORY = 32
"""Tokens that a generated sequence has behind it when its replay begins."""
LEARNED_SEQUENCES = 64
"""Generated sequences that popularity and prior are counted on; they are not replayed."""
LEARNED_SEED, SCORE_SEED = 1_000_000, 2_000_000
"""Seeds far from those of the samples, which count from 0."""


@dataclass(frozen=True)
class GivenPredictions(Predictions):
    """Predictions whose probabilities by Prophet's predictor are given beforehand."""

    given: Probabilities = None
    """(D, n, L, E): probabilities at lookaheads 1 to D."""

    def prophet(self, lookahead: int) -> Probabilities:
        """Return the given probabilities at one lookahead."""
        return self.given[lookahead - 1]


def recorded(trace: Trace, network: Network, size: SampleSize, count: int) -> list[Sample]:
    """Return `count` samples of a trace's held-out sequences; too few sequences are a UserError."""
    return list(samples(trace, network, size, (RECORDED,), count))


def generated(
    calibrated: Calibrated, router: Router, popularity_cv: float, power: Discrimination, size: SampleSize, count: int
) -> list[Sample]:
    """Return `count` samples of generated routing for `router`, predicted with the discrimination `power`.

    Its popularity CV is `popularity_cv`, and its locality that of the `calibrated` routing.
    There is no end of generated sequences: their share of all, which intervals go by, is 0.
    """
    parameters = calibrated.parameters(router, popularity_cv)
    tokens = HISTORY + size.tokens
    training = TrainingStatistics(_replayed(generate(parameters, LEARNED_SEQUENCES, tokens, LEARNED_SEED)))
    counted = prior(training.trace)
    drawn = []
    for seed in range(count):
        # A sequence is seeded by its number as well: samples share none.
        whole = generate(parameters, size.sequences, tokens, seed)
        given = np.ascontiguousarray(
            transferred(power, counted, whole, SCORE_SEED + seed)[:, whole.position >= HISTORY]
        )
        drawn.append(Sample(GivenPredictions(training, _replayed(whole), given=given), seed, RECORDED, 0.0))
    return drawn


def _replayed(trace: Trace) -> Trace:
    return trace.select(trace.position >= HISTORY)
