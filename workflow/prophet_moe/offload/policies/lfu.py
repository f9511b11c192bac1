"""Least frequently used: evicts the expert used least often since it was admitted.

Of those used equally often it evicts the one whose last request is longest ago. An eviction forgets the count.
"""

from heapq import heappop, heappush, heapreplace

import numpy as np
from numba import njit


@njit(cache=True)
def hits(stream, experts, capacity):
    """Return (requests,): whether each request was served.

    Experts used once are evicted first, in the order of the stream. The others are in a heap by (uses, last request) as
    they were when they came in; since both only grow, what is on top and up to date is the least.
    """
    served = np.empty(len(stream), np.bool_)
    uses = np.zeros(experts, np.int64)
    last = np.zeros(experts, np.int64)
    heap = [(0, 0, 0) for _ in range(0)]
    admitted = once = first = 0
    for i, requested in enumerate(stream):
        expert = np.int64(requested)
        served[i] = uses[expert] > 0
        if uses[expert] == 0:
            admitted += 1
            if admitted > capacity and once > 0:
                while uses[stream[first]] != 1 or last[stream[first]] != first:
                    first += 1
                uses[stream[first]] = 0
                once -= 1
            elif admitted > capacity:
                while heap[0][1] != last[heap[0][2]]:
                    stale = heap[0][2]
                    heapreplace(heap, (uses[stale], last[stale], stale))
                uses[heappop(heap)[2]] = 0
            once += 1
        elif uses[expert] == 1:
            once -= 1
            heappush(heap, (2, i, expert))
        uses[expert] += 1
        last[expert] = i
    return served
