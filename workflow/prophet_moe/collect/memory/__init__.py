"""Memory of real architectures with random weights: parameters, caches, activation peaks, longest contexts.

Bytes do not depend on values, so nothing is downloaded: Transformers builds and initialises each model on the device.
"""

from functools import partial
from pathlib import Path

from prophet_moe.collect import machine
from prophet_moe.collect.measurement import Parts, measure
from prophet_moe.collect.memory.model import model_rows
from prophet_moe.collect.memory.plan import KIND, Plan, check
from prophet_moe.collect.memory.schema import device_rows

__all__ = ["Plan", "collect"]


def collect(plan: Plan, folder: Path) -> None:
    """Measure every model of `plan` and write `folder`; a mistake in the plan is a UserError before anything runs."""
    check(plan)
    parts: Parts = {"device": partial(device_rows, "start")} if machine.on_gpu() else {}
    parts |= {name: partial(model_rows, name, plan) for name in plan.models}
    measure(folder, KIND, plan, parts)
