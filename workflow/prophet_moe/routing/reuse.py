"""Exact hit counts of one layer's expert cache for every capacity at once, by stack distances (Mattson et al. 1970).

A stream is the ids that one layer is asked for, one request after another, (requests,). The cache starts empty and
admits every missing expert, also one that is used again after all others. Capacities are in experts, 1 to E.
"""

from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.routing.trace import Trace

Ids = NDArray[np.integer]
Hits = Callable[[Ids, int], NDArray[np.int64]]


def lru_hits(stream: Ids, experts: int) -> NDArray[np.int64]:
    """(E,): requests served from a cache of 1, 2 ... E experts that evicts the one used least recently."""
    return np.cumsum(_lru_distances(stream, experts))


def belady_hits(stream: Ids, experts: int) -> NDArray[np.int64]:
    """(E,): requests served from a cache of 1, 2 ... E experts that evicts the one used furthest in the future.

    The most that any cache which admits every missing expert can serve.
    """
    return np.cumsum(_belady_distances(stream, next_uses(stream, experts), experts))


def hit_rates(trace: Trace, hits: Hits = lru_hits) -> NDArray[np.float64]:
    """(L, E): share of requests that hit, by layer and capacity.

    A layer's stream is the whole trace: sequences one after another, token by token, the k choices in their order.
    """
    requests = len(trace) * trace.router.top_k
    layers = range(len(trace.router.layers))
    return np.array([hits(trace.experts[:, layer].ravel(), trace.router.experts) for layer in layers]) / requests


@njit(cache=True)
def next_uses(stream, experts):
    """(requests,): index of the next request for the same expert; the number of requests where there is none."""
    following = np.full(experts, len(stream))
    uses = np.empty(len(stream), np.int64)
    for i in range(len(stream) - 1, -1, -1):
        uses[i] = following[stream[i]]
        following[stream[i]] = i
    return uses


@njit(cache=True)
def _lru_distances(stream, experts):
    """(E,): requests found at each place of a list of the experts used so far, the last used in front."""
    stack = np.empty(experts, np.int64)
    found = np.zeros(experts, np.int64)
    size = 0
    for expert in stream:
        moved, place = expert, 0
        while place < size:
            stack[place], moved = moved, stack[place]
            if moved == expert:
                break
            place += 1
        if place < size:
            found[place] += 1
        else:
            stack[size] = moved
            size += 1
    return found


@njit(cache=True)
def _belady_distances(stream, uses, experts):
    """(E,): requests found at each place of a list whose first C experts are the content of a cache of C experts.

    The requested expert comes in front; of each expert moved and the one in its way, the sooner used keeps the place.
    """
    stack = np.empty(experts, np.int64)
    use = np.empty(experts, np.int64)
    found = np.zeros(experts, np.int64)
    size = 0
    for i, expert in enumerate(stream):
        moved, moved_use, place = expert, -1, 0
        while place < size:
            if stack[place] == expert or use[place] > moved_use:
                stack[place], moved = moved, stack[place]
                use[place], moved_use = moved_use, use[place]
                if moved == expert:
                    break
            place += 1
        if place < size:
            found[place] += 1
        else:
            stack[size], use[size] = moved, moved_use
            size += 1
        use[0] = uses[i]
    return found
