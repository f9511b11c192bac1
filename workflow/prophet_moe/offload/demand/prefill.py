"""Prompts before a cache: chunk by chunk and, within a chunk, layer by layer, each for all tokens of the chunk at once.

Six ways, by what becomes of the cache:

* `through`: the experts of a chunk enter the cache, those of the last tokens last. BigMoeOnEdge does so.
* `through_by_id`: they enter one after another by their ids, so that the cache ends with the highest. imp did so.
* `bypass`: the cache serves what it holds and stays as it is; the others are copied and not kept. imp does so since
  kekzl/imp#1408.
* `cpu`: the cache serves what it holds and stays as it is; the CPU computes the others beside the device.
* `stream`: all E experts of a layer cross the link once a chunk, beside the compute of the layer before, into two
  buffers of E slots each, which are the first 2 E slots of the cache. What these held is lost. FreeToken does so.
* `stream_missing`: the same, but what lies beyond the buffers is copied on the device, and only the others cross the
  link. FreeToken does so with `--moe-prefill-hit-d2d`.

All but the streams take what `times.serve` says of a step whose tokens are those of the chunk. A prompt is
chunked by itself, and prompts of sequences that decode together come one after another.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.errors import Fault, UserError
from prophet_moe.offload.demand.lookups import (
    ADMITTED,
    FILLING,
    HIT,
    PASSING,
    STREAMED,
    Asks,
    ByteCache,
    Integers,
    Lookups,
    asks_of,
    joined,
)
from prophet_moe.offload.demand.times import TOLERANCE, Costs, Floats, serve
from prophet_moe.offload.simulator.batching import LayerAccesses

Way = Literal["through", "through_by_id", "stream", "stream_missing", "bypass", "cpu"]
WAYS: tuple[str, ...] = get_args(Way)
STREAMS = ("stream", "stream_missing")
BUFFERS = 2
"""Buffers of a layer's experts each that a stream fills in turn."""


class Chunks(NamedTuple):
    """Chunks of prompts one after another; C chunks, L layers."""

    accesses: LayerAccesses
    """A chunk is a step, and its layer makes one access: to the experts that the chunk's tokens chose, in the order in
    which they were chosen last."""
    tokens: Integers
    """(C,): tokens of each chunk."""
    before: Integers
    """(C,): tokens of the same prompt before it."""


@dataclass(frozen=True)
class Work:
    """What a device computes of chunks, in seconds."""

    other_seconds: Floats
    """(C, L): everything in a layer but its routed experts."""
    expert_seconds: Floats
    """(tokens + 1,): one expert that computes 0 to the tokens of the largest chunk."""
    cpu_expert_seconds: Floats | None = None
    """(tokens + 1,): the same on the CPU; None where it is not known."""


@dataclass(frozen=True)
class Prefilled:
    """What prompts took, in seconds, experts and copies."""

    seconds: float
    compute_seconds: float
    """Seconds that the devices computed, of all devices together."""
    copy_seconds: float
    """Seconds that the links and the host took for copies, of all devices together."""
    copies: int
    """Experts that crossed the link."""
    requests: int
    """Experts that chunks needed, by layer."""
    tokens: int
    chunks: int


def distinct(ids: NDArray[np.integer]) -> tuple[Integers, Integers]:
    """Return the different ids in the order in which each stands last, and how often each stands there."""
    backwards = np.asarray(ids, np.int64).ravel()[::-1]
    values, first, counts = np.unique(backwards, return_index=True, return_counts=True)
    order = np.argsort(-first)
    return values[order], counts[order]


def chunks_of(choices: NDArray[np.uint16], starts: Integers, chunk: int, experts: int) -> Chunks:
    """Return the chunks of prompts of at most `chunk` tokens; `starts` (S + 1,) is where prompts begin in `choices`
    (n, L, k).
    """
    if chunk < 1:
        raise UserError("prefill chunk", f"got {chunk} tokens, expected at least 1", "Correct it.")
    layers = choices.shape[1]
    spans = [
        (first, min(first + chunk, end), first - begin)
        for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
        for first in range(begin, end, chunk)
    ]
    found = [
        distinct(choices[first:end, layer].astype(np.int64) + layer * experts)
        for first, end, _ in spans
        for layer in range(layers)
    ]
    nothing = [np.empty(0, np.int64)]
    accesses = LayerAccesses(
        np.arange(len(found) + 1),
        np.cumsum([0, *(len(ids) for ids, _ in found)]),
        np.concatenate([*nothing, *(ids for ids, _ in found)]).astype(np.uint32),
        np.concatenate([*nothing, *(counts for _, counts in found)]).astype(np.uint32),
    )
    first, end, before = np.array(spans, np.int64).reshape(-1, 3).T
    return Chunks(accesses, end - first, before)


