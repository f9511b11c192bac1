"""Measurements of a copy to the device that runs beside compute."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import torch

from prophet_moe.collect import machine
from prophet_moe.collect.hardware.copies import lane
from prophet_moe.collect.hardware.plan import Matmul, OverlapPlan
from prophet_moe.collect.hardware.timing import DTYPE, WARMUP, forked, kernel_columns, random, row
from prophet_moe.collect.measurement import Parts, Rows, seconds


def overlap_parts(plan: OverlapPlan) -> Parts:
    """Return the parts of the overlap measurement, one for each matrix product."""
    return {f"overlap-{case.tokens}x{case.hidden}x{case.inner}": partial(_overlap, plan, case) for case in plan.matmuls}


def _overlap(plan: OverlapPlan, case: Matmul) -> Rows:
    """Return three rows: the copy alone, the products alone, both at once; each on its own stream."""
    on_device, on_host = lane(plan.bytes, "h2d", "pinned")
    left, right = random(case.tokens, case.hidden), random(case.hidden, case.inner)
    product_of_both = torch.empty(case.tokens, case.inner, dtype=DTYPE, device=machine.device())

    def copy() -> None:
        on_device.copy_(on_host, non_blocking=True)

    def compute(matmuls: int) -> None:
        for _ in range(matmuls):
            torch.mm(left, right, out=product_of_both)

    one_copy = statistics.median(seconds(copy, plan.repeats, WARMUP))
    one_matmul = statistics.median(seconds(partial(compute, 1), plan.repeats, WARMUP))
    matmuls = max(1, round(one_copy / one_matmul))
    copying, computing = (torch.cuda.Stream(), copy), (torch.cuda.Stream(), partial(compute, matmuls))
    configuration = (
        {"bytes": plan.bytes, "memory": "pinned"} | asdict(case) | {"matmuls": matmuls} | kernel_columns("eager")
    )
    rows = []
    for work, tasks in (("copy", [copying]), ("compute", [computing]), ("both", [copying, computing])):
        samples = seconds(partial(_at_once, tasks), plan.repeats, WARMUP)
        rows.append(row("overlap", samples, 1, work=work, **configuration))
    return rows


def _at_once(tasks: Sequence[tuple[torch.cuda.Stream, Callable[[], None]]]) -> None:
    with forked([stream for stream, _ in tasks]):
        for stream, task in tasks:
            with torch.cuda.stream(stream):
                task()
