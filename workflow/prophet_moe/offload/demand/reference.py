"""The lookups and times of `demand` in plain Python, to be read beside them and to hold them to what they say."""

from collections import OrderedDict
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from prophet_moe.offload.demand.lookups import (
    ADMITTED,
    EVERY_MISS,
    HIT,
    STREAMED,
    Admission,
    Asks,
    ByteCache,
    Integers,
    Lookups,
)
from prophet_moe.offload.demand.times import Costs
from prophet_moe.offload.simulator.batching import LayerAccesses


class Group:
    """One cache of a byte budget; its experts from the least to the most recent."""

    def __init__(self, capacity: int) -> None:
        """Start empty, with a budget in bytes."""
        self.capacity = capacity
        self.bytes_of: OrderedDict[int, int] = OrderedDict()

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
            del self.bytes_of[other]
        if self.used + size > self.capacity:
            return False
        self.bytes_of[expert] = size
        return True


def look_up(
    asks: Asks,
    cache: ByteCache,
    admission: Admission = EVERY_MISS,
    filling: NDArray[np.bool_] | None = None,
    limits: Integers | None = None,
    *,
    hits_first: bool = False,
) -> Lookups:
    """Replay asks one after another, as `lookups.look_up` does."""
    groups = [Group(capacity) for capacity in cache.capacities.tolist()]
    missed: dict[int, int] = {}
    fates = [STREAMED] * len(asks.ids)
    for number, (begin, end) in enumerate(pairwise(asks.starts.tolist())):
        needed = asks.ids[begin:end].tolist()
        found = {expert for expert in needed if expert in groups[cache.group_of[expert]].bytes_of}
        misses, warms = len(needed) - len(found), filling is not None and bool(filling[number])
        allowed = misses if limits is None else int(limits[misses])
        if limits is None and admission.inserts is not None:
            allowed = min(allowed, admission.inserts)
        left = misses if warms else allowed
        order = sorted(range(len(needed)), key=lambda place: hits_first and needed[place] not in found)
        for place in order:
            expert = needed[place]
            group = groups[cache.group_of[expert]]
            if expert in found:
                group.bytes_of.move_to_end(expert)
                fates[begin + place] = HIT
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