def asks_before(chunks: Chunks, way: Way, experts: int) -> tuple[Asks, NDArray[np.uint8]]:
    """Return what prompts ask of the cache before decode, and the kind of each ask.

    Every access is a PASSING ask, which tells what is there when the layer runs. Through the cache, its experts then
    enter one after another, so that the cache ends with those that were chosen last, or with the highest ids. A stream
    asks nothing, or, of each layer, for all of its experts.
    """
    if way == "stream":
        return Asks(np.zeros(1, np.int64), np.empty(0, np.int64)), np.empty(0, np.uint8)
    if way == "stream_missing":
        layers = (len(chunks.accesses.starts) - 1) // max(1, len(chunks.tokens))
        every = asks_of(np.tile(np.arange(layers * experts).reshape(layers, experts), (len(chunks.tokens), 1)))
        return every, np.full(len(every.starts) - 1, PASSING, np.uint8)
    starts, ids = chunks.accesses.starts, chunks.accesses.ids.astype(np.int64)
    looks = Asks(starts, ids)
    if way in ("bypass", "cpu"):
        return looks, np.full(len(starts) - 1, PASSING, np.uint8)
    parts, kinds = [], []
    for begin, end in pairwise(starts.tolist()):
        own = ids[begin:end]
        entering = np.sort(own) if way == "through_by_id" else own
        parts += [Asks(np.array([0, len(own)]), own), asks_of(entering[:, None])]
        kinds += [PASSING, *[FILLING] * len(own)]
    return joined(parts) if parts else looks, np.array(kinds, np.uint8)


def asked_by_chunks(kinds: NDArray[np.uint8], asks: Asks) -> NDArray[np.bool_]:
    """(requests,): which requests are those of the accesses of chunks, in their order."""
    return np.repeat(kinds == PASSING, np.diff(asks.starts))


