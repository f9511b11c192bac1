"""Kernel of the simulator: expert accesses replayed against a hierarchy of caches and one copy queue, with a clock.

The device computes the layers of a step in turn. A layer first computes everything but routed experts. Then it accesses
the experts that the router chose. Experts in a slot are computed first, then one under way, then missing ones in the
order of the access, each once its copy has arrived.

* The device computes from the nearest tier. A strategy hands over a plan before the pass and after the access of each
  layer: the experts to prefetch, the most urgent first. A new plan replaces the old one and cancels what was not begun.
  Planned experts that are in a slot are kept: one is evicted only if a missing expert finds no other slot.
* There is one copy queue, in which missing experts go before prefetches. A prefetch under way is paused at the end of
  its chunk and continues afterwards, unless the access waits for it. It is cancelled when (a) its target layer runs
  without needing it and more than one chunk is left, or (b) its slot is needed.
* A copy overwrites, when it begins, the expert of the least key that is not in use. A prefetch spares planned experts
  too, and is skipped if it finds no slot. An expert is in use until the next access. Keys follow the eviction rule.
* If an access needs more experts than there are slots, it is served in several passes: an expert that was computed
  gives its slot to a missing one.
* Farther tiers are exclusive or inclusive. Exclusive: an expert moves nearer, and what it replaces moves one tier away,
  and out of the last; so does what is cancelled. Inclusive: a tier holds all that nearer tiers hold. Farther tiers keep
  what was copied last. Behind them is all of the model.

`reference.py` says the same in plain Python.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

HALF_LIFE = 16.0
"""Steps after which a use weighs half, for rules that count uses (LRFU, Lee et al. 2001)."""
ERA = 1024
"""Steps after which uses are counted in a larger unit, so that sums of weights stay finite. An era is a whole number of
half-lives: the units are powers of two, and what was counted is scaled exactly."""
LEAST = 2.0**-1022
"""No score is less than this. Sixteen eras scale a score of 1 to it: what was used before then is alike."""
LOW_BITS = 16
"""Number of the low bits of a score that its key lacks."""
PLANNED, IN_TRANSIT, IN_USE = 1 << 60, 1 << 61, 1 << 62
"""Added to the key of an expert that is planned, under way or in use, so that it is evicted only if no other is left.
Keys alone are less than half of the least of these in size."""
SCALED = int(ERA / HALF_LIFE) << 52 - LOW_BITS
"""What the change of unit at an era adds to a key."""
SCALE = float(1 << 20)
"""Keys are whole numbers: scores in this many parts."""
NEVER = 1 << 40
"""Number of a next access that never comes."""

# Counts by layer.
KEPT = 0  # accessed experts that are in a slot since an earlier miss or use
PREFETCHED = 1  # accessed experts that a prefetch brought and that were not used since
LATE = 2  # accessed experts whose prefetch is still under way
MISSED = 3  # accessed experts that are missing
COPIES = 4  # prefetches that were begun
WASTED = 5  # prefetches that were begun and never used
SKIPPED = 6  # prefetches that found no slot
COUNTS = 7

# Sums by layer.
STALL = 0  # seconds that the device waited for experts
WASTED_SHARE = 1  # wasted prefetches, those given up by the share that was copied
SUMS = 2

# The clock, seconds but for the last.
NOW = 0  # the time of the device
LINK_FREE = 1  # when the copy queue is free
PLAN_TIME = 2  # when the plan in force was made
COPY_BEGIN = 3  # begin of the prefetch under way
COPY_END = 4  # end of the prefetch under way
CHUNK = 5  # the part of a copy that is not interrupted
DEMAND_BUSY = 6  # how long the queue copied missing experts
PREFETCH_BUSY = 7  # how long the queue copied prefetches
WEIGHT = 8  # what a use in this step adds to a score, for rules that count uses
CLOCKS = 9

# The marks, whole numbers.
IN_FLIGHT = 0  # id of the prefetch under way, -1 if there is none
COPY_SOURCE = 1  # tier that the prefetch under way comes from
ACCESS = 2  # number of the access that is served
PLAN = 3  # number of the plan in force
NEXT = 4  # index of the first prefetch of the plan that was not begun
LAST = 5  # index of the end of the plan
TICK = 6  # uses, ends of prefetches and moves so far
STEP = 7  # steps so far
INCLUSIVE = 8  # whether farther tiers hold what nearer ones hold
EVICTION = 9  # number of the eviction rule, its row in EVICTIONS
COUNTS_USES = 10  # whether the rule counts uses
CLAIRVOYANT = 11  # whether the rule knows the next access
DRAWS = 12  # whether the rule draws one of the experts of least key
MARKS = 13

# Rows of the stamps.
PLANNED_AT = 0  # number of the plan that last named the expert of a slot
USED_AT = 1  # number of the access that last used it


# Keys by rule, of (scores, upcoming, expert, tick, step). They stand in this file, since Numba compiles a cached kernel
# anew when the file that it stands in has changed, and not when another has.


@njit(cache=True)
def _last_use(scores, upcoming, expert, tick, step):
    return tick


@njit(cache=True)
def _weighted_uses(scores, upcoming, expert, tick, step):
    # The bits of numbers above 0 are ordered as the numbers are (IEEE 754), and a power of two adds to them.
    return (np.float64(scores[expert]).view(np.int64) >> LOW_BITS) + step // ERA * SCALED


@njit(cache=True)
def _next_use(scores, upcoming, expert, tick, step):
    return NEVER - upcoming[expert]


@njit(cache=True)
def _popularity(scores, upcoming, expert, tick, step):
    return np.int64(scores[expert] * SCALE)


@njit(cache=True)
def _no_key(scores, upcoming, expert, tick, step):
    return 0


class Eviction(NamedTuple):
    """One eviction rule: of the experts in a full cache, the one of the least key is evicted.

    A rule keeps a score of every expert, which `initial` gives before the run and uses may change. `key` is for
    kernels; `plain_key` says the same in real numbers, of (score, number of the next access, tick), for `reference.py`.
    """

    initial: Callable[[Any], Any]
    """The score of an expert before the run, from the share of the training tokens that chose it."""
    key: Callable[..., int]
    plain_key: Callable[[float, int, int], float]
    counts_uses: bool = False
    """Whether a use at step s adds 2^(s / HALF_LIFE) to the score, so that it weighs half after HALF_LIFE steps."""
    clairvoyant: bool = False
    """Whether the rule goes by the next access of an expert, so that all of a run must be known before it begins."""
    draws: bool = False
    """Whether one of the experts of the least key is drawn at random; else the one in the lowest slot is taken."""


def _share(share):
    return share


def _long_run(share):
    """What the weights of uses add up to in the long run, at one use a step of this share."""
    return share * HALF_LIFE / np.log(2) + 2.0**-20


EVICTIONS = {
    "lru": Eviction(_share, _last_use, lambda score, following, tick: tick),
    "lrfu": Eviction(_long_run, _weighted_uses, lambda score, following, tick: score, counts_uses=True),
    "belady": Eviction(_share, _next_use, lambda score, following, tick: -following, clairvoyant=True),
    "popularity": Eviction(_share, _popularity, lambda score, following, tick: int(score * SCALE)),
    "random": Eviction(_share, _no_key, lambda score, following, tick: 0, draws=True),
}
"""All eviction rules by name; the engine, the simulation and the reference read them here."""
_KEYS = tuple(rule.key for rule in EVICTIONS.values())


def _chosen(kernels, number=0):
    """Join kernels into one that calls the kernel of a given number: Numba compiles no table of functions."""
    kernel, last = kernels[number], number == len(kernels) - 1
    others = kernel if last else _chosen(kernels, number + 1)

    @njit
    def by_number(rule, scores, upcoming, expert, tick, step):
        if last or rule == number:
            return kernel(scores, upcoming, expert, tick, step)
        return others(rule, scores, upcoming, expert, tick, step)

    return by_number


_key_of = _chosen(_KEYS)


@njit(cache=True)
def first_keys(rule, scores, upcoming, chosen):
    """Return the keys (G, C) of the experts `chosen` (G, C) before the run, the first of a group as if used last."""
    keys = np.empty(chosen.shape, np.int64)
    for group in range(chosen.shape[0]):
        for rank in range(chosen.shape[1]):
            keys[group, rank] = _key_of(rule, scores, upcoming, chosen[group, rank], -rank, 0)
    return keys


class State(NamedTuple):
    """What the caches hold, and the clock. M tiers, G groups (a layer each, or one for all), C slots, N = L E ids.

    Kernels take its arrays one by one: Numba would count references to each whenever they were handed over together.
    """

    slots: np.ndarray
    """(M, G, C): id of the expert in each slot."""
    keys: np.ndarray
    """(M, G, C): key of the expert in each slot."""
    stamps: np.ndarray
    """(2, G, C + 1), nearest tier: numbers of the plan that last named the expert and of the access that last used it.

    Slot -1, the last, stands for experts that are in no slot."""
    filled: np.ndarray
    """(M, G): how many slots are taken."""
    capacity: np.ndarray
    """(M,): slots of each group."""
    slot_of: np.ndarray
    """(M, N): slot of each expert in each tier, -1 where it is in none."""
    prefetched_unused: np.ndarray
    """(N,): whether the expert was prefetched and not used since."""
    score: np.ndarray
    """(N,) for the eviction rule. LRFU's is the sum of the weights of all uses, 2^(s / HALF_LIFE) for one at step s,
    in units of what a use at the begin of the era weighs; its key is ordered as the sum is."""
    upcoming: np.ndarray
    """(N,): number of the access that needs the expert next, for Belady's rule."""
    clock: np.ndarray
    marks: np.ndarray


