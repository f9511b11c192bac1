"""From forecasts to wishes: which experts to prefetch when, the most urgent first.

In shapes: T steps, L MoE layers, E experts, W wishes. An expert of the model has the id layer * E + expert.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.cachesim.forecast import Probabilities
from prophet_moe.cachesim.rounds import Ids, Round
from prophet_moe.cachesim.simulation import NO_WISHES, Hierarchy
from prophet_moe.predict.context import LAYERS_BEFORE

LOOKAHEAD = LAYERS_BEFORE
"""Layers ahead that strategies look (000:69)."""
LIKELY = np.float32(0.5)
"""A prefetch less likely to be used than not wastes more bytes than it saves."""


class Needs(NamedTuple):
    """Which experts each layer likely asks for at each step."""

    starts: NDArray[np.int64]
    """(T L + 1,): those of layer l at step t are from starts[t L + l] to starts[t L + l + 1]."""
    ids: Ids
    """The likeliest of a layer first, equally likely ones by number."""


def batch_needs(decoding: Round, forecast: Probabilities) -> Needs:
    """What at least one token of the batch chooses, of probability 1 - prod(1 - p), for `forecast` (n, L, E)."""
    # What is remembered holds on to `forecast`: no other array can have its id as long.
    made = decoding.once(("needs", id(forecast)), lambda: (forecast, _batch_needs(decoding.rows, forecast)))
    return Needs(*made[1])


def true_needs(decoding: Round) -> Needs:
    """What will be asked."""
    return Needs(*decoding.once("true needs", lambda: _true_needs(decoding.rows, decoding.choices, decoding.experts)))


def ahead(
    decoding: Round,
    needs: Mapping[int, Needs],
    hierarchy: Hierarchy,
    *,
    before_pass: bool = False,
    next_step: bool = False,
) -> Ids:
    """(T, L + 1, W): when layer l has asked, what layers l + d likely need, for each d of `needs`, the nearest first.

    No more of one layer than the nearest tier holds. `before_pass`: also before layer 0, which is layer -1 here.
    `next_step`: beyond the last layer, the first layers of the next step are meant.
    """
    room, per_layer = hierarchy.rooms[0], hierarchy.per_layer
    width = sum(min(room, np.diff(likely.starts).max(initial=0)) for likely in needs.values())
    shape = (len(decoding.rows), decoding.layers + 1)
    wishes = np.full((*shape, max(1, width)), NO_WISHES, np.int32)
    filled = np.zeros(shape, np.int64)
    for distance in sorted(needs):
        _append(wishes, filled, *needs[distance], distance, room, per_layer, before_pass, next_step)
    return wishes


@njit(cache=True)
def _append(wishes, filled, starts, ids, distance, room, per_layer, before_pass, next_step):
    """Append to the wishes of every point those for the layer `distance` layers on."""
    steps, points, _ = wishes.shape
    layers = points - 1
    for step in range(steps):
        for point in range(0 if before_pass else 1, points):
            target = point - 1 + distance
            layer = step * layers + target
            if layer >= steps * layers or (target >= layers and not next_step):
                continue
            begin, already = starts[layer], filled[step, point]
            count = min(starts[layer + 1] - begin, room if per_layer else room - already)
            for number in range(count):
                wishes[step, point, already + number] = ids[begin + number]
            filled[step, point] = already + count


@njit(cache=True)
def _batch_needs(rows, forecast):
    """See `batch_needs`."""
    tokens, layers, experts = forecast.shape
    flat = forecast.reshape(tokens, layers * experts)
    starts, ids, places, values = no_needs(len(rows), layers, experts)
    probability = np.empty((layers, experts), np.float32)
    unused = probability.reshape(layers * experts)
    one = np.float32(1.0)
    for step in range(len(rows)):
        unused[:] = one
        for item in range(rows.shape[1]):
            row = rows[step, item]
            if row >= 0:
                for expert in range(layers * experts):
                    unused[expert] *= one - flat[row, expert]
        for expert in range(layers * experts):
            unused[expert] = one - unused[expert]
        append_likely(probability, step, starts, ids, places, values)
    return starts, ids[: starts[-1]].copy()


@njit(cache=True)
def _true_needs(rows, choices, experts):
    """See `true_needs`."""
    layers = choices.shape[1]
    starts, ids, _, _ = no_needs(len(rows), layers, experts)
    asked = np.zeros((layers, experts), np.bool_)
    size = 0
    for step in range(len(rows)):
        asked[:] = False
        for item in range(rows.shape[1]):
            row = rows[step, item]
            if row >= 0:
                for layer in range(layers):
                    for choice in range(choices.shape[2]):
                        asked[layer, choices[row, layer, choice]] = True
        for layer in range(layers):
            for expert in range(experts):
                ids[size] = layer * experts + expert
                size += asked[layer, expert]
            starts[step * layers + layer + 1] = size
    return starts, ids[:size].copy()


@njit(cache=True)
def no_needs(steps, layers, experts):
    """Starts and ids, for a kernel to fill step by step with `append_likely`, and what that needs room for."""
    starts, ids = np.zeros(steps * layers + 1, np.int64), np.empty(steps * layers * experts + 1, np.int32)
    return starts, ids, np.empty((2, experts + 1), np.int32), np.empty(experts, np.float32)


@njit(cache=True)
def append_likely(probability, step, starts, ids, places, values):
    """Append to the needs what is likely at `step`, where `probability` is (L, E); all steps before are there.

    Every pair of a layer's likely experts is compared: sorting takes longer, by the branches that are mispredicted.
    """
    layers, experts = probability.shape
    size = starts[step * layers]
    for layer in range(layers):
        count = 0
        for expert in range(experts):
            places[0, count] = expert
            count += probability[layer, expert] > LIKELY
        for one in range(count):
            values[one] = probability[layer, places[0, one]]
        for one in range(count):
            value, rank = values[one], np.int32(0)
            for other in range(one):
                behind = np.int32(values[other] < value)
                places[1, other] += behind
                rank += np.int32(1) - behind
            places[1, one] = rank
        for one in range(count):
            ids[size + places[1, one]] = layer * experts + places[0, one]
        size += count
        starts[step * layers + layer + 1] = size