def buffer_slots(experts: int, devices: int = 1) -> int:
    """Return the slots of each device that a stream borrows from the cache."""
    return BUFFERS * -(-experts // devices)


def require_room(cache: ByteCache, experts: int) -> None:
    """Refuse with a UserError a cache from which a stream cannot borrow its buffers."""
    where, instead = "stream", "Give it more, or let prompts bypass the cache."
    if not cache.in_slots:
        raise UserError(where, "borrows slots, and experts of unequal bytes have none", "Give the cache in slots.")
    needed = buffer_slots(experts, cache.devices)
    if cache.slots_of_device < needed:
        problem = f"borrows {needed} slots, two layers, of each device; the cache has {cache.slots_of_device}"
        raise UserError(where, problem, instead)


def prefilled(
    chunks: Chunks, work: Work, costs: Costs, way: Way, hits: NDArray[np.bool_] | None, experts: int
) -> Prefilled:
    """Return what prompts take; `hits` tells which experts the cache held of those that `asks_before` names.

    The CPU computes nothing of a prompt but in the way `cpu`: with many tokens an expert takes arithmetic, which
    `costs` does not state and `work` must.
    """
    if way in STREAMS:
        return streamed(chunks, work, costs, experts, hits if way == "stream_missing" else None)
    on_cpu, layer_cpu = None, None
    if way == "cpu":
        if work.cpu_expert_seconds is None:
            raise UserError("cpu", "the arithmetic of the CPU is not stated", "State it, or let prompts be copied.")
        on_cpu, layer_cpu = work.cpu_expert_seconds[chunks.accesses.tokens], np.zeros_like(costs.copy_seconds)
    alone = replace(costs, expert_seconds=work.expert_seconds, cpu_seconds=layer_cpu, background=False)
    missed = ADMITTED if way.startswith("through") else STREAMED
    found = Lookups(np.where(hits, HIT, missed).astype(np.uint8), np.empty(0, np.int64))
    others = work.other_seconds.ravel()
    served = serve(chunks.accesses, found, alone, experts=experts, others=others, on_cpu=on_cpu)
    times = served.seconds, served.compute_seconds, served.copy_seconds
    return Prefilled(*times, served.copies, len(found.fates), *_size(chunks))


def _size(chunks: Chunks) -> tuple[int, int]:
    return int(chunks.tokens.sum()), len(chunks.tokens)


def expert_seconds_of(chunks: Chunks, work: Work, experts: int, devices: int) -> tuple[Floats, float]:
    """(C, L): the seconds in which the slowest device computes its experts of a layer; and the sum of all devices."""
    accesses = chunks.accesses
    shape = work.other_seconds.shape
    seconds = work.expert_seconds[accesses.tokens]
    place = np.repeat(np.arange(len(accesses.starts) - 1), np.diff(accesses.starts))
    owner = accesses.ids.astype(np.int64) % experts % devices
    sums = np.bincount(place * devices + owner, seconds, minlength=shape[0] * shape[1] * devices)
    return sums.reshape(-1, devices).max(axis=1, initial=0).reshape(shape), float(seconds.sum())


def streamed(
    chunks: Chunks, work: Work, costs: Costs, experts: int, held: NDArray[np.bool_] | None = None
) -> Prefilled:
    """Return what prompts take whose chunks stream every layer whole: one copy a layer, of its E experts.

    `held` (C L E,) are on the device already and do not cross the link; that they are copied there is not counted.
    The copy of a layer begins when the link is free and when the layer before the last, whose buffer it takes, is
    computed; the first copy begins with the chunk. The layer computes its experts once it has arrived, and everything
    else before. Of several devices, each streams its own experts.
    """
    expert_seconds, experts_in_all = expert_seconds_of(chunks, work, experts, costs.devices)
    layers, devices = len(costs.copy_seconds), costs.devices
    crossing = np.ones((len(chunks.tokens), layers, experts), bool) if held is None else ~held
    crossing = crossing.reshape(-1, layers, experts)
    of_device = np.stack([crossing[..., device::devices].sum(axis=-1) for device in range(devices)])
    seconds = stream_seconds(
        work.other_seconds,
        expert_seconds,
        costs.copy_seconds * of_device.max(axis=0) + costs.miss_overhead_seconds,
    )
    total = float(seconds.sum()) + costs.step_overhead_seconds * len(seconds)
    compute = float(work.other_seconds.sum()) + experts_in_all
    copying = float((costs.copy_seconds * of_device.sum(axis=0) + costs.miss_overhead_seconds * devices).sum())
    copied, needed = int(crossing.sum()), len(chunks.accesses.ids)
    return checked(Prefilled(total, compute, copying, copied, needed, *_size(chunks)), costs)


def stream_seconds(other: Floats, expert: Floats, copies: Floats) -> Floats:
    """Return the seconds of each chunk (C,) whose layers are streamed whole.

    `other`, `expert` (C, L) are what a layer computes before and after its experts have arrived, `copies` (C, L) what
    they take to cross the link.
    """
    seconds = np.zeros(len(other))
    _stream(other, expert, copies, seconds)
    return seconds


def checked(run: Prefilled, costs: Costs) -> Prefilled:
    """Return a stream if its time is conserved, else a Fault: it lasts at least what a device computes or copies of
    it, and at most all of both, one after another.
    """
    overhead = costs.step_overhead_seconds * run.chunks
    slack = TOLERANCE * (run.compute_seconds + run.copy_seconds + overhead)
    least = max(run.compute_seconds, run.copy_seconds) / costs.devices
    most = run.compute_seconds + run.copy_seconds + overhead
    if not least - slack <= run.seconds <= most + slack:
        raise Fault(f"prefill: {run.seconds} s do not lie between {least} and {most}")
    return run


@njit(cache=True)
def _stream(other_seconds, expert_seconds, copies, seconds):
    chunks, layers = other_seconds.shape
    for chunk in range(chunks):
        device = link = before_last = last = 0.0
        for layer in range(layers):
            link = max(link, before_last) + copies[chunk, layer]
            device = max(device + other_seconds[chunk, layer], link) + expert_seconds[chunk, layer]
            before_last, last = last, device
        seconds[chunk] = device
