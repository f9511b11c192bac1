"""Belady's MIN (1966): evicts the expert that is used again last, or never. No cache that must admit serves more."""

import numpy as np
from numba import njit

from prophet_moe.routing.reuse import next_uses

ID_BITS = np.uint64(20)
"""Low bits of a heap's entry, which hold the id; those above hold the next use."""
ID = np.uint64((1 << 20) - 1)
ONE = np.uint32(1)


def hits(stream, experts, capacity):
    """Return (requests,): whether each was served; ValueError where the ids do not fit into an entry."""
    if experts > ID + 1:
        raise ValueError(f"{experts} experts, expected at most {ID + 1}")
    return hits_knowing(stream, next_uses(stream, experts), experts, capacity)


@njit(cache=True)
def hits_knowing(stream, uses, experts, capacity):
    """Return (requests,): whether each was served, given `uses` (requests,), the next use of each request's expert.

    A heap of what is cached, what is used last on top, and the place of every expert in it. A hit only moves up; what
    is admitted in place of the top only moves down.
    """
    served = np.empty(len(stream), np.bool_)
    # Only a full heap is searched downwards: the zero behind its end stands for a child that is not there.
    heap = np.zeros(capacity + 1, np.uint64)
    absent = np.uint32(capacity)
    places = np.full(experts, absent)
    size = np.uint32(0)
    for i, expert in enumerate(stream):
        entry, place = (np.uint64(uses[i]) << ID_BITS) | np.uint64(expert), places[expert]
        served[i] = place != absent
        if place == absent and size == absent:
            places[heap[0] & ID] = absent
            place = np.uint32(0)
            below = ONE
            while below < size:
                below += np.uint32(heap[below + ONE] > heap[below])
                if heap[below] <= entry:
                    break
                heap[place] = heap[below]
                places[heap[place] & ID] = place
                place = below
                below = place + place + ONE
        else:
            if place == absent:
                place = size
                size += ONE
            while place > 0:
                above = (place - ONE) >> ONE
                if heap[above] >= entry:
                    break
                heap[place] = heap[above]
                places[heap[place] & ID] = place
                place = above
        heap[place] = entry
        places[expert] = place
    return served
