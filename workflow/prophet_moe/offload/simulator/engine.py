"""Replay of what layers ask for against a hierarchy of expert caches and one copy queue, with a clock.

The device computes the layers of a step in turn. A layer first computes what is no routed expert, then asks. Experts at
hand are computed first, then what is under way, then what is missing, in the order of the ask, each once it arrived.

* The nearest tier is what the device computes from. Before the pass, and whenever a layer has asked, a strategy states
  its wishes: experts to prefetch, the most urgent first. They replace all earlier wishes, so that what was not begun is
  cancelled. Wishes that are there by then are kept: they are evicted only if a missing expert finds no other place.
* There is one copy queue. Missing experts go before wishes: a prefetch under way is paused at the end of its chunk and
  goes on afterwards, unless the same ask waits for it. It is given up when the layer it is for asks for others and more
  than its last chunk is left, or when its place is needed.
* A copy overwrites at its start the expert of least key that is neither in use nor (for wishes) wished for; a wish that
  finds none is skipped. What a layer uses is in use until the next ask. Keys follow the eviction rule.
* With less room than an ask needs, it is served in waves: an expert that was computed gives its place to one missing.
* Further tiers are exclusive (an expert moves nearer, what it replaces moves one tier away, and out of the last; so
  does what is given up) or inclusive (a tier holds all that nearer tiers hold). They keep what was copied last. Behind
  them is all of the model.

`reference.py` says the same in plain Python.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

LRU, LRFU, BELADY, POPULARITY, RANDOM = range(5)
"""Eviction rules: key is the last use; the uses, each weighing half after HALF_LIFE steps (Lee et al. 2001); how soon
the next use is (Belady); how often the expert was chosen in training; or the same of all, one of which is drawn."""
HALF_LIFE = 16.0
ERA = 1024
"""Steps after which LRFU counts in a larger unit, so that sums of weights stay finite. A whole number of half-lives:
the units are powers of two, and what was counted is scaled exactly."""
LEAST = 2.0**-1022
"""No score is less. Sixteen eras make this of 1: what was used before then is alike."""
LOW_BITS = 16
"""Of a score, which its key lacks."""
PLANNED, IN_TRANSIT, IN_USE = 1 << 60, 1 << 61, 1 << 62
"""Added to keys, which are less than half of the least in size: evicted only when nothing below is left."""
SCALED = int(ERA / HALF_LIFE) << 52 - LOW_BITS
"""What an era's change of unit adds to a key."""
SCALE = float(1 << 20)
"""Keys are whole numbers: scores in this many parts."""
NEVER = 1 << 40
"""Index of a next ask that never comes."""

KEPT, PREFETCHED, LATE, MISSED, COPIES, WASTED, SKIPPED = range(7)
"""Counts by layer: requests at hand since they were missed once, or prefetched and not used since; under way; missing;
prefetches begun; of these never used; wishes without a place."""
COUNTS = 7
STALL, WASTED_SHARE = range(2)
"""Sums by layer: seconds waited for experts; wasted prefetches, those given up by the share that was copied."""
SUMS = 2
CLOCK, LINK_FREE, ISSUED, FLIGHT_BEGIN, FLIGHT_END, CHUNK, DEMAND_BUSY, PREFETCH_BUSY, WEIGHT = range(9)
CLOCKS = 9
"""Seconds: the device's time; when the copy queue is free; when wishes were stated; begin and end of the prefetch under
way; what is not interrupted of a copy; how long the queue was busy. And what a use in this step weighs, for LRFU."""
FLIGHT, FLIGHT_SOURCE, ACCESS, PLAN, NEXT, LAST, TICK, STEP, INCLUSIVE, EVICTION = range(10)
MARKS = 10
"""Numbers: the prefetch under way and its tier; of asks, of wishes; the first wish not begun and the end of the wishes;
touches and steps so far; and the rules."""
PLANNED_AT, USED_AT = range(2)


