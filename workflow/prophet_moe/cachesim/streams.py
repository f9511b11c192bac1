"""What a batch asks of an expert cache, request by request."""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.routing.trace import Router, Trace, sequence_starts


@dataclass(frozen=True)
class Requests:
    """The requests of a run in their order: step by step, in each step layer by layer.

    A step is one token of each sequence of the batch. An expert that several tokens of a step choose in one layer is
    asked for once, where it is chosen first.
    """

    router: Router
    batch: int
    """Sequences that decode together."""
    ids: NDArray[np.uint16]
    """(requests,), expert inside its layer."""
    layers: NDArray[np.uint16]
    """(requests,), place of the layer among the MoE layers."""
    widest: int
    """Most experts that a step asks of one layer: with less room they cannot all be there at once."""

    def of_layer(self, layer: int) -> NDArray[np.uint16]:
        """The stream of the MoE layer at place `layer`, ids below E."""
        return self.ids[self.layers == layer]

    def of_all_layers(self) -> NDArray[np.uint32]:
        """The stream of all layers, ids layer * E + expert below L * E."""
        return self.layers * np.uint32(self.router.experts) + self.ids


def requests_of(trace: Trace, batch: int = 1) -> Requests:
    """What `trace` asks for when `batch` sequences, in the order of the trace, start and decode together.

    The next `batch` sequences start when the longest has ended, so that steps can be of fewer tokens; the last batch
    can be of fewer sequences. At batch 1 the sequences are one after another.
    """
    ids, layers, widest = _merged(trace.experts, sequence_starts(trace), batch, trace.router.experts)
    return Requests(trace.router, batch, ids, layers, widest)


@njit(cache=True)
def _merged(experts, starts, batch, count):
    """The distinct ids of each step and layer, their layers, and the most of one step and layer."""
    sequences = len(starts) - 1
    ids = np.empty(experts.size, np.uint16)
    layers = np.empty(experts.size, np.uint16)
    seen = np.full(count, -1)
    lookup = size = widest = 0
    for first in range(0, sequences, batch):
        together = range(first, min(first + batch, sequences))
        longest = 0
        for sequence in together:
            longest = max(longest, starts[sequence + 1] - starts[sequence])
        for step in range(longest):
            for layer in range(experts.shape[1]):
                begin = size
                for sequence in together:
                    row = starts[sequence] + step
                    if row < starts[sequence + 1]:
                        for expert in experts[row, layer]:
                            if seen[expert] != lookup:
                                seen[expert] = lookup
                                ids[size] = expert
                                layers[size] = layer
                                size += 1
                lookup += 1
                widest = max(widest, size - begin)
    return ids[:size].copy(), layers[:size].copy(), widest