class Rules(NamedTuple):
    """What does not change during a run: times by tier, layer and tokens, and the layer and group of each expert."""

    transfer_seconds: np.ndarray
    """(M + 1,): seconds of a copy from each tier, and from behind the last; the first is 0."""
    non_expert_seconds: np.ndarray
    """(L,): seconds of everything but routed experts."""
    expert_seconds: np.ndarray
    """(B + 1,): seconds of an expert that computes so many tokens."""
    layer_of: np.ndarray
    """(N,) the layer of each expert: to divide by E took longer."""
    group_of: np.ndarray
    """(N,) the group of each expert."""


class Tally(NamedTuple):
    """What happened during a run, by layer: counts, copies by the tier that they came from, and sums."""

    counts: np.ndarray
    """(COUNTS, L): requests by cause, and prefetches."""
    sources: np.ndarray
    """(M + 1, L): copies from each tier."""
    sums: np.ndarray
    """(SUMS, L): seconds of stall, and wasted prefetches."""


def replay(state, rules, tally, accesses, following, planned, step_seconds):
    """Replay decode batches; `following` (requests,) holds the number of the access that needs the same expert next.

    `planned` is a `simulation.PrefetchPlan`. The seconds of step t are written to step_seconds[t].
    """
    experts = len(state.score)
    waiting, computed, ended = np.empty(experts, np.int64), np.empty(experts, np.int64), np.empty(experts)
    _run(*state, *rules, *tally, *accesses, following, *planned, step_seconds, waiting, computed, ended)


