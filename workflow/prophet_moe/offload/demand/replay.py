"""A whole run of a cache on demand: sequences, batched or speculated, before a cache, with the times of a device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.offload.demand.lookups import (
    ADMITTED,
    EVERY_MISS,
    FILLING,
    HIT,
    ORDINARY,
    Admission,
    Asks,
    ByteCache,
    Integers,
    Lookups,
    joined,
    look_up,
)
from prophet_moe.offload.demand.page_cache import Reads, Storage, reads
from prophet_moe.offload.demand.prefill import (
    STREAMS,
    Chunks,
    Prefilled,
    Way,
    Work,
    asked_by_chunks,
    asks_before,
    buffer_slots,
    prefilled,
    require_room,
)
from prophet_moe.offload.demand.speculation import Speculation, speculated
from prophet_moe.offload.demand.times import Costs, Served, serve
from prophet_moe.offload.simulator.batching import ABSENT, LayerAccesses, accesses_of, decode_batches

PERCENTILES = (50, 95, 99)
FIRST_STEPS = 16
"""Decode steps after prompts that are counted by themselves, too."""
NO_OVERHEAD = {"cpu_seconds": None, "background": False, "miss_overhead_seconds": 0.0, "step_overhead_seconds": 0.0}
"""Costs of a device that holds every expert."""


@dataclass(frozen=True)
class Engine:
    """How misses are served. `storage` lies behind the cache, else host memory."""

    cache: ByteCache
    costs: Costs
    bytes_of: Integers
    """(N,): bytes of each expert by id; those of `cache` may be slots."""
    admission: Admission = EVERY_MISS
    storage: Storage | None = None


@dataclass(frozen=True)
class Steps:
    """What is decoded: accesses of the layers, and how many tokens each step yields."""

    accesses: LayerAccesses
    emitted: Integers
    """(T,)."""
    routed: int
    """Choices of all tokens and layers."""
    first: Integers
    """(groups,): the step at which each group of sequences that decode together begins."""

    @cached_property
    def asks(self) -> Asks:
        """Return what the layers need, an ask a layer and step."""
        return Asks(self.accesses.starts, self.accesses.ids.astype(np.int64))


def steps_of(
    choices: NDArray[np.uint16], starts: Integers, experts: int, batch: int, speculation: Speculation | None = None
) -> Steps:
    """Return the steps of sequences, `batch` at a time, or one at a time with drafts."""
    if speculation is None:
        (batches,) = decode_batches(choices, starts, batch, experts, steps=len(choices) + 1)
        emitted = (batches.rows != ABSENT).sum(axis=1)
    else:
        if batch != 1:
            raise UserError("draft", f"got batch {batch}, expected 1: drafts are of one sequence", "Leave one out.")
        batches, emitted = speculated(choices, starts, experts, speculation)
    accesses = accesses_of(batches, deduplicated=True)
    # The first sequence of a group may end before the group does: it is absent then.
    first = np.searchsorted(np.maximum.accumulate(batches.rows[:, 0]), starts[:-1:batch])
    return Steps(accesses, emitted, int(accesses.tokens.sum()), first)


@dataclass(frozen=True)
class Prefill:
    """How the prompts of sequences that decode together are served, before they decode."""

    way: Way
    groups: Sequence[Chunks]
    work: Callable[[Chunks], Work]
    """What a device computes of chunks."""


@dataclass(frozen=True)
class Outcome:
    """What a run found, took and read."""

    steps: Steps
    found: Lookups
    served: Served
    resident: Served
    """The same steps with every expert in the cache."""
    read: Reads | None
    prefilled: Sequence[Prefilled] = ()
    """What the prompts of each group took; empty where none were served."""

    @property
    def first_hits(self) -> float:
        """Return the hit rate of the first steps of each group of sequences."""
        steps = len(self.steps.emitted)
        layers = (len(self.steps.accesses.of_layer) - 1) // steps
        since = np.arange(steps) - self.steps.first[np.searchsorted(self.steps.first, np.arange(steps), "right") - 1]
        requests = np.diff(self.steps.accesses.starts[self.steps.accesses.of_layer[::layers]])
        return float(self.found.hits[np.repeat(since < FIRST_STEPS, requests)].mean())

    def metrics(self) -> dict[str, object]:
        """Return the columns that are reported; milliseconds are per step."""
        milliseconds, requests = 1e3 * self.served.step_seconds, len(self.found.fates)
        rates = {} if self.read is None else {"page_hit_rate": self.read.page_hit_rate}
        return {
            "step_ms_mean": float(milliseconds.mean()),
            **{f"step_ms_p{rank}": float(np.percentile(milliseconds, rank)) for rank in PERCENTILES},
            "tokens_per_step": float(self.steps.emitted.mean()),
            "tokens_per_second": float(self.steps.emitted.sum()) / self.served.seconds,
            "slowdown": self.served.seconds / self.resident.seconds,
            "hit_rate": float(self.found.hits.mean()),
            f"hit_rate_of_first_{FIRST_STEPS}_steps": self.first_hits,
            "requests": requests,
            "routed_requests": self.steps.routed,
            "experts_per_layer_step": requests / (len(self.steps.accesses.of_layer) - 1),
            "admitted": int((self.found.fates == ADMITTED).sum()),
            "copies": self.served.copies,
            "on_cpu": self.served.on_cpu,
            **rates,
            "storage_gb": 0.0 if self.read is None else self.read.storage_bytes / 1e9,
            **self._of_prompts(),
        }

    def _of_prompts(self) -> dict[str, object]:
        if not self.prefilled:
            return {}
        total = {name: sum(getattr(each, name) for each in self.prefilled) for name in Prefilled.__dataclass_fields__}
        return {
            "prefill_s": total["seconds"],
            "prefill_s_per_group": total["seconds"] / len(self.prefilled),
            "prefill_compute_s": total["compute_seconds"],
            "prefill_copy_s": total["copy_seconds"],
            "prefill_tokens": total["tokens"],
            "prefill_chunks": total["chunks"],
            "prefill_copies": total["copies"],
            "prefill_requests": total["requests"],
        }


@dataclass(frozen=True)
class Order:
    """All asks of a run in their order."""

    asks: Asks
    kinds: NDArray[np.uint8]
    """(asks,)."""
    lent: Integers
    """(asks,): slots of each device that are overwritten just before it."""
    counted: NDArray[np.bool_]
    """(requests,): which are of decode steps."""


def with_prompts(
    steps: Steps, before: Asks, prefill: Prefill | None, layers: int, experts: int, devices: int = 1
) -> Order:
    """Return the asks `before`, which fill the cache, and those of decode, each group's prompts before its steps.

    Streamed prompts overwrite slots of each device before anything looks at the cache again.
    """
    decode, accesses = steps.asks, steps.accesses
    ends = accesses.of_layer[np.append(steps.first[1:], len(steps.emitted)) * layers]
    parts, kinds, begin, borrowed = [before], [np.full(len(before.starts) - 1, FILLING, np.uint8)], 0, []
    for group, end in enumerate(ends.tolist()):
        if prefill is not None:
            asks, kind = asks_before(prefill.groups[group], prefill.way, experts)
            if prefill.way in STREAMS and len(prefill.groups[group].tokens):
                borrowed.append(sum(map(len, kinds)))
            parts, kinds = [*parts, asks], [*kinds, kind]
        first, last = decode.starts[begin], decode.starts[end]
        parts.append(Asks(decode.starts[begin : end + 1] - first, decode.ids[first:last]))
        kinds.append(np.full(end - begin, ORDINARY, np.uint8))
        begin = end
    asks, kind = joined(parts), np.concatenate(kinds)
    lent = np.zeros(len(kind), np.int64)
    lent[borrowed] = buffer_slots(experts, devices)
    return Order(asks, kind, lent, np.repeat(kind == ORDINARY, np.diff(asks.starts)))


def run(steps: Steps, engine: Engine, before: Asks, layers: int, prefill: Prefill | None = None) -> Outcome:
    """Replay steps after the asks `before`, which fill the cache and are not counted.

    Prompts pass before each group of sequences decodes, as `prefill` says; without it, none do.
    """
    experts, costs = len(engine.bytes_of) // layers, engine.costs
    if prefill is not None and prefill.way in STREAMS:
        require_room(engine.cache, experts)
    order = with_prompts(steps, before, prefill, layers, experts, costs.devices)
    limits = costs.limits(engine.admission, order.asks.widest)
    lent = order.lent if order.lent.any() else None
    everything = look_up(order.asks, engine.cache, engine.admission, order.kinds, limits, lent, hits_first=True)
    found = Lookups(everything.fates[order.counted], everything.used)
    read, copies, extra = None, None, None
    if engine.storage is not None:
        read = reads(steps.accesses, found, engine.bytes_of, engine.storage, layers)
        copies, extra = read.request_seconds, read.mapped_seconds
    served = serve(steps.accesses, found, costs, copies, extra, experts)
    every = Lookups(np.full(len(found.fates), HIT, np.uint8), found.used)
    resident = serve(steps.accesses, every, replace(costs, **NO_OVERHEAD), experts=experts)
    prompts = [] if prefill is None else _prefilled(prefill, everything.hits, order, costs, experts)
    return Outcome(steps, found, served, resident, read, prompts)


def _prefilled(prefill: Prefill, hits: NDArray[np.bool_], order: Order, costs: Costs, experts: int) -> list[Prefilled]:
    """Return what the prompts of each group take, whose accesses found what `hits` says at their asks."""
    looked = hits[asked_by_chunks(order.kinds, order.asks)]
    found, begin = [], 0
    for chunks in prefill.groups:
        asks, kinds = asks_before(chunks, prefill.way, experts)
        end = begin + int(asked_by_chunks(kinds, asks).sum())
        found.append(prefilled(chunks, prefill.work(chunks), costs, prefill.way, looked[begin:end], experts))
        begin = end
    return found
