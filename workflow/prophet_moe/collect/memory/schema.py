"""Rows of memory.csv, and what they say of the device and of what does not fit."""

from collections.abc import Callable
from typing import Any

import torch

from prophet_moe.collect import allocation, machine
from prophet_moe.collect.measurement import Rows

COLUMNS = (
    *("model", "layers", "dtype", "attention", "experts", "measurement", "phase", "method"),
    *("batch", "tokens", "value", "value_low", "repeats"),
)
"""Columns of memory.csv. `value` is the largest of `repeats` measured values, and `value_low` the smallest."""
LIBRARY_SIGNS = ("CUBLAS_STATUS_NOT_INITIALIZED", "unable to find an engine")
"""What cuBLAS and cuDNN also say when memory is short, and of a kernel that they do not have."""
MESSAGE_CHARACTERS = 200
"""Characters of an error that a row keeps."""


def row(measurement: str, value: float | None, phase: str, method: str, **where: int) -> dict[str, Any]:
    """Return a row: a value of a measurement, the phase it was taken in, and how."""
    given = {"measurement": measurement, "value": value, "phase": phase, "method": method}
    return dict.fromkeys(COLUMNS) | given | where


def device_rows(phase: str) -> Rows:
    """Describe the memory of a GPU: in all, free, reserved and allocated by PyTorch, and used by anything else."""
    if not machine.on_gpu():
        return []
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    reserved = torch.cuda.memory_reserved()
    driver = {"device_bytes": total, "free_bytes": free, "context_overhead_bytes": total - free - reserved}
    allocator = {"reserved_bytes": reserved, "allocated_bytes": allocation.allocated()}
    rows = [row(name, value, phase, "driver") for name, value in driver.items()]
    return rows + [row(name, value, phase, "allocator") for name, value in allocator.items()]


def attempted(phase: str, make: Callable[[], Rows], **where: int) -> Rows:
    """Return the rows that `make` measures, or one row that says why there are none, so that the rest goes on."""
    if machine.on_gpu():
        torch.cuda.reset_peak_memory_stats()
    try:
        return make()
    except RuntimeError as error:
        return [refusal(error, torch.cuda.max_memory_allocated() if machine.on_gpu() else None, phase, **where)]


def refusal(error: RuntimeError, value: int | None, phase: str, **where: int) -> dict[str, Any]:
    """Return the row for what does not fit, with the bytes that it needs at least, or for what failed otherwise."""
    message = " ".join(str(error).split())[:MESSAGE_CHARACTERS]
    return row("does_not_fit" if is_lack_of_memory(error) else "failed", value, phase, message, **where)


def is_lack_of_memory(error: RuntimeError) -> bool:
    """Return whether `error` says that the machine ran out of memory."""
    return allocation.is_lack_of_memory(error, LIBRARY_SIGNS)
