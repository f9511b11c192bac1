"""Least recently used: evicts the expert whose last request is longest ago."""

import numpy as np
from numba import njit


@njit(cache=True)
def hits(stream, experts, capacity):
    """Return (requests,): whether each request was served.

    A doubly linked list holds what is cached, from the oldest to the newest. It starts full, of ids that nobody
    requests.
    """
    served = np.empty(len(stream), np.bool_)
    ids = experts + capacity
    absent = np.uint32(ids)
    newer = np.full(ids, absent)
    older = np.full(ids, absent)
    for filler in range(experts + 1, ids):
        newer[filler - 1] = filler
        older[filler] = filler - 1
    oldest, newest = np.uint32(experts), np.uint32(ids - 1)
    for i, requested in enumerate(stream):
        expert = np.uint32(requested)
        above = newer[expert]
        served[i] = above != absent
        if expert == newest:
            continue
        newer[newest] = expert
        if above == absent:
            evicted = oldest
            oldest = newer[evicted]
            newer[evicted] = absent
        elif expert == oldest:
            oldest = above
        else:
            below = older[expert]
            newer[below] = above
            older[above] = below
        older[expert] = newest
        newer[expert] = expert
        newest = expert
    return served
