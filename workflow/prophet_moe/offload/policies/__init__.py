"""Exact replacement policies for experts of equal size, one file each: which requests of a stream a cache serves.

Every cache starts empty and admits every missing expert, also one that is used again after all others. What a policy
evicts, and when, is that of libCacheSim 0.3.5 (Yang et al., github.com/1a1a11a/libCacheSim): the same misses.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from prophet_moe.offload.policies import belady, fifo, lfu, lru

Ids = NDArray[np.integer]
Mask = NDArray[np.bool_]

POLICIES: dict[str, Callable[[Ids, int, int], Mask]] = {
    "lru": lru.hits,
    "fifo": fifo.hits,
    "lfu": lfu.hits,
    "belady": belady.hits,
}


def hits(policy: str, stream: Ids, experts: int, capacity: int) -> Mask:
    """Return (requests,): whether a cache of `capacity` experts holds each request, ids 0 to `experts` - 1.

    ValueError where there is no such cache or no such id, KeyError where there is no such policy.
    """
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}, expected at least 1")
    if len(stream) and not (stream.min() >= 0 and stream.max() < experts):
        raise ValueError(f"ids are {stream.min()} to {stream.max()}, expected 0 to {experts - 1}")
    return POLICIES[policy](stream, experts, capacity)


def misses(policy: str, stream: Ids, experts: int, capacity: int) -> int:
    """Return how many requests a cache of `capacity` experts does not serve."""
    return len(stream) - int(np.count_nonzero(hits(policy, stream, experts, capacity)))
