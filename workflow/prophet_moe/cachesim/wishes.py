"""From forecasts to wishes: which experts to prefetch when, the most urgent first.

In shapes: T steps, L MoE layers, E experts, W wishes. Needs are (T, L, E): the probability that a layer asks for an
expert at a step.
"""

from collections.abc import Mapping

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.cachesim.rounds import Ids, Round
from prophet_moe.cachesim.simulation import NO_WISHES, Hierarchy
from prophet_moe.predict.context import LAYERS_BEFORE

LOOKAHEAD = LAYERS_BEFORE
"""Layers ahead that strategies look (000:69)."""
LIKELY = 0.5
"""A prefetch less likely to be used than not wastes more bytes than it saves."""

Needs = NDArray[np.float32]


def batch_needs(decoding: Round, forecast: Needs) -> Needs:
    """(T, L, E): that at least one token of the batch chooses the expert, 1 - prod(1 - p), for `forecast` (n, L, E)."""
    return decoding.once(("needs", id(forecast)), lambda: _batch_needs(decoding.rows, forecast))


def true_needs(decoding: Round) -> Needs:
    """(T, L, E): 1 for what will be asked, 0 for all else."""
    return decoding.once(("true needs",), lambda: _true_needs(decoding.rows, decoding.choices, decoding.experts))


def ahead(
    needs: Mapping[int, Needs], hierarchy: Hierarchy, *, before_pass: bool = False, next_step: bool = False
) -> Ids:
    """(T, L + 1, W): when layer l has asked, what layers l + d likely need, for each d of `needs`, the nearest first.

    No more of one layer than the nearest tier holds. `before_pass`: also before layer 0, which is layer -1 here.
    `next_step`: beyond the last layer, the first layers of the next step are meant.
    """
    distances = np.array(sorted(needs))
    stacked = [np.ascontiguousarray(needs[distance], np.float32) for distance in distances]
    steps, layers, _ = stacked[0].shape
    most = max(1, *(_most(need) for need in stacked))
    wishes = np.full((steps, layers + 1, len(stacked) * most), NO_WISHES, np.int32)
    filled = np.zeros((steps, layers + 1), np.int64)
    for distance, need in zip(distances, stacked, strict=True):
        _append(wishes, filled, need, distance, hierarchy.rooms[0], hierarchy.per_layer, before_pass, next_step)
    return wishes


@njit(cache=True)
def _most(need):
    """Most experts that a layer likely needs at a step."""
    most = 0
    for step in range(len(need)):
        for layer in range(need.shape[1]):
            count = 0
            for expert in range(need.shape[2]):
                count += need[step, layer, expert] > LIKELY
            most = max(most, count)
    return most


@njit(cache=True)
def _append(wishes, filled, need, distance, room, per_layer, before_pass, next_step):
    """Append to the wishes of every point those for the layer `distance` layers on, the most likely first."""
    steps, layers, experts = need.shape
    likely = np.empty(experts, np.int64)
    for step in range(steps):
        for point in range(0 if before_pass else 1, layers + 1):
            target, when = point - 1 + distance, step
            if target >= layers:
                target, when = target - layers, step + 1
                if not next_step or when == steps:
                    continue
            count = 0
            for expert in range(experts):
                probability = need[when, target, expert]
                if probability > LIKELY:
                    place = count
                    while place > 0 and need[when, target, likely[place - 1]] < probability:
                        likely[place] = likely[place - 1]
                        place -= 1
                    likely[place] = expert
                    count += 1
            begin = filled[step, point]
            count = min(count, room if per_layer else room - begin)
            for number in range(count):
                wishes[step, point, begin + number] = target * experts + likely[number]
            filled[step, point] = begin + count


@njit(cache=True)
def _batch_needs(rows, forecast):
    _, layers, experts = forecast.shape
    one = np.float32(1.0)
    needs = np.ones((len(rows), layers, experts), np.float32)
    for step in range(len(rows)):
        for row in rows[step]:
            if row >= 0:
                for layer in range(layers):
                    for expert in range(experts):
                        needs[step, layer, expert] *= one - min(forecast[row, layer, expert], one)
        for layer in range(layers):
            for expert in range(experts):
                needs[step, layer, expert] = one - needs[step, layer, expert]
    return needs


@njit(cache=True)
def _true_needs(rows, choices, experts):
    needs = np.zeros((len(rows), choices.shape[1], experts), np.float32)
    for step in range(len(rows)):
        for row in rows[step]:
            if row >= 0:
                for layer in range(choices.shape[1]):
                    for expert in choices[row, layer]:
                        needs[step, layer, expert] = 1.0
    return needs
