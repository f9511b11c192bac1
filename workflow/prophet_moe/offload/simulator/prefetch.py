"""From predictions to prefetch plans: which experts to prefetch when, the most urgent first.

In shapes: T steps, L MoE layers, E experts, P prefetches. An expert of the model has the id layer * E + expert.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.offload.simulator.batching import DecodeBatches, Id, Ids, widest
from prophet_moe.offload.simulator.predictions import Probabilities
from prophet_moe.offload.simulator.simulation import Hierarchy, PrefetchPlan
from prophet_moe.predict.context import LAYERS_BEFORE, LIKELY

LOOKAHEAD = LAYERS_BEFORE
"""Layers ahead that strategies look (000:69)."""


class Needs(NamedTuple):
    """The experts that each layer likely accesses at each step."""

    starts: NDArray[np.int64]
    """(T L + 1,): those of layer l at step t are from starts[t L + l] to starts[t L + l + 1]."""
    ids: Ids
    """The likeliest of a layer first, equally likely ones by number."""


def batch_needs(batches: DecodeBatches, predictions: Probabilities) -> Needs:
    """Return what at least one token of the batch likely chooses, with 1 - prod(1 - p) of `predictions` (n, L, E)."""
    # The memo holds on to `predictions`: no other array can have its id as long.
    needs = batches.memo(("needs", id(predictions)), lambda: (predictions, _batch_needs(batches.rows, predictions)))
    return Needs(*needs[1])


def true_needs(batches: DecodeBatches) -> Needs:
    """Return the experts that each layer will access, which only an oracle knows."""
    return Needs(*batches.memo("true needs", lambda: _true_needs(batches.rows, batches.choices, batches.experts)))


def ahead(
    batches: DecodeBatches,
    needs: Mapping[int, Needs],
    hierarchy: Hierarchy,
    *,
    before_pass: bool = False,
    next_step: bool = False,
) -> PrefetchPlan:
    """Plan what layers l + d likely need once layer l has accessed its experts, for each d of `needs`, the nearest
    first.

    A plan holds no more experts of one layer than the nearest tier. `before_pass`: also before layer 0, which is layer
    -1 here. `next_step`: beyond the last layer, the first layers of the next step are meant.
    """
    capacity, per_layer = hierarchy.capacities[0], hierarchy.per_layer
    most = capacity * len(needs) if per_layer else capacity
    parts = []
    # Distances in a row that share their needs are one range of ids.
    for _, row in groupby(enumerate(sorted(needs)), lambda item: (id(needs[item[1]]), item[1] - item[0])):
        distances = [distance for _, distance in row]
        likely, count = needs[distances[0]], len(distances)
        fitting = _first(likely, capacity) if per_layer and count > 1 else likely
        points = (len(batches.rows), batches.layers, distances[0], distances[-1], before_pass, next_step)
        parts.append(
            PrefetchPlan(fitting.ids, *_ranges(fitting.starts, *points, capacity * count if per_layer else capacity))
        )
    return parts[0] if len(parts) == 1 else _joined(parts, most)


def _first(needs: Needs, capacity: int) -> Needs:
    """Return no more needs of a layer than a number, the likeliest."""
    return Needs(*_trimmed(*needs, capacity)) if widest(needs.starts) > capacity else needs


@njit(cache=True)
def _trimmed(starts, ids, capacity):
    fewer, fitting = np.zeros_like(starts), np.empty_like(ids)
    size = 0
    for layer in range(len(starts) - 1):
        for number in range(starts[layer], min(starts[layer + 1], starts[layer] + capacity)):
            fitting[size] = ids[number]
            size += 1
        fewer[layer + 1] = size
    return fewer, fitting[:size]


@njit(cache=True)
def _ranges(starts, steps, layers, nearest, farthest, before_pass, next_step, most):
    """Return begins and ends of what the layers `nearest` to `farthest` layers on need, at every point."""
    begins = np.empty((steps, layers + 1), np.int64)
    ends = np.empty_like(begins)
    for step in range(steps):
        beyond = (steps if next_step else step + 1) * layers
        for point in range(layers + 1):
            layer = step * layers + point - 1
            begin, end = starts[min(layer + nearest, beyond)], starts[min(layer + farthest + 1, beyond)]
            begins[step, point] = begin
            ends[step, point] = min(end, begin + most) if point > 0 or before_pass else begin
    return begins, ends


def _joined(parts: Sequence[PrefetchPlan], most: int) -> PrefetchPlan:
    """Return at every point the prefetches of all parts one after another, no more than a number."""
    counts = np.minimum(sum(part.ends - part.begins for part in parts), most)
    ends = np.cumsum(counts).reshape(counts.shape)
    joined = PrefetchPlan(np.empty(counts.sum(), Id), ends - counts, ends)
    filled = joined.begins.copy()
    for part in parts:
        _append(joined.ids, filled, ends, *part)
    return joined


@njit(cache=True)
def _append(joined, filled, ends, ids, firsts, lasts):
    """Append to the prefetches of every point those of a part, up to their end."""
    steps, points = filled.shape
    for step in range(steps):
        for point in range(points):
            first, already = firsts[step, point], filled[step, point]
            count = min(lasts[step, point] - first, ends[step, point] - already)
            for number in range(count):
                joined[already + number] = ids[first + number]
            filled[step, point] = already + count


@njit(cache=True)
def _batch_needs(rows, predictions):
    tokens, layers, experts = predictions.shape
    flat = predictions.reshape(tokens, layers * experts)
    starts, ids, likely, keys = no_needs(len(rows), layers, experts)
    probability = np.empty((layers, experts), np.float32)
    unused = probability.reshape(layers * experts)
    one = np.float32(1.0)
    for step in range(len(rows)):
        present = last = 0
        for item in range(rows.shape[1]):
            if rows[step, item] >= 0:
                present, last = present + 1, rows[step, item]
        if present == 1:
            # What is likely is exactly 1 - (1 - p), so that a batch of one differs in nothing but time.
            append_likely(predictions[last], step, starts, ids, likely, keys)
            continue
        unused[:] = one
        for item in range(rows.shape[1]):
            row = rows[step, item]
            if row >= 0:
                for expert in range(layers * experts):
                    unused[expert] *= one - flat[row, expert]
        for expert in range(layers * experts):
            unused[expert] = one - unused[expert]
        append_likely(probability, step, starts, ids, likely, keys)
    return starts, ids[: starts[-1]].copy()


@njit(cache=True)
def _true_needs(rows, choices, experts):
    layers = choices.shape[1]
    starts, ids, _, _ = no_needs(len(rows), layers, experts)
    # A bit for each expert: at small batches few are set, and the others take no time.
    accessed = np.zeros((layers, (experts + 63) // 64), np.uint64)
    size = 0
    for step in range(len(rows)):
        accessed[:] = 0
        for item in range(rows.shape[1]):
            row = rows[step, item]
            if row >= 0:
                for layer in range(layers):
                    for choice in range(choices.shape[2]):
                        expert = choices[row, layer, choice]
                        accessed[layer, expert >> 6] |= np.uint64(1) << np.uint64(expert & 63)
        for layer in range(layers):
            for word in range(accessed.shape[1]):
                bits = accessed[layer, word]
                while bits:
                    ids[size] = layer * experts + 64 * word + lowest(bits)
                    bits &= bits - np.uint64(1)
                    size += 1
            starts[step * layers + layer + 1] = size
    return starts, ids[:size].copy()


@njit(cache=True)
def lowest(bits):
    """Return the number of the lowest bit that is set: the exponent of its value as a double (IEEE 754)."""
    return (np.float64(bits & (~bits + np.uint64(1))).view(np.int64) >> 52) - 1023


@njit(cache=True)
def no_needs(steps, layers, experts):
    """Return empty starts and ids, for a kernel to fill with `append_likely`, and two arrays that this works in."""
    starts, ids = np.zeros(steps * layers + 1, np.int64), np.empty(steps * layers * experts, Id)
    return starts, ids, np.empty(experts + 1, np.int64), np.empty(experts, np.int64)


@njit(cache=True)
def append_likely(probability, step, starts, ids, likely, keys):
    """Append to the needs what is likely at `step`, where `probability` is (L, E); all steps before are there.

    Every pair of a layer's likely experts is compared: sorting takes longer, by the branches that are mispredicted.
    """
    layers, experts = probability.shape
    size = starts[step * layers]
    for layer in range(layers):
        count = 0
        for expert in range(experts):
            likely[count] = expert
            count += probability[layer, expert] > LIKELY
        for one in range(count):
            # The bits of numbers above 0 are ordered as the numbers are (IEEE 754). No two keys are equal.
            bits = np.int64(np.float32(probability[layer, likely[one]]).view(np.int32))
            keys[one] = (bits << 32) - likely[one]
        for one in range(count):
            rank = 0
            for other in range(count):
                rank += keys[other] > keys[one]
            ids[size + rank] = layer * experts + likely[one]
        size += count
        starts[step * layers + layer + 1] = size
