"""How long this machine takes: copies, expert FFNs, attention of one token, and a copy beside compute.

`seconds` in hardware.csv is of one call. Of copies on several streams it is of one copy of `bytes` on each of them.
A GPU is timed by events (`clock`), kernels launched one by one (`launch`: eager) and as one CUDA graph (graph).
On a CPU there are no copies between host and device, and no overlap of them with compute.
"""

from functools import partial
from itertools import product
from pathlib import Path

from prophet_moe.collect import machine
from prophet_moe.collect.hardware.copies import copy_parts
from prophet_moe.collect.hardware.kernels import attention_rows, expert_rows
from prophet_moe.collect.hardware.overlap import overlap_parts
from prophet_moe.collect.hardware.plan import KIND, Plan, check
from prophet_moe.collect.measurement import Parts, measure

__all__ = ["Plan", "collect"]


def collect(plan: Plan, folder: Path) -> None:
    """Measure `plan` and write hardware.csv to `folder`; what does not fit in memory is a UserError that names it."""
    check(plan)
    parts: Parts = {}
    if machine.on_gpu():
        parts |= copy_parts(plan.transfers) | overlap_parts(plan.overlap)
    for shape in plan.experts.shapes:
        parts[f"expert_ffn-{shape.model}"] = partial(expert_rows, plan.kernels, shape, plan.experts.tokens)
    for geometry, batch in product(plan.attention.geometries, plan.attention.batches):
        part = partial(attention_rows, plan.kernels, geometry, batch, plan.attention)
        parts[f"attention_decode-{geometry.model}-{batch}"] = part
    measure(folder, KIND, plan, parts)
