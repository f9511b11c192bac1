"""First in, first out: evicts the expert that was admitted first, whether or not it was used since."""

import numpy as np
from numba import njit


@njit(cache=True)
def hits(stream, experts, capacity):
    """Return (requests,): whether each was served. A ring holds what is cached, in the order of admission."""
    served = np.empty(len(stream), np.bool_)
    cached = np.zeros(experts, np.bool_)
    ring = np.empty(capacity, np.uint32)
    admitted, place = 0, np.uint64(0)
    for i, expert in enumerate(stream):
        served[i] = cached[expert]
        if not cached[expert]:
            if admitted >= capacity:
                cached[ring[place]] = False
            ring[place] = expert
            cached[expert] = True
            admitted += 1
            place += np.uint64(1)
            if place == capacity:
                place = np.uint64(0)
    return served
