"""Which requests hit: least recently used experts of unequal bytes, within a budget of bytes.

An ask looks up all of its experts before any of them is touched. Then, in the order of the ask or hits first, a hit
becomes the most recent expert of its group, and a miss that is admitted takes that place. It makes room by evicting the
least recent expert that the ask does not need, until it fits; where nothing is left to evict it does not enter, and is
streamed.

`reference.py` says the same in plain Python.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.errors import UserError

Integers = NDArray[np.int64]
STREAMED, ADMITTED, HIT = 0, 1, 2
"""What becomes of a request: it misses and does not enter the cache, it misses and enters, it hits."""
NOBODY = -1
ORDINARY, FILLING, PASSING = 0, 1, 2
"""What an ask does to the cache: misses enter as the admission says; all of them enter, whatever it says, to fill the
cache before the steps that count; or the ask only looks, and leaves the cache as it is."""


class Asks(NamedTuple):
    """What layers need, one ask after another."""

    starts: Integers
    """(asks + 1,): where the ids of each ask begin."""
    ids: Integers
    """(requests,): ids of the experts, distinct within an ask."""

    @property
    def widest(self) -> int:
        """Return the most experts of one ask."""
        return int(np.diff(self.starts).max(initial=0))


def joined(parts: "list[Asks]") -> Asks:
    """Return the asks of all parts, one after another."""
    offsets = np.cumsum([0, *(len(part.ids) for part in parts)])
    starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
    return Asks(np.concatenate([*starts, offsets[-1:]]), np.concatenate([part.ids for part in parts]).astype(np.int64))


def asks_of(rows: NDArray[np.integer]) -> Asks:
    """Return an ask for each row of ids (asks, k)."""
    count, width = rows.shape
    return Asks(np.arange(count + 1) * width, rows.astype(np.int64).ravel())


@dataclass(frozen=True)
class Admission:
    """Which misses of an ask enter the cache."""

    inserts: int | None = None
    """Most misses of a layer and step that enter; None for all."""
    after: int = 1
    """The miss from which on an expert may enter, counted since it last left: 2 for engines that wait for a second."""

    def __post_init__(self) -> None:
        """Refuse numbers that no engine has with a UserError."""
        if self.inserts is not None and self.inserts < 0:
            raise UserError("inserts", f"got {self.inserts}, expected at least 0", "Correct it.")
        if self.after < 1:
            raise UserError("admit_after", f"got {self.after}, expected at least 1", "Correct it.")

    def limits(self, widest: int) -> Integers:
        """(widest + 1,): how many of so many misses of an ask may enter."""
        misses = np.arange(widest + 1)
        return misses if self.inserts is None else np.minimum(misses, self.inserts)


@dataclass(frozen=True)
class ByteCache:
    """A cache of experts whose budget is in bytes: one for all layers, or one for each."""

    bytes_of: Integers
    """(N,): bytes of each expert, by id."""
    group_of: Integers
    """(N,): number of the cache that may hold it."""
    capacities: Integers
    """(groups,): bytes that each cache may hold."""
    devices: int = 1
    """Devices that the caches lie on: cache g on g mod devices."""

    def __post_init__(self) -> None:
        """Refuse impossible sizes with a UserError."""
        if len(self.bytes_of) == 0 or self.bytes_of.min() < 1:
            raise UserError("expert bytes", "got an expert without bytes, expected at least 1", "Correct it.")
        if self.capacities.min() < 0:
            raise UserError("capacity", f"got {self.capacities.min()} bytes, expected at least 0", "Correct it.")

    @property
    def in_slots(self) -> bool:
        """Return whether an expert has one byte, so that bytes are slots, which have numbers."""
        return bool((self.bytes_of == 1).all())

    @property
    def first_slots(self) -> Integers:
        """(groups,): number that the first slot of each cache has on its device, where caches lie one after another."""
        shares = self.capacities.reshape(-1, self.devices)
        return (np.cumsum(shares, axis=0) - shares).ravel()

    @property
    def slots_of_device(self) -> int:
        """Return the slots of the device with the fewest."""
        return int(self.capacities.reshape(-1, self.devices).sum(axis=0).min())


def byte_cache(
    layer_bytes: Integers, experts: int, capacity: int, *, per_layer: bool = False, devices: int = 1
) -> ByteCache:
    """Return a cache for layers whose experts have `layer_bytes` (L,) each; `capacity` is of all layers together, or
    of each layer.

    Of several `devices` each has a cache of that capacity for its own experts, e mod devices.
    """
    layers = len(layer_bytes)
    layer_of = np.repeat(np.arange(layers), experts)
    scope = layer_of if per_layer else np.zeros_like(layer_of)
    return ByteCache(
        np.repeat(np.asarray(layer_bytes, np.int64), experts),
        scope * devices + np.tile(np.arange(experts), layers) % devices,
        np.full(devices * (layers if per_layer else 1), capacity, np.int64),
        devices,
    )


def slot_cache(layers: int, experts: int, slots: int, *, per_layer: bool, devices: int = 1) -> ByteCache:
    """Return a cache of equal experts whose budget is in slots: an expert has one byte."""
    return byte_cache(np.ones(layers, np.int64), experts, slots, per_layer=per_layer, devices=devices)


class Lookups(NamedTuple):
    """What became of the requests of a run, and what the caches held in the end."""

    fates: NDArray[np.uint8]
    """(requests,): STREAMED, ADMITTED or HIT."""
    used: Integers
    """(groups,): bytes that each cache holds after the last ask."""

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Return which requests found their expert."""
        return self.fates == HIT


EVERY_MISS = Admission()


