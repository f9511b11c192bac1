"""A whole run of a cache on demand: sequences, batched or speculated, before a cache, with the times of a device."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.offload.demand.lookups import (
    ADMITTED,
    EVERY_MISS,
    HIT,
    Admission,
    Asks,
    ByteCache,
    Integers,
    Lookups,
    joined,
    look_up,
)
from prophet_moe.offload.demand.page_cache import Reads, Storage, reads
from prophet_moe.offload.demand.speculation import Speculation, speculated
from prophet_moe.offload.demand.times import Costs, Served, serve
from prophet_moe.offload.simulator.batching import ABSENT, LayerAccesses, accesses_of, decode_batches

PERCENTILES = (50, 95, 99)
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
    first = np.searchsorted(batches.rows[:, 0], starts[:-1:batch])
    return Steps(accesses, emitted, int(accesses.tokens.sum()), first)


@dataclass(frozen=True)
class Outcome:
    """What a run found, took and read."""

    steps: Steps
    found: Lookups
    served: Served
    resident: Served
    """The same steps with every expert in the cache."""
    read: Reads | None

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
            "requests": requests,
            "routed_requests": self.steps.routed,
            "experts_per_layer_step": requests / (len(self.steps.accesses.of_layer) - 1),
            "admitted": int((self.found.fates == ADMITTED).sum()),
            "copies": self.served.copies,
            "on_cpu": self.served.on_cpu,
            **rates,
            "storage_gb": 0.0 if self.read is None else self.read.storage_bytes / 1e9,
        }


def with_prompts(
    steps: Steps, before: Asks, prompts: Sequence[Asks], layers: int
) -> tuple[Asks, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return all asks in their order, (asks,) which of them only fill the cache, and (requests,) which count."""
    decode, accesses = steps.asks, steps.accesses
    ends = accesses.of_layer[np.append(steps.first[1:], len(steps.emitted)) * layers] if len(prompts) else ()
    parts, fills, begin = [before], [True], 0
    for prompt, end in zip(prompts, ends, strict=True):
        first, last = decode.starts[begin], decode.starts[end]
        parts += [prompt, Asks(decode.starts[begin : end + 1] - first, decode.ids[first:last])]
        fills += [True, False]
        begin = int(end)
    if not len(prompts):
        parts, fills = [*parts, decode], [*fills, False]
    filling = np.repeat(fills, [len(part.starts) - 1 for part in parts])
    counted = np.repeat(~np.array(fills), [len(part.ids) for part in parts])
    return joined(parts), filling, counted


def run(steps: Steps, engine: Engine, before: Asks, layers: int, prompts: Sequence[Asks] = ()) -> Outcome:
    """Replay steps after the asks `before`, which fill the cache and are not counted.

    `prompts` are asks that pass the cache before each group of sequences decodes, not counted either; without any,
    prompts bypass the cache.
    """
    asks, filling, counted = with_prompts(steps, before, prompts, layers)
    limits = engine.costs.limits(engine.admission, asks.widest)
    everything = look_up(asks, engine.cache, engine.admission, filling, limits, hits_first=True)
    found = Lookups(everything.fates[counted], everything.used)
    read, copies, extra = None, None, None
    if engine.storage is not None:
        read = reads(steps.accesses, found, engine.bytes_of, engine.storage, layers)
        copies, extra = read.request_seconds, read.mapped_seconds
    experts = len(engine.bytes_of) // layers
    served = serve(steps.accesses, found, engine.costs, copies, extra, experts)
    every = Lookups(np.full(len(found.fates), HIT, np.uint8), found.used)
    resident = serve(steps.accesses, every, replace(engine.costs, **NO_OVERHEAD), experts=experts)
    return Outcome(steps, found, served, resident, read)
