"""What a predictor may see: the experts of the three layers before, and the token before's at the layer in question.

In shapes: n tokens, L MoE layers, E experts, k choices. Needs NumPy only: the machine that trains uses it too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prophet_moe.routing.sequences import TRAINING_SHARE, follows, split_to_evaluate, without_repetition
from prophet_moe.routing.trace import Trace

SOURCES = 4
"""Layers l-d, l-d-1, l-d-2 of the same token, and layer l of the token before."""
LAYERS_BEFORE = 3
"""Layers whose choices a predictor sees: the report's context (000:69)."""
LOOKAHEADS = (1, 2, 3)
"""Layers d between the last that is known and the one that is predicted."""
LIKELY = np.float32(0.5)
"""A prefetch less likely to be used than not wastes more bytes than it saves."""
SPLIT_SEED = 0
"""Seed of the draw of the sequences that predictors learn from."""

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Context:
    """The choices of all tokens of a trace, and what the token before chose."""

    experts: int
    choices: NDArray[np.uint16]
    """(n, L, k)."""
    follows: NDArray[np.bool_]
    """(n,): whether the row before is the token before."""

    @property
    def absent(self) -> int:
        """Return the id that stands for no expert."""
        return SOURCES * self.experts

    def inputs(self, layer: int, lookahead: int) -> Ids:
        """(n, SOURCES k): ids seen `lookahead` layers before `layer`; those of source s start at s E."""
        tokens, _, top_k = self.choices.shape
        ids = np.full((tokens, SOURCES, top_k), self.absent, np.int32)
        for source in range(LAYERS_BEFORE):
            if layer - lookahead - source >= 0:
                ids[:, source] = self.choices[:, layer - lookahead - source] + np.int32(source * self.experts)
        following = np.flatnonzero(self.follows)
        ids[following, LAYERS_BEFORE] = self.choices[following - 1, layer] + np.int32(LAYERS_BEFORE * self.experts)
        return ids.reshape(tokens, SOURCES * top_k)


def context_of(trace: Trace) -> Context:
    """Return the context of every token of `trace`, which a predictor may see."""
    return Context(trace.router.experts, trace.experts, follows(trace))


def split(trace: Trace) -> tuple[Trace, Trace]:
    """Split a trace into sequences to learn from and others to predict, which share no text; one text, by tokens.

    Repetitive sequences and duplicates are in neither. Both halves have about as many sequences of each domain, see
    sequences.split_by_sequence and split_by_token.
    """
    return split_to_evaluate(without_repetition(trace), TRAINING_SHARE, SPLIT_SEED)


def network_bytes(experts: int, moe_layers: int, hidden: int, lookaheads: int) -> int:
    """Return the bytes in bf16 of the predictor of a model with these sizes."""
    weights = SOURCES * experts * hidden + hidden + hidden * experts + experts
    return 2 * lookaheads * moe_layers * weights
