"""Measurements of copies between host and device, and on the device."""

import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice, product
from typing import Any

import torch

from prophet_moe.collect import machine
from prophet_moe.collect.hardware.plan import TransferPlan
from prophet_moe.collect.hardware.timing import WARMUP, forked, row
from prophet_moe.collect.measurement import Parts, Rows, seconds

Lane = tuple[torch.Tensor, torch.Tensor]
"""Target and source of copies on one stream: flat uint8 buffers of the same length."""


def copy_parts(plan: TransferPlan) -> Parts:
    """Return the parts that copy on the device, then by direction, host memory and streams; single copies last."""
    parts: Parts = {"d2d": partial(_copies_on_device, plan)}
    for direction, memory, streams in product(("h2d", "d2h"), plan.memory, plan.streams):
        parts[f"{direction}-{memory}-{streams}"] = partial(_copies_to_or_from_host, plan, direction, memory, streams)
    return parts | {"latency": partial(_latency, plan)}


def _latency(plan: TransferPlan) -> Rows:
    """Return single copies of the smallest size: between events, and from the call to the end of a synchronisation."""
    size, repeats, rows = min(plan.sizes), plan.latency_repeats, []
    for direction, memory in product(("h2d", "d2h"), plan.memory):
        target, source = lane(size, direction, memory)
        copy = partial(target.copy_, source, non_blocking=True)
        for clock, samples in (("event", seconds(copy, repeats, WARMUP)), ("wall", _wall_seconds(copy, repeats))):
            rows.append(row(direction, samples, 1, clock, bytes=size, memory=memory, streams=1))
    return rows


def _wall_seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls of `run` on an idle device, until the host knows that it is done."""
    taken = []
    for _ in range(WARMUP + repeats):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return taken[WARMUP:]


def _copies_to_or_from_host(plan: TransferPlan, direction: str, memory: str, streams: int) -> Rows:
    lanes = [lane(max(plan.sizes), direction, memory) for _ in range(streams)]
    return _copies(plan, direction, lanes, memory=memory)


def _copies_on_device(plan: TransferPlan) -> Rows:
    source = _random_bytes(max(plan.sizes))
    return _copies(plan, "d2d", [(torch.empty_like(source), source)])


def lane(size: int, direction: str, memory: str) -> Lane:
    """Return a function that makes `calls` copies of `size` bytes in every lane, each on a stream of its own."""
    on_device = _random_bytes(size)
    on_host = torch.empty(size, dtype=torch.uint8, pin_memory=memory == "pinned").copy_(on_device)
    return (on_device, on_host) if direction == "h2d" else (on_host, on_device)


def _random_bytes(size: int) -> torch.Tensor:
    return torch.randint(256, (size,), dtype=torch.uint8, device=machine.device())


def _copies(plan: TransferPlan, measurement: str, lanes: list[Lane], **configuration: Any) -> Rows:
    rows = []
    for size in plan.sizes:
        calls = max(1, min(plan.calls_per_sample, plan.bytes_per_sample // size))
        samples = seconds(copying(lanes, size, calls, plan.repeats), plan.repeats, WARMUP)
        rows.append(row(measurement, samples, calls, bytes=size, **configuration, streams=len(lanes)))
    return rows


def copying(lanes: list[Lane], size: int, calls: int, repeats: int) -> Callable[[], None]:
    """Return a function that makes `calls` copies of `size` bytes in every lane, one stream each.

    Every copy of `repeats` calls of it, and of those before, moves other bytes as far as the buffers reach.
    """
    pieces = min(len(lanes[0][0]) // size, (WARMUP + repeats) * calls)
    split = [[buffer[: pieces * size].split(size) for buffer in pair] for pair in lanes]
    rounds = cycle(list(zip(*(zip(*pair, strict=True) for pair in split), strict=True)))

    def on_one_stream() -> None:
        for ((target, source),) in islice(rounds, calls):
            target.copy_(source, non_blocking=True)

    if len(lanes) == 1:
        return on_one_stream
    streams = [torch.cuda.Stream() for _ in lanes]

    def on_streams() -> None:
        with forked(streams):
            for pairs in islice(rounds, calls):
                for stream, (target, source) in zip(streams, pairs, strict=True):
                    with torch.cuda.stream(stream):
                        target.copy_(source, non_blocking=True)

    return on_streams
