"""Layouts of a model over several GPUs: every one that engines accept, and the most expert slots in it.

What each GPU of a layout holds is counted by `capacity.several_gpus`.
"""

from bisect import bisect_left
from collections.abc import Iterator

from prophet_moe.capacity.several_gpus import Spread, check_spread
from prophet_moe.catalog.architecture import Architecture
from prophet_moe.errors import UserError
from prophet_moe.params.sharding import Parallelism
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import GIB, MIB

NODE = 8
"""GPUs of one machine, which share their fast links: tensor parallelism stays within it."""
TENSOR = (1, 2, 4, 8)
"""Numbers of GPUs that share the matrices of a layer."""


def layouts(arch: Architecture, gpus: int) -> list[Parallelism]:
    """Return every way to spread a model over `gpus` GPUs that engines accept: products of tp, dp and pp.

    Tensor-parallel GPUs lie in one machine. They split experts, or hold whole ones. Copies of attention always share
    whole experts: their GPUs are expert-parallel. Fewer experts than GPUs, heads that do not divide, and stages of an
    encoder-decoder are left out.
    """
    if gpus < 1:
        raise UserError("gpus", f"got {gpus}, expected at least 1", "Correct it.")
    return [over for over in _products(gpus, bool(arch.moe)) if _accepted(arch, over)]


def _products(gpus: int, has_experts: bool) -> Iterator[Parallelism]:
    for tensor in TENSOR:
        stages, left = divmod(gpus, tensor)
        if left or tensor > NODE:
            continue
        for data in range(1, stages + 1):
            if stages % data:
                continue
            over = tensor * data
            if data == 1:
                yield Parallelism(tensor, stages)
            if over > 1 and has_experts:
                yield Parallelism(tensor, stages // data, over, data)


def _accepted(arch: Architecture, over: Parallelism) -> bool:
    try:
        check_spread(arch, over, over.expert > 1)
    except UserError:
        return False
    return True


def with_communication(scenario: Scenario, over: Parallelism, gib: float) -> Scenario:
    """Return a scenario whose workspace has the buffers of communication libraries on each of several GPUs, in GiB.

    An engine has a term for them, which takes the place of the workspace.
    """
    if over.gpus == 1:
        return scenario
    return scenario.model_copy(update={"workspace_mib": scenario.workspace_mib + gib * GIB / MIB})


def most_slots(held: Spread, batch: int, context: int) -> int | None:
    """Return the most slots per layer on every GPU that leave room for `context`; None where one leaves none."""

    def too_many(slots: int) -> bool:
        return held.load(batch, slots).context("prophet") < context

    return bisect_left(range(1, held.local_experts + 1), True, key=too_many) or None