@njit(cache=True)
def drawn(tick):
    """Return a pseudorandom number below 2^40 for a tick (Steele, Lea, Flood: SplitMix, 2014)."""
    z = np.uint64(tick) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((z ^ (z >> np.uint64(31))) >> np.uint64(24))


# What farther tiers do, which few runs have, stands outside of _run, where it would be compiled for every call anew.


@njit(cache=True)
def _remove(slots, keys, stamps, filled, slot_of, tier, group, slot):
    """Take the expert in `slot` out of a tier; the expert in the last slot takes its place."""
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
    """Make `wanted` the most recent expert of a farther tier; return the expert that this evicts, or -1."""
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
    """Tell the farther tiers that an expert comes to the nearest one from `source`."""
    if marks[INCLUSIVE]:
        for tier in range(len(capacity) - 1, 0, -1):
            _renew(slots, keys, filled, capacity, slot_of, marks, tier, group, wanted)
    elif source < len(capacity):
        _remove(slots, keys, stamps, filled, slot_of, source, group, slot_of[source, wanted])


@njit(cache=True)
def _demote(slots, keys, filled, capacity, slot_of, marks, group, evicted):
    """Move an expert that left the nearest tier one tier away, and what it replaces farther, if tiers are exclusive."""
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
    """Replay all steps of decode batches; the helpers below share the arrays that are handed over.

    A step: `new_step`; `issue` the plan before the pass; then each layer in turn; then let the copy queue catch up.
    A layer: compute everything but routed experts; then serve each access; after the first, `issue` the layer's plan.
    An access: `advance` the copy queue to now; 1. compute what is in a slot; 2. wait for a needed prefetch under way,
    or pause it; 3. copy and compute what is missing; 4. let a paused prefetch continue; 5. put the new plan in force.
    """

    def new_step():
        """Begin a step: for rules that count uses, one now weighs more than one in the step before."""
        marks[STEP] += 1
        if marks[COUNTS_USES]:
            in_era = marks[STEP] % ERA
            if in_era == 0:
                for expert in range(len(score)):
                    score[expert] = max(score[expert] * np.exp2(-ERA / HALF_LIFE), LEAST)
            clock[WEIGHT] = np.exp2(in_era / HALF_LIFE)

    def touch(group, wanted, used):
        """Give an expert the key that the eviction rule says, once it was used or a prefetch has ended."""
        marks[TICK] += 1
        if marks[COUNTS_USES] and used:
            score[wanted] += clock[WEIGHT]
        key = _key_of(marks[EVICTION], score, upcoming, wanted, marks[TICK], marks[STEP])
        keys[0, group, slot_of[0, wanted]] = key

    def rank_of(group, slot, plan, access):
        """Return the key of the expert in a slot, raised if it is planned or in use; the least is evicted first."""
        planned = PLANNED if stamps[PLANNED_AT, group, slot] == plan else 0
        used = IN_USE if stamps[USED_AT, group, slot] == access else 0
        return keys[0, group, slot] + planned + used

    def drawn_of(group, least, plan, access):
        """Draw one of the slots of the nearest tier whose rank is `least`."""
        equal = 0
        for slot in range(capacity[0]):
            equal += rank_of(group, slot, plan, access) == least
        left, drawn_slot = drawn(marks[TICK]) % equal, np.int64(-1)
        while left >= 0:
            drawn_slot += 1
            left -= rank_of(group, drawn_slot, plan, access) == least
        return drawn_slot

    def victim_of(group, below):
        """Return a free slot of the nearest tier, or that of the least rank if it is below `below`, or -1."""
        if filled[0, group] < capacity[0]:
            return filled[0, group]
        plan, access, least = marks[PLAN], marks[ACCESS], np.int64(below)
        for slot in range(capacity[0]):
            least = min(least, rank_of(group, slot, plan, access))
        if least == below:
            return -1
        if marks[DRAWS]:
            return drawn_of(group, least, plan, access)
        victim = capacity[0]
        for slot in range(capacity[0]):
            victim = min(victim, slot if rank_of(group, slot, plan, access) == least else capacity[0])
        return victim

    def source_of(wanted):
        """Return the nearest farther tier that holds the expert, or the number of tiers if none does."""
        tier = 1
        while tier < len(capacity) and slot_of[tier, wanted] < 0:
            tier += 1
        return tier

    def demote(group, evicted):
        """Move an expert that left the nearest tier to a farther one, if there is any."""
        if evicted >= 0 and len(capacity) > 1:
            _demote(slots, keys, filled, capacity, slot_of, marks, group, evicted)

    def waste(wasted):
        """Count a prefetch as never used; if it is under way, it is paused, and ends here."""
        layer, share = layer_of[wasted], 1.0
        if marks[IN_FLIGHT] == wasted:
            marks[IN_FLIGHT] = -1
            saved = clock[COPY_END] - clock[LINK_FREE]
            clock[PREFETCH_BUSY] -= saved
            if saved > 0:
                share = 1.0 - saved / transfer_seconds[marks[COPY_SOURCE]]
        prefetched_unused[wasted] = False
        counts[WASTED, layer] += 1
        sums[WASTED_SHARE, layer] += share

    def put(source, group, slot, wanted):
        """Copy an expert to a slot of the nearest tier, and demote what was there."""
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
        """Put the plan of a point of the step in force, from now on."""
        marks[PLAN] += 1
        marks[NEXT], marks[LAST] = begins[step, point], ends[step, point]
        clock[PLAN_TIME] = clock[NOW]
        for number in range(marks[NEXT], marks[LAST]):
            wanted = prefetches[number]
            stamps[PLANNED_AT, group_of[wanted], slot_of[0, wanted]] = marks[PLAN]

    def advance(until):
        """Let the copy queue begin and end prefetches of the plan until a time."""
        while True:
            if marks[IN_FLIGHT] >= 0:
                if clock[COPY_END] > until:
                    return
                flown = marks[IN_FLIGHT]
                marks[IN_FLIGHT] = -1
                touch(group_of[flown], flown, False)
            start = max(clock[LINK_FREE], clock[PLAN_TIME])
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
            marks[IN_FLIGHT], marks[COPY_SOURCE] = wanted, source
            clock[COPY_BEGIN] = start
            clock[COPY_END] = clock[LINK_FREE] = start + transfer_seconds[source]
            clock[PREFETCH_BUSY] += transfer_seconds[source]

    # The steps.
    layers = len(non_expert_seconds)
    for step in range(len(step_seconds)):
        began = clock[NOW]
        new_step()
        issue(step, 0)
        for layer in range(layers):
            clock[NOW] += non_expert_seconds[layer]
            first, last = accesses_of_layer[step * layers + layer], accesses_of_layer[step * layers + layer + 1]
            for access in range(first, last):
                advance(clock[NOW])
                begin, end, final = starts[access], starts[access + 1], access == last - 1
                now = clock[NOW]
                group = group_of[ids[begin]]
                marks[ACCESS] += 1

                # 1. Compute experts that are in a slot.
                time, done, missing, late = now, 0, 0, -1
                for request in range(begin, end):
                    wanted = ids[request]
                    slot = slot_of[0, wanted]
                    if marks[CLAIRVOYANT]:
                        upcoming[wanted] = following[request]
                    if slot < 0:
                        waiting[missing] = request
                        missing += 1
                        continue
                    stamps[USED_AT, group, slot] = marks[ACCESS]
                    if wanted == marks[IN_FLIGHT]:
                        late = request
                        continue
                    counts[PREFETCHED if prefetched_unused[wanted] else KEPT, layer] += 1
                    prefetched_unused[wanted] = False
                    touch(group, wanted, True)
                    time += expert_seconds[tokens[request]]
                    computed[done], ended[done] = wanted, time
                    done += 1
                busy = time - now

                # 2. Wait for a prefetch under way that is needed; else pause or cancel it if it is in the way.
                link, paused = now, False
                if late >= 0:
                    wanted = ids[late]
                    link = clock[COPY_END]
                    counts[LATE, layer] += 1
                    prefetched_unused[wanted] = False
                    marks[IN_FLIGHT] = -1
                    touch(group, wanted, True)
                    time = max(time, link) + expert_seconds[tokens[late]]
                    busy += expert_seconds[tokens[late]]
                    computed[done], ended[done] = wanted, time
                    done += 1
                elif marks[IN_FLIGHT] >= 0:
                    flown = marks[IN_FLIGHT]
                    wrong = final and layer_of[flown] == layer
                    link = clock[COPY_END]
                    if missing > 0 or wrong:
                        chunks = max(1.0, np.ceil((now - clock[COPY_BEGIN]) / clock[CHUNK]))
                        link = min(link, clock[COPY_BEGIN] + chunks * clock[CHUNK])
                        clock[LINK_FREE] = link
                        paused = link < clock[COPY_END]
                        if paused and wrong:
                            waste(flown)
                            _remove(slots, keys, stamps, filled, slot_of, 0, group, slot_of[0, flown])
                            demote(group, flown)
                else:
                    # The last chunk of a prefetch that an earlier access cancelled.
                    link = max(now, clock[LINK_FREE])

                # 3. Copy and compute missing experts, one after another.
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

                # 4. Let a paused prefetch continue behind the demand copies.
                if marks[IN_FLIGHT] < 0:
                    clock[LINK_FREE] = link
                elif paused:
                    clock[COPY_END] += link - clock[LINK_FREE]
                    clock[COPY_BEGIN] = clock[COPY_END] - transfer_seconds[marks[COPY_SOURCE]]
                    clock[LINK_FREE] = clock[COPY_END]
                else:
                    clock[LINK_FREE] = max(link, clock[COPY_END])
                sums[STALL, layer] += time - now - busy
                clock[NOW] = time

                # 5. After the first access of a layer, its plan counts from when the access began.
                if access == first:
                    clock[NOW] = now
                    issue(step, layer + 1)
                    clock[NOW] = time
        advance(clock[NOW])
        step_seconds[step] = clock[NOW] - began
