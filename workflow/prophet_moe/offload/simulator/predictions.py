"""What is known of the tokens of a run before their experts are: from training sequences, or from tokens before.

In shapes: n tokens, L MoE layers, E experts. Predictions are (n, L, E): the probability that a token chooses an expert.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.offload.simulator.memo import Memo
from prophet_moe.predict.context import Context, Ids, context_of
from prophet_moe.predict.counting import conditional, transitions
from prophet_moe.predict.network import Network
from prophet_moe.routing.sequences import popularity
from prophet_moe.routing.trace import Trace

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class TrainingStatistics:
    """What the sequences that are not replayed say about routing, counted or learned by a predictor."""

    trace: Trace
    network: Network | None = None
    """Prophet's predictor; None where none was trained on the trace."""
    memo: Memo = field(default_factory=Memo, repr=False)

    @cached_property
    def context(self) -> Context:
        """Return the context of the training tokens, which predictions condition on."""
        return context_of(self.trace)

    @cached_property
    def popularity(self) -> NDArray[np.float64]:
        """Return (L, E): the share of the training tokens that choose each expert."""
        return popularity(self.trace)

    def transitions(self, layer: int, lookahead: int, order: int) -> Callable[[Ids], Probabilities]:
        """Return a function from the inputs of `layer`, as Context gives them, to probabilities (n, E)."""
        context, chosen = self.context, self.context.choices[:, layer]
        return self.memo(
            ("transitions", layer, lookahead, order),
            lambda: transitions(context.inputs(layer, lookahead), chosen, context.experts, order),
        )

    def path(self, layer: int) -> Callable[[list[NDArray[np.int64]]], Probabilities]:
        """Return a function from what is known before the pass to probabilities (n, E) of `layer`."""
        context, chosen = self.context, self.context.choices[:, layer]
        return self.memo(
            ("path", layer), lambda: conditional(before_the_pass(self.trace, context, layer), chosen, context.experts)
        )


@dataclass(frozen=True)
class Predictions:
    """What can be predicted of the tokens of a run; each prediction is computed once, however often it is used."""

    training: TrainingStatistics
    trace: Trace
    """The tokens of the run, whole sequences."""
    memo: Memo = field(default_factory=Memo, repr=False)

    @cached_property
    def context(self) -> Context:
        """Return the context of the tokens of the run."""
        return context_of(self.trace)

    def transitions(self, lookahead: int, order: int) -> Probabilities:
        """Predict from first choices of `order` layers, the last of them `lookahead` before; 0 in the first layers."""

        def of_layer(layer: int) -> Probabilities:
            return self.training.transitions(layer, lookahead, order)(self.context.inputs(layer, lookahead))

        return self.memo(("transitions", lookahead, order), lambda: self._by_layer(lookahead, of_layer))

    def prophet(self, lookahead: int) -> Probabilities:
        """Predict by Prophet's predictor, 0 in the first `lookahead` layers; without a predictor raise a UserError."""
        network = self.training.network
        if network is None:
            raise UserError("prophet", "no predictor was trained on this trace", "Train one, or leave prophet out.")

        def of_layer(layer: int) -> Probabilities:
            return 1 / (1 + np.exp(-network.scores(self.context.inputs(layer, lookahead), layer, lookahead)))

        return self.memo(("prophet", lookahead), lambda: self._by_layer(lookahead, of_layer))

    def path(self) -> Probabilities:
        """Predict before the pass: from the first choice of the token before, and from the token where the trace has
        it.
        """

        def of_layer(layer: int) -> Probabilities:
            return self.training.path(layer)(before_the_pass(self.trace, self.context, layer))

        return self.memo("path", lambda: self._by_layer(0, of_layer))

    def route(self) -> NDArray[np.int64]:
        """Return (n, L): the likeliest expert by `path`."""
        return self.memo("route", lambda: self.path().argmax(axis=2))

    def _by_layer(self, first: int, of_layer: Callable[[int], Probabilities]) -> Probabilities:
        tokens, layers, _ = self.context.choices.shape
        predicted = np.zeros((tokens, layers, self.context.experts), np.float32)
        for layer in range(first, layers):
            predicted[:, layer] = of_layer(layer)
        return predicted


def before_the_pass(trace: Trace, context: Context, layer: int) -> list[NDArray[np.int64]]:
    """Return what the token before chose first in this layer, and the token where it is known, each (n,)."""
    before = np.where(context.follows, np.roll(context.choices[:, layer, 0].astype(np.int64), 1), context.experts)
    return [before] if trace.token is None else [before, trace.token.astype(np.int64)]
