"""Exact hit counts of one layer's expert cache for every capacity at once, by stack distances (Mattson et al. 1970).

A stream is the ids that one layer is asked for, one request after another, (requests,). The cache starts empty and
admits every missing expert, also one that is used again after all others. Capacities are in experts, 1 to E.

`lru_hits` and `belady_hits` look up request by request: an expert of a token may be evicted for another of the same
token. `ask_hits` looks up ask by ask, as the simulator and most engines do: all experts of an ask are looked up before
any of them is touched. Where the cache holds few more than k experts, the second way hits more often.
"""

from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.routing.trace import Trace

Ids = NDArray[np.integer]
Hits = Callable[[Ids, int], NDArray[np.int64]]

WINDOW = 6
"""Places of the window for each id: more are packed less often but have more blocks to add up. Only speed depends."""
LANES = 32
"""Blocks added up in one go; the counts end in as many zeros, so that no few are left to add one by one."""

ONE, BLOCK_BITS, IN_BLOCK = np.uint64(1), np.uint64(6), np.uint64(63)
PAIRS, QUADS, BYTES, SUM = (
    np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F, 0x0101010101010101)
)


def lru_hits(stream: Ids, experts: int) -> NDArray[np.int64]:
    """(E,): requests served from a cache of 1, 2 ... E experts that evicts the one used least recently."""
    return np.cumsum(_lru_distances(stream, experts))


def belady_hits(stream: Ids, experts: int) -> NDArray[np.int64]:
    """(E,): requests served from a cache of 1, 2 ... E experts that evicts the one used furthest in the future.

    The most that any cache which admits every missing expert can serve.
    """
    return np.cumsum(_belady_distances(stream, next_uses(stream, experts), experts))


def ask_hits(asks: Ids, experts: int, uncounted: int = 0) -> NDArray[np.int64]:
    """(E,): requests of LRU caches of 1, 2 ... E experts that hit, where each ask is looked up before it is touched.

    `asks` is (streams, asks, requests per ask): ids, distinct within an ask; each stream begins with an empty cache,
    and its first `uncounted` asks fill the cache without being counted. An ask touches its experts in their order.
    With one request per ask this is `lru_hits`, summed over the streams.
    """
    return np.cumsum(_ask_distances(asks, experts, uncounted))


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
    """(E,): requests at each stack distance: the number of other ids asked for since the last request for the same.

    Each request takes the next place of a window; an id's last place is marked. The distance is the number of marks
    behind it (Bennett and Kruskal 1975), counted by bits in one block of 64 places and by blocks beyond. When the
    window is full, the marked places move to its front.
    """
    room = np.uint64(64 * (1 + WINDOW * experts // 64))
    marks = np.zeros(room >> BLOCK_BITS, np.uint64)
    counts = np.zeros(len(marks) + LANES, np.int32)
    never = np.uint32(room)
    last = np.full(experts, never)
    owner = np.empty(room, np.uint32)
    distances = np.zeros(experts, np.int64)
    place = np.uint64(0)
    for expert in stream:
        if place == room:
            place = _pack(last, owner, marks, counts)
        if last[expert] != never:
            block, bit = last[expert] >> BLOCK_BITS, last[expert] & IN_BLOCK
            behind = np.int32(_ones(marks[block] >> bit >> ONE))
            blocks = (place >> BLOCK_BITS) - block
            for count in counts[block + ONE : block + ONE + (blocks + np.uint64(LANES - 1)) // LANES * LANES]:
                behind += count
            distances[behind] += 1
            marks[block] &= ~(ONE << bit)
            counts[block] -= 1
        _mark(place, marks, counts)
        owner[place] = expert
        last[expert] = place
        place += ONE
    return distances


@njit(cache=True)
def _ask_distances(asks, experts, uncounted):
    """(E,): counted requests by their place, when the ask came, in the list of experts from the latest used on."""
    counts = np.zeros(experts, np.int64)
    recent = np.empty(experts, asks.dtype)
    places = np.empty(asks.shape[2], np.int64)
    for stream in range(asks.shape[0]):
        size = 0
        for number in range(asks.shape[1]):
            ask = asks[stream, number]
            for i, expert in enumerate(ask):
                place = 0
                while place < size and recent[place] != expert:
                    place += 1
                places[i] = place
            before = size
            for i, expert in enumerate(ask):
                cached = places[i] < before
                if cached and number >= uncounted:
                    counts[places[i]] += 1
                _to_front(recent, size, expert)
                size += not cached
    return counts


@njit(cache=True)
def _to_front(recent, size, expert):
    """Move an expert to the front of the first `size` of `recent`, or put it there if it is not among them."""
    moved, place = expert, 0
    while place < size and recent[place] != expert:
        recent[place], moved = moved, recent[place]
        place += 1
    recent[place] = moved


@njit(cache=True)
def _pack(last, owner, marks, counts):
    """Move what is marked to the front of the window, in its order; the first free place."""
    free = np.uint64(0)
    marks[:] = 0
    counts[:] = 0
    for place in range(len(owner)):
        expert = owner[place]
        if last[expert] == place:
            owner[free] = expert
            last[expert] = free
            _mark(free, marks, counts)
            free += ONE
    return free


@njit(cache=True)
def _mark(place, marks, counts):
    marks[place >> BLOCK_BITS] |= ONE << (place & IN_BLOCK)
    counts[place >> BLOCK_BITS] += 1


@njit(cache=True)
def _ones(word):
    """Bits that are set (Warren, Hacker's Delight, section 5-1)."""
    word -= (word >> ONE) & PAIRS
    word = (word & QUADS) + ((word >> np.uint64(2)) & QUADS)
    word = (word + (word >> np.uint64(4))) & BYTES
    return (word * SUM) >> np.uint64(56)


@njit(cache=True)
def _belady_distances(stream, uses, experts):
    """(E,): requests found at each place of a list whose first C experts are the content of a cache of C experts.

    The requested expert comes in front; of each expert moved and the one in its way, the sooner used keeps the place.
    """
    stack = np.empty(experts, np.int64)
    use = np.empty(experts, np.int64)
    counts = np.zeros(experts, np.int64)
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
            counts[place] += 1
        else:
            stack[size], use[size] = moved, moved_use
            size += 1
        use[0] = uses[i]
    return counts
