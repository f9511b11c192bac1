"""How long the decode loop takes for what it decided: one compute stream, and copies on two that share the link.

As `collect prefetch` queues it: once the choices of a layer are known, its demand copies and the prefetches that it
begins are queued, each stream in order. An expert waits for its copy. A copy waits for the last one to its slot and for
the use of what it overwrites. A prefetch waits for the demand copies of the layer that begins it, but for those into
slots that the layer itself used before. A step ends with its last copy. Of two copies at once each has half of the
link. What the host takes to queue, and what copies take from the memory of the device, is not counted.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prophet_moe.offload.decode_loop.decisions import Copy, Step
from prophet_moe.offload.simulator.simulation import Times

DEMAND, PREFETCH = "demand", "prefetch"
NEVER = float("inf")

Tokens = Sequence[Mapping[int, int]]
"""By layer how many tokens chose each expert, in one step."""


@dataclass(eq=False)
class Transfer:
    """A copy that is queued or under way on the link."""

    left: float
    """Seconds that are left to copy, if the link carried this copy alone."""
    ready: float
    """Time before which the copy does not begin."""
    after: "tuple[Transfer, ...]"
    """Transfers that must end before the copy begins."""
    ended: float = NEVER


class Link:
    """Streams that copy one transfer after another each, and share the link evenly."""

    def __init__(self) -> None:
        """Start idle at time 0, without any stream."""
        self._now = 0.0
        self._streams: dict[str, deque[Transfer]] = defaultdict(deque)

    def queue(self, stream: str, transfer: Transfer) -> None:
        """Queue a transfer behind what `stream` was handed before."""
        self._streams[stream].append(transfer)

    def end(self, transfer: Transfer) -> float:
        """Return when the transfer ends, if nothing more is queued until then."""
        while transfer.ended == NEVER:
            self._advance()
        return transfer.ended

    def drain(self) -> float:
        """Return when everything that is queued has ended."""
        while any(self._streams.values()):
            self._advance()
        return self._now

    def _advance(self) -> None:
        """Go on until a transfer ends or may begin."""
        now, active, least, begins = self._now, [], NEVER, NEVER
        for stream in self._streams.values():
            if stream and all(one.ended <= now for one in stream[0].after):
                head = stream[0]
                if head.ready > now:
                    begins = min(begins, head.ready)
                else:
                    active.append(stream)
                    least = min(least, head.left)
        ends = now + least * len(active) if active else NEVER
        self._now = min(ends, begins)
        for stream in active:
            head = stream[0]
            if ends > begins:
                head.left -= (begins - now) / len(active)
            elif head.left > least:
                head.left -= least
            else:
                head.ended = self._now
                stream.popleft()


def step_seconds(step: Step, tokens: Tokens, times: Times, *, miss_priority: bool) -> float:
    """Return the seconds of one step that starts with idle streams.

    With `miss_priority` demand copies have a stream of their own, else all copies are on one.
    """
    link, arriving = Link(), {}
    streams = {DEMAND: DEMAND if miss_priority else PREFETCH, PREFETCH: PREFETCH}
    (copy_seconds,) = times.transfer_seconds

    def issue(kind: str, copy: Copy, ready: float, after: Iterable[Transfer] = ()) -> Transfer:
        place = (copy.layer, copy.slot)
        before = (arriving[place],) if place in arriving else ()
        transfer = arriving[place] = Transfer(copy_seconds, ready, (*before, *after))
        link.queue(streams[kind], transfer)
        return transfer

    now = 0.0
    for layer, work in enumerate(step):
        now += times.non_expert_seconds[layer]
        missing = [use.copy for use in work.uses if use.copy]
        hits = [use for use in work.uses if not use.copy and (layer, use.slot) in arriving]
        here = {use.expert: arriving[layer, use.slot] for use in hits}
        demanded = {copy.expert: issue(DEMAND, copy, now) for copy in missing if not copy.recycled}
        here |= demanded
        for copy in work.prefetches:
            issue(PREFETCH, copy, now, demanded.values())
        # What these overwrite is not used yet: their copies are ready once it is.
        recycled = {copy.evicted: issue(DEMAND, copy, NEVER) for copy in missing if copy.recycled}
        here |= {copy.expert: recycled[copy.evicted] for copy in missing if copy.recycled}
        for use in work.uses:
            if use.expert in here:
                now = max(now, link.end(here[use.expert]))
            now += times.expert_seconds[tokens[layer][use.expert]]
            if use.expert in recycled:
                recycled[use.expert].ready = now
    return max(now, link.drain())


def tokens_of(choices: np.ndarray) -> list[Tokens]:
    """Return for every step how many tokens chose each expert of each layer, for `choices` (T, B, L, k)."""
    return [
        [dict(zip(*map(np.ndarray.tolist, np.unique(layer, return_counts=True)), strict=True)) for layer in step]
        for step in np.moveaxis(choices, 2, 1)
    ]
