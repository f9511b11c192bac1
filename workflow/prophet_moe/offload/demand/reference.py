"""The lookups and times of `demand` in plain Python, to be read beside them and to hold them to what they say."""

from collections import OrderedDict
from itertools import count, pairwise

import numpy as np
from numpy.typing import NDArray

from prophet_moe.offload.demand.lookups import (
    ADMITTED,
    EVERY_MISS,
    FILLING,
    HIT,
    PASSING,
    STREAMED,
    Admission,
    Asks,
    ByteCache,
    Integers,
    Lookups,
)
from prophet_moe.offload.demand.prefill import BUFFERS
from prophet_moe.offload.demand.times import Costs, Floats
from prophet_moe.offload.simulator.batching import LayerAccesses


class Group:
    """One cache of a byte budget; its experts from the least to the most recent."""

    def __init__(self, capacity: int) -> None:
        """Start empty, with a budget in bytes."""
        self.capacity = capacity
        self.bytes_of: OrderedDict[int, int] = OrderedDict()
        self.slot_of: dict[int, int] = {}

    @property
    def used(self) -> int:
        """Return the bytes that it holds."""
        return sum(self.bytes_of.values())

    def admit(self, expert: int, size: int, needed: set[int]) -> bool:
        """Put an expert in, and evict the least recent ones that are not needed; return whether it found room."""
        if size > self.capacity:
            return False
        for other in [other for other in self.bytes_of if other not in needed]:
            if self.used + size <= self.capacity:
                break
            self.drop(other)
        if self.used + size > self.capacity:
            return False
        self.bytes_of[expert] = size
        taken = set(self.slot_of.values())
        self.slot_of[expert] = next(slot for slot in count() if slot not in taken)
        return True

    def drop(self, expert: int) -> None:
        """Forget an expert and free its slot."""
        del self.bytes_of[expert], self.slot_of[expert]

    def lend(self, slots: int) -> None:
        """Lose what the first slots hold."""
        for expert in [expert for expert, slot in self.slot_of.items() if slot < slots]:
            self.drop(expert)


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
    """Replay asks one after another, as `lookups.look_up` does."""
    groups = [Group(capacity) for capacity in cache.capacities.tolist()]
    missed: dict[int, int] = {}
    fates = [STREAMED] * len(asks.ids)
    for number, (begin, end) in enumerate(pairwise(asks.starts.tolist())):
        for group, first in zip(groups, cache.first_slots.tolist(), strict=True):
            group.lend(0 if lent is None else int(lent[number]) - first)
        needed = asks.ids[begin:end].tolist()
        kind = None if kinds is None else int(kinds[number])
        found = {expert for expert in needed if expert in groups[cache.group_of[expert]].bytes_of}
        misses, warms = len(needed) - len(found), kind == FILLING
        allowed = misses if limits is None else int(limits[misses])
        if limits is None and admission.inserts is not None:
            allowed = min(allowed, admission.inserts)
        left = misses if warms else allowed
        order = sorted(range(len(needed)), key=lambda place: hits_first and needed[place] not in found)
        for place in order:
            expert = needed[place]
            group = groups[cache.group_of[expert]]
            if expert in found:
                if kind != PASSING:
                    group.bytes_of.move_to_end(expert)
                fates[begin + place] = HIT
                continue
            if kind == PASSING:
                continue
            missed[expert] = missed.get(expert, 0) + 1
            may = left > 0 and (warms or missed[expert] >= admission.after)
            entered = may and group.admit(expert, int(cache.bytes_of[expert]), set(needed))
            if entered:
                fates[begin + place] = ADMITTED
                left -= 1
                missed[expert] = 0
    return Lookups(np.array(fates, np.uint8), np.array([group.used for group in groups], np.int64))


def step_seconds(accesses: LayerAccesses, found: Lookups, costs: Costs, experts: int = 1) -> list[float]:
    """Return the seconds of each step, as `times.serve` does."""
    layers, seconds = len(costs.non_expert_seconds), []
    fates, tokens = found.fates.tolist(), accesses.tokens.tolist()
    devices = range(costs.devices)
    for first in range(0, len(accesses.of_layer) - 1, layers):
        now, background = costs.step_overhead_seconds, [0.0 for _ in devices]
        for layer in range(layers):
            now += float(costs.non_expert_seconds[layer])
            copy = float(costs.copy_seconds[layer]) + costs.miss_overhead_seconds
            cpu = 0.0 if costs.cpu_seconds is None else float(costs.cpu_seconds[layer])
            for ask in range(accesses.of_layer[first + layer], accesses.of_layer[first + layer + 1]):
                requests = range(accesses.starts[ask], accesses.starts[ask + 1])
                ended = []
                for device in devices:
                    own = [each for each in requests if int(accesses.ids[each]) % experts % costs.devices == device]
                    ended.append(
                        now + sum(float(costs.expert_seconds[tokens[each]]) for each in own if fates[each] == HIT)
                    )
                    entered = [each for each in own if fates[each] == ADMITTED]
                    missed = [each for each in own if fates[each] != HIT]
                    if costs.background:
                        background[device] += copy * len(entered)
                        continue
                    for number, each in enumerate(missed if costs.cpu_seconds is None else entered, 1):
                        arrived = now + number * copy
                        ended[device] = max(ended[device], arrived) + float(costs.expert_seconds[tokens[each]])
                waiting = (STREAMED, ADMITTED) if costs.background else (STREAMED,)
                on_cpu = 0 if costs.cpu_seconds is None else sum(fates[each] in waiting for each in requests)
                now = max(*ended, now + cpu * on_cpu)
        seconds.append(max(now, *background))
    return seconds


def stream_seconds(other: Floats, expert: Floats, copies: Floats) -> list[float]:
    """Return the seconds of each chunk whose layers are streamed whole, as `prefill.streamed` does.

    `other`, `expert` (C, L) are what a layer computes before and after its experts have arrived, `copies` (C, L) what
    they take to cross the link. Link and device are told what to do next by the buffers: empty, or full.
    """
    return [_streamed(*rows) for rows in zip(other.tolist(), expert.tolist(), copies.tolist(), strict=True)]


def _streamed(other: list[float], expert: list[float], copies: list[float]) -> float:
    layers = len(copies)
    buffers = {buffer: {"free_at": 0.0} for buffer in range(BUFFERS)}
    link_free = device_free = 0.0
    copied = computed = 0
    while computed < layers:
        buffer = buffers[copied % BUFFERS]
        if copied < layers and "free_at" in buffer:
            link_free = max(link_free, buffer.pop("free_at")) + copies[copied]
            buffer["full_at"] = link_free
            copied += 1
            continue
        buffer = buffers[computed % BUFFERS]
        device_free = max(device_free + other[computed], buffer.pop("full_at")) + expert[computed]
        buffer["free_at"] = device_free
        computed += 1
    return device_free