class State(NamedTuple):
    """What lies where. M tiers, G groups (a layer each, or one), C places, N = L E ids.

    Kernels take its arrays one by one: Numba would count references to each whenever they were handed over together.
    """

    slots: np.ndarray
    """(M, G, C) ids."""
    keys: np.ndarray
    """(M, G, C)."""
    stamps: np.ndarray
    """(2, G, C + 1) of the nearest tier: number of the wishes that last named it, and of the ask that last used it.

    Place -1, the last, stands for what is nowhere."""
    filled: np.ndarray
    """(M, G) places taken."""
    capacity: np.ndarray
    """(M,) places of a group."""
    slot_of: np.ndarray
    """(M, N) its place, -1 where it is not."""
    prefetched_unused: np.ndarray
    """(N,) prefetched and not used since."""
    score: np.ndarray
    """(N,) for the eviction rule. LRFU's is the sum of the weights of all uses, 2^(s / HALF_LIFE) for one at step s,
    in units of what a use at the begin of the era weighs; its key is ordered as the sum is."""
    upcoming: np.ndarray
    """(N,) number of the ask that needs it next, for Belady's rule."""
    clock: np.ndarray
    marks: np.ndarray


class Rules(NamedTuple):
    """What does not change during a run."""

    transfer_seconds: np.ndarray
    """(M + 1,) seconds of a copy from each tier, and from behind the last; the first is 0."""
    non_expert_seconds: np.ndarray
    """(L,) seconds of all but routed experts."""
    expert_seconds: np.ndarray
    """(B + 1,) seconds of an expert that is handed so many tokens."""
    layer_of: np.ndarray
    """(N,) the layer of each expert: to divide by E took longer."""
    group_of: np.ndarray
    """(N,) the group of each expert."""


class Tally(NamedTuple):
    """What happened."""

    counts: np.ndarray
    """(COUNTS, L)."""
    sources: np.ndarray
    """(M + 1, L): copies from each tier."""
    sums: np.ndarray
    """(SUMS, L)."""


def replay(state, rules, tally, accesses, following, planned, step_seconds):
    """Replay a round; `following` (requests,) is the number of the ask that needs the same expert next.

    `planned` is what simulation.PrefetchPlan says. The duration of step t is written to step_seconds[t].
    """
    experts = len(state.score)
    waiting, computed, ended = np.empty(experts, np.int64), np.empty(experts, np.int64), np.empty(experts)
    _run(*state, *rules, *tally, *accesses, following, *planned, step_seconds, waiting, computed, ended)


@njit(cache=True)
def drawn(tick):
    """A number below 2^40 (Steele, Lea, Flood: SplitMix, 2014)."""
    z = np.uint64(tick) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((z ^ (z >> np.uint64(31))) >> np.uint64(24))


# What farther tiers do, which few runs have, stands outside of _run, where it would be compiled for every call anew.


@njit(cache=True)
def _remove(slots, keys, stamps, filled, slot_of, tier, group, slot):
    """Take what lies at `place` out of a tier; what lies last takes its place."""
    filled[tier, group] -= 1
    last = filled[tier, group]
    removed, moved = slots[tier, group, slot], slots[tier, group, last]
    slots[tier, group, slot] = moved
    keys[tier, group, slot] = keys[tier, group, last]
    if tier == 0:
        for stamp in range(len(stamps)):
            stamps[stamp, group, slot] = stamps[stamp, group, last]
    slot_of[tier, moved] = slot
    slot_of[tier, removed] = -1


@njit(cache=True)
def _renew(slots, keys, filled, capacity, slot_of, marks, tier, group, wanted):
    """Make `wanted` the most recent of a farther tier; what that evicts, or -1."""
    marks[TICK] += 1
    slot, evicted = np.int64(slot_of[tier, wanted]), np.int64(-1)
    if slot < 0:
        slot = np.int64(filled[tier, group])
        if slot < capacity[tier]:
            filled[tier, group] += 1
        else:
            least = np.int64(IN_USE)
            for candidate in range(capacity[tier]):
                nearer = marks[INCLUSIVE] and slot_of[tier - 1, slots[tier, group, candidate]] >= 0
                if keys[tier, group, candidate] < least and not nearer:
                    slot, least = np.int64(candidate), keys[tier, group, candidate]
            evicted = np.int64(slots[tier, group, slot])
            slot_of[tier, evicted] = -1
        slots[tier, group, slot] = wanted
        slot_of[tier, wanted] = slot
    keys[tier, group, slot] = marks[TICK]
    return evicted