def look_up(
    asks: Asks,
    cache: ByteCache,
    admission: Admission = EVERY_MISS,
    kinds: NDArray[np.uint8] | None = None,
    limits: Integers | None = None,
    lent: Integers | None = None,
    *,
    hits_first: bool = False,
) -> Lookups:
    """Replay asks against an empty cache; `kinds` (asks,) are ORDINARY, FILLING or PASSING, else all ordinary.

    `limits` (widest + 1,) replaces how many misses of an ask may enter, by the number of its misses. `lent` (asks,)
    slots of each device, those of the lowest numbers, are overwritten by something else just before an ask: whatever
    they held is lost, and they are the first to be filled again. `hits_first`: an ask touches its hits before its
    misses, as the simulator with a clock does; else all in their order, as BigMoeOnEdge does.
    """
    limits = admission.limits(asks.widest) if limits is None else limits
    fates, used = np.zeros(len(asks.ids), np.uint8), np.zeros(len(cache.capacities), np.int64)
    kinds = np.zeros(len(asks.starts) - 1, np.uint8) if kinds is None else kinds
    if lent is not None and not cache.in_slots:
        raise UserError("lent slots", "got experts of unequal bytes, which have no slots", "Give the cache in slots.")
    tracked = 0 if lent is None else int(cache.capacities.sum())
    lent = np.zeros(len(asks.starts) - 1, np.int64) if lent is None else np.asarray(lent, np.int64)
    slots = np.full(tracked, NOBODY), np.cumsum(cache.capacities) - cache.capacities, cache.first_slots, lent
    rules = np.asarray(limits, np.int64), admission.after, kinds, hits_first
    _look_up(*asks, cache.bytes_of, cache.group_of, cache.capacities, *rules, *slots, fates, used)
    return Lookups(fates, used)


def warm_start(popularity: NDArray[np.floating], cache: ByteCache) -> Asks:
    """Return asks that leave the most chosen experts in each cache, the most chosen as if used last.

    `popularity` (L, E) is how often each expert was chosen, of experts that were never chosen in the order of their
    ids. An engine that warms its cache by its prefill holds about the same.
    """
    descending = np.argsort(-popularity.ravel(), kind="stable")
    left = cache.capacities.copy()
    chosen = []
    for expert in descending.tolist():
        group = cache.group_of[expert]
        if cache.bytes_of[expert] <= left[group]:
            left[group] -= cache.bytes_of[expert]
            chosen.append(expert)
    return asks_of(np.array(chosen[::-1], np.int64).reshape(-1, 1))


@njit(cache=True)
def _look_up(
    starts,
    ids,
    bytes_of,
    group_of,
    capacities,
    limits,
    after,
    kinds,
    hits_first,
    holders,
    places,
    first_slots,
    lent,
    fates,
    used,
):
    count, groups = len(bytes_of), len(capacities)
    # A ring for each group: id `count + group` stands between its most and its least recent expert.
    newer, older = np.arange(count + groups), np.arange(count + groups)
    held, asked = np.zeros(count, np.bool_), np.full(count, NOBODY)
    misses = np.zeros(count, np.int64)
    # Who is in which slot, from places[group] on, is known where slots are lent; `lowest` may be free, below is not.
    slot_of, lowest = np.zeros(count, np.int64), np.zeros(groups, np.int64)
    for ask in range(len(starts) - 1):
        begin, end = starts[ask], starts[ask + 1]
        if lent[ask] > 0:
            for group in range(groups):
                for slot in range(min(lent[ask] - first_slots[group], capacities[group])):
                    gone = holders[places[group] + slot]
                    if gone != NOBODY:
                        newer[older[gone]], older[newer[gone]] = newer[gone], older[gone]
                        held[gone] = False
                        used[group] -= bytes_of[gone]
                        holders[places[group] + slot] = NOBODY
                    lowest[group] = 0
        candidates = 0
        for request in range(begin, end):
            wanted = ids[request]
            if held[wanted]:
                fates[request] = HIT
            else:
                candidates += 1
        if kinds[ask] == PASSING:
            continue
        for request in range(begin, end):
            asked[ids[request]] = ask
            misses[ids[request]] += fates[request] != HIT
        filling = kinds[ask] == FILLING
        left = candidates if filling else limits[candidates]
        for turn in range(2 if hits_first else 1):
            for request in range(begin, end):
                if hits_first and (fates[request] == HIT) != (turn == 0):
                    continue
                wanted = ids[request]
                group = group_of[wanted]
                ring = count + group
                if fates[request] == HIT:
                    newer[older[wanted]], older[newer[wanted]] = newer[wanted], older[wanted]
                else:
                    if left == 0 or (not filling and misses[wanted] < after) or bytes_of[wanted] > capacities[group]:
                        continue
                    victim = newer[ring]
                    while victim != ring and used[group] + bytes_of[wanted] > capacities[group]:
                        following = newer[victim]
                        if asked[victim] != ask:
                            newer[older[victim]], older[following] = following, older[victim]
                            held[victim] = False
                            used[group] -= bytes_of[victim]
                            if len(holders) > 0:
                                holders[places[group] + slot_of[victim]] = NOBODY
                                lowest[group] = min(lowest[group], slot_of[victim])
                        victim = following
                    if used[group] + bytes_of[wanted] > capacities[group]:
                        continue
                    fates[request] = ADMITTED
                    held[wanted] = True
                    misses[wanted] = 0
                    used[group] += bytes_of[wanted]
                    left -= 1
                    if len(holders) > 0:
                        while holders[places[group] + lowest[group]] != NOBODY:
                            lowest[group] += 1
                        slot_of[wanted] = lowest[group]
                        holders[places[group] + lowest[group]] = wanted
                last = older[ring]
                newer[last], older[wanted] = wanted, last
                newer[wanted], older[ring] = ring, wanted
