"""Sequences that decode together, and the experts that their layers access, layer by layer.

In shapes: S sequences, T steps, B sequences at a time, L MoE layers, E experts, k choices. An expert of the model has
the id layer * E + expert.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.offload.simulator.memo import Memo

ABSENT = -1
"""Stands for a token where a sequence has ended."""

Id = np.uint32
"""Ids are unsigned, so that a kernel does not check whether an index counts from the end."""
Ids = NDArray[Id]


@dataclass(frozen=True)
class DecodeBatches:
    """Steps one after another: B sequences start together and decode until the last has ended, then the next B."""

    choices: NDArray[np.uint16]
    """(n, L, k): the choices of all tokens that `rows` names."""
    rows: NDArray[np.int64]
    """(T, B): the token that sequence b of the batch decodes at step t, ABSENT once it has ended."""
    experts: int
    """E, the number of experts of a layer."""
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)
    """What was computed of the batches, since many runs replay the same ones."""

    @property
    def layers(self) -> int:
        """Return L, the number of MoE layers."""
        return self.choices.shape[1]


class LayerAccesses(NamedTuple):
    """The experts that the layers of decode batches access; a layer needs all experts of an access at once, and waits
    for them.

    Deduplicated, a layer makes one access a step, to the distinct experts of the batch. Item by item, it makes one for
    every token.
    """

    of_layer: NDArray[np.int64]
    """(T L + 1,): the accesses of layer l at step t are those from of_layer[t L + l] to of_layer[t L + l + 1]."""
    starts: NDArray[np.int64]
    """(accesses + 1,): where the experts of each access start in `ids`."""
    ids: Ids
    """(requests,): ids of the experts, in the order in which they were first chosen."""
    tokens: Ids
    """(requests,): how many tokens chose the expert."""

    @property
    def widest(self) -> int:
        """Return the most experts of one access, which is what the nearest tier must hold."""
        return widest(self.starts)


def decode_batches(
    choices: NDArray[np.uint16], starts: NDArray[np.int64], batch: int, experts: int, steps: int = 1024
) -> Iterator[DecodeBatches]:
    """Yield all sequences in their order, `batch` at a time; `starts` (S + 1,) is where they begin in `choices`.

    A piece ends with the sequences that reach so many `steps`: more pieces take less memory.
    """
    lengths, pieces = np.diff(starts), []
    for first in range(0, len(lengths), batch):
        together = slice(first, first + batch)
        step = np.arange(lengths[together].max())[:, None]
        rows = np.full((len(step), batch), ABSENT)
        count = len(lengths[together])
        rows[:, :count] = np.where(step < lengths[together], starts[:-1][together] + step, ABSENT)
        pieces.append(rows)
        if sum(map(len, pieces)) >= steps or first + batch >= len(lengths):
            yield DecodeBatches(choices, np.concatenate(pieces), experts)
            pieces = []


@njit(cache=True)
def widest(starts):
    """Return the largest distance between neighbours in `starts`."""
    most = 0
    for part in range(len(starts) - 1):
        most = max(most, starts[part + 1] - starts[part])
    return most


def accesses_of(batches: DecodeBatches, *, deduplicated: bool, order: NDArray[np.int64] | None = None) -> LayerAccesses:
    """Return the accesses; `order` (T, L, B) says in which order a layer takes its tokens, else as they stand."""
    shape = (len(batches.rows), batches.layers, batches.rows.shape[1])
    if order is None:
        order = np.empty((0, 0, 0), np.int64)
    elif order.shape != shape or not _permuted(order):
        raise ValueError(f"order of shape {order.shape}, expected a permutation of the batch for each of {shape[:2]}")
    return LayerAccesses(*_accesses(batches.choices, batches.rows, order, batches.experts, deduplicated))


@njit(cache=True)
def _permuted(order):
    """Return whether every order is a permutation of the numbers from 0 on."""
    steps, layers, batch = order.shape
    seen = np.full(batch, -1)
    for step in range(steps):
        for layer in range(layers):
            for position in range(batch):
                item = order[step, layer, position]
                if item < 0 or item >= batch or seen[item] == step * layers + layer:
                    return False
                seen[item] = step * layers + layer
    return True


@njit(cache=True)
def _accesses(choices, rows, order, experts, deduplicated):
    # Without an order, `order` is empty.
    steps, batch = rows.shape
    _, layers, top_k = choices.shape
    of_layer = np.zeros(steps * layers + 1, np.int64)
    starts = np.zeros(steps * layers * (1 if deduplicated else batch) + 1, np.int64)
    ids = np.empty(steps * batch * layers * top_k + 1, Id)
    tokens = np.empty(len(ids), Id)
    position = np.full(layers * experts, -1)
    size = accesses = 0
    for step in range(steps):
        for layer in range(layers):
            for turn in range(batch):
                row = rows[step, order[step, layer, turn] if len(order) else turn]
                if row < 0:
                    continue
                for choice in range(top_k):
                    wanted = Id(layer * experts + choices[row, layer, choice])
                    # Without a branch: half of them would be mispredicted.
                    first = position[wanted] < starts[accesses]
                    position[wanted] = size if first else position[wanted]
                    ids[size], tokens[size] = wanted, 0
                    tokens[position[wanted]] += 1
                    size += first
                if not deduplicated:
                    accesses += 1
                    starts[accesses] = size
            if deduplicated and size > starts[accesses]:
                accesses += 1
                starts[accesses] = size
            of_layer[step * layers + layer + 1] = accesses
    return of_layer, starts[: accesses + 1].copy(), ids[:size].copy(), tokens[:size].copy()