@njit(cache=True)
def _approach(slots, keys, stamps, filled, capacity, slot_of, marks, group, source, wanted):
    """Let the farther tiers know that an expert comes to the nearest one from `source`."""
    if marks[INCLUSIVE]:
        for tier in range(len(capacity) - 1, 0, -1):
            _renew(slots, keys, filled, capacity, slot_of, marks, tier, group, wanted)
    elif source < len(capacity):
        _remove(slots, keys, stamps, filled, slot_of, source, group, slot_of[source, wanted])


@njit(cache=True)
def _demote(slots, keys, filled, capacity, slot_of, marks, group, evicted):
    """What left the nearest tier moves one tier away, as does what it replaces; inclusive tiers hold it already."""
    tier = 1
    while evicted >= 0 and tier < len(capacity) and not marks[INCLUSIVE]:
        evicted = _renew(slots, keys, filled, capacity, slot_of, marks, tier, group, evicted)
        tier += 1


@njit(cache=True)
def _run(
    slots,
    keys,
    stamps,
    filled,
    capacity,
    slot_of,
    prefetched_unused,
    score,
    upcoming,
    clock,
    marks,
    transfer_seconds,
    non_expert_seconds,
    expert_seconds,
    layer_of,
    group_of,
    counts,
    sources,
    sums,
    accesses_of_layer,
    starts,
    ids,
    tokens,
    following,
    prefetches,
    begins,
    ends,
    step_seconds,
    waiting,
    computed,
    ended,
):
    def new_step():
        """Let earlier uses weigh less, for LRFU."""
        marks[STEP] += 1
        if marks[EVICTION] == LRFU:
            in_era = marks[STEP] % ERA
            if in_era == 0:
                for expert in range(len(score)):
                    score[expert] = max(score[expert] * np.exp2(-ERA / HALF_LIFE), LEAST)
            clock[WEIGHT] = np.exp2(in_era / HALF_LIFE)

    def touch(group, wanted, used):
        """Give an expert the key that the eviction rule says, once it was used or a prefetch has ended."""
        marks[TICK] += 1
        key = marks[TICK]
        eviction = marks[EVICTION]
        if eviction == LRFU:
            if used:
                score[wanted] += clock[WEIGHT]
            # The bits of numbers above 0 are ordered as the numbers are (IEEE 754), and a power of two adds to them.
            key = (np.float64(score[wanted]).view(np.int64) >> LOW_BITS) + marks[STEP] // ERA * SCALED
        elif eviction == BELADY:
            key = NEVER - upcoming[wanted]
        elif eviction == POPULARITY:
            key = np.int64(score[wanted] * SCALE)
        elif eviction == RANDOM:
            key = 0
        keys[0, group, slot_of[0, wanted]] = key

    def rank_of(group, slot, plan, access):
        """The least is evicted first."""
        planned = PLANNED if stamps[PLANNED_AT, group, slot] == plan else 0
        used = IN_USE if stamps[USED_AT, group, slot] == access else 0
        return keys[0, group, slot] + planned + used

    def drawn_of(group, least, plan, access):
        """One of the places of the nearest tier that rank `least`."""
        equal = 0
        for slot in range(capacity[0]):
            equal += rank_of(group, slot, plan, access) == least
        left, drawn_slot = drawn(marks[TICK]) % equal, np.int64(-1)
        while left >= 0:
            drawn_slot += 1
            left -= rank_of(group, drawn_slot, plan, access) == least
        return drawn_slot

    def victim_of(group, below):
        """A free place of the nearest tier, or that of the least key if it is less than `below`, or -1."""
        if filled[0, group] < capacity[0]:
            return filled[0, group]
        plan, access, least = marks[PLAN], marks[ACCESS], np.int64(below)
        for slot in range(capacity[0]):
            least = min(least, rank_of(group, slot, plan, access))
        if least == below:
            return -1
        if marks[EVICTION] == RANDOM:
            return drawn_of(group, least, plan, access)
        victim = capacity[0]
        for slot in range(capacity[0]):
            victim = min(victim, slot if rank_of(group, slot, plan, access) == least else capacity[0])
        return victim

    def source_of(wanted):
        """The nearest tier that holds the expert, but the first; their number where none does."""
        tier = 1
        while tier < len(capacity) and slot_of[tier, wanted] < 0:
            tier += 1
        return tier

    def demote(group, evicted):
        """See `_demote`."""
        if evicted >= 0 and len(capacity) > 1:
            _demote(slots, keys, filled, capacity, slot_of, marks, group, evicted)

    def waste(wasted):
        """Note that a prefetch was for nothing; one under way, which is paused, ends here."""
        layer, share = layer_of[wasted], 1.0
        if marks[FLIGHT] == wasted:
            marks[FLIGHT] = -1
            saved = clock[FLIGHT_END] - clock[LINK_FREE]
            clock[PREFETCH_BUSY] -= saved
            if saved > 0:
                share = 1.0 - saved / transfer_seconds[marks[FLIGHT_SOURCE]]
        prefetched_unused[wasted] = False
        counts[WASTED, layer] += 1
        sums[WASTED_SHARE, layer] += share

    def put(source, group, slot, wanted):
        """Copy an expert to a place of the nearest tier, and move what was there."""
        sources[source, layer_of[wanted]] += 1
        if len(capacity) > 1:
            _approach(slots, keys, stamps, filled, capacity, slot_of, marks, group, source, wanted)
        evicted = np.int64(-1)
        if slot == filled[0, group]:
            filled[0, group] += 1
        else:
            evicted = np.int64(slots[0, group, slot])
            slot_of[0, evicted] = -1
            if prefetched_unused[evicted]:
                waste(evicted)
        slots[0, group, slot] = wanted
        slot_of[0, wanted] = slot
        stamps[PLANNED_AT, group, slot] = stamps[USED_AT, group, slot] = -1
        demote(group, evicted)

    def issue(step, point):
        """Take note of new wishes."""
        marks[PLAN] += 1
        marks[NEXT], marks[LAST] = begins[step, point], ends[step, point]
        clock[ISSUED] = clock[CLOCK]
        for number in range(marks[NEXT], marks[LAST]):
            wanted = prefetches[number]
            stamps[PLANNED_AT, group_of[wanted], slot_of[0, wanted]] = marks[PLAN]

    def advance(until):
        """Let the copy queue work off wishes until then."""
        while True:
            if marks[FLIGHT] >= 0:
                if clock[FLIGHT_END] > until:
                    return
                flown = marks[FLIGHT]
                marks[FLIGHT] = -1
                touch(group_of[flown], flown, False)
            start = max(clock[LINK_FREE], clock[ISSUED])
            if start >= until:
                return
            wanted = -1
            while marks[NEXT] < marks[LAST]:
                wanted = np.int64(prefetches[marks[NEXT]])
                marks[NEXT] += 1
                if slot_of[0, wanted] < 0:
                    break
                wanted = -1
            if wanted < 0:
                return
            group = group_of[wanted]
            slot = victim_of(group, PLANNED >> 1)
            if slot < 0:
                counts[SKIPPED, layer_of[wanted]] += 1
                continue
            source = source_of(wanted)
            put(source, group, slot, wanted)
            keys[0, group, slot] = IN_TRANSIT
            stamps[PLANNED_AT, group, slot] = marks[PLAN]
            prefetched_unused[wanted] = True
            counts[COPIES, layer_of[wanted]] += 1
            marks[FLIGHT], marks[FLIGHT_SOURCE] = wanted, source
            clock[FLIGHT_BEGIN] = start
            clock[FLIGHT_END] = clock[LINK_FREE] = start + transfer_seconds[source]
            clock[PREFETCH_BUSY] += transfer_seconds[source]

    layers = len(non_expert_seconds)
    for step in range(len(step_seconds)):
        began = clock[CLOCK]
        new_step()
        issue(step, 0)
        for layer in range(layers):
            clock[CLOCK] += non_expert_seconds[layer]
            first, last = accesses_of_layer[step * layers + layer], accesses_of_layer[step * layers + layer + 1]
            for access in range(first, last):
                advance(clock[CLOCK])
                begin, end, final = starts[access], starts[access + 1], access == last - 1
                now = clock[CLOCK]
                group = group_of[ids[begin]]
                marks[ACCESS] += 1

                # What is at hand.
                time, done, missing, late = now, 0, 0, -1
                for request in range(begin, end):
                    wanted = ids[request]
                    slot = slot_of[0, wanted]
                    if marks[EVICTION] == BELADY:
                        upcoming[wanted] = following[request]
                    if slot < 0:
                        waiting[missing] = request
                        missing += 1
                        continue
                    stamps[USED_AT, group, slot] = marks[ACCESS]
                    if wanted == marks[FLIGHT]:
                        late = request
                        continue
                    counts[PREFETCHED if prefetched_unused[wanted] else KEPT, layer] += 1
                    prefetched_unused[wanted] = False
                    touch(group, wanted, True)
                    time += expert_seconds[tokens[request]]
                    computed[done], ended[done] = wanted, time
                    done += 1
                busy = time - now

                # What is under way: waited for, or out of the way of what is missing.
                link, paused = now, False
                if late >= 0:
                    wanted = ids[late]
                    link = clock[FLIGHT_END]
                    counts[LATE, layer] += 1
                    prefetched_unused[wanted] = False
                    marks[FLIGHT] = -1
                    touch(group, wanted, True)
                    time = max(time, link) + expert_seconds[tokens[late]]
                    busy += expert_seconds[tokens[late]]
                    computed[done], ended[done] = wanted, time
                    done += 1
                elif marks[FLIGHT] >= 0:
                    flown = marks[FLIGHT]
                    wrong = final and layer_of[flown] == layer
                    link = clock[FLIGHT_END]
                    if missing > 0 or wrong:
                        chunks = max(1.0, np.ceil((now - clock[FLIGHT_BEGIN]) / clock[CHUNK]))
                        link = min(link, clock[FLIGHT_BEGIN] + chunks * clock[CHUNK])
                        clock[LINK_FREE] = link
                        paused = link < clock[FLIGHT_END]
                        if paused and wrong:
                            waste(flown)
                            _remove(slots, keys, stamps, filled, slot_of, 0, group, slot_of[0, flown])
                            demote(group, flown)

                # What is missing.
                recycled = 0
                for number in range(missing):
                    request = waiting[number]
                    wanted = np.int64(ids[request])
                    slot, start = victim_of(group, IN_USE), link
                    if slot < 0:
                        slot, start = np.int64(slot_of[0, computed[recycled]]), max(link, ended[recycled])
                        recycled += 1
                    source = source_of(wanted)
                    put(source, group, slot, wanted)
                    stamps[USED_AT, group, slot] = marks[ACCESS]
                    touch(group, wanted, True)
                    counts[MISSED, layer] += 1
                    link = start + transfer_seconds[source]
                    clock[DEMAND_BUSY] += transfer_seconds[source]
                    time = max(time, link) + expert_seconds[tokens[request]]
                    busy += expert_seconds[tokens[request]]
                    computed[done], ended[done] = wanted, time
                    done += 1

                if marks[FLIGHT] < 0:
                    clock[LINK_FREE] = link
                elif paused:
                    clock[FLIGHT_END] += link - clock[LINK_FREE]
                    clock[FLIGHT_BEGIN] = clock[FLIGHT_END] - transfer_seconds[marks[FLIGHT_SOURCE]]
                    clock[LINK_FREE] = clock[FLIGHT_END]
                else:
                    clock[LINK_FREE] = max(link, clock[FLIGHT_END])
                sums[STALL, layer] += time - now - busy
                clock[CLOCK] = time

                if access == first:
                    clock[CLOCK] = now
                    issue(step, layer + 1)
                    clock[CLOCK] = time
        advance(clock[CLOCK])
        step_seconds[step] = clock[CLOCK] - began
