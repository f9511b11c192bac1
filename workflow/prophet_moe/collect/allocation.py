"""Memory of the device and the host: how it is given back, and how PyTorch says that it is short."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from prophet_moe.collect import machine
from prophet_moe.errors import UserError

SIGNS = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "size calculation overflowed")
"""What errors say when memory cannot be had: PyTorch's allocators, the CUDA driver, cuBLAS and cuDNN."""
DEVICE_SIGNS = ("ALLOC_FAILED", "ALLOCATION_FAILED")
"""Signs that tell of the memory of the device, not of the host."""

Made = TypeVar("Made")


def is_lack_of_memory(error: BaseException, also: tuple[str, ...] = ()) -> bool:
    """Return whether `error` says that memory could not be had, in words of SIGNS or `also`."""
    by_message = isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS + also)
    return by_message or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def within_memory(where: str, name: str, make: Callable[[], Made]) -> Made:
    """Return what `make` makes; a lack of memory is a UserError that names `where` and what did not fit."""
    try:
        return make()
    except (RuntimeError, MemoryError) as error:
        if not is_lack_of_memory(error):
            raise
        on_device = isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in DEVICE_SIGNS)
        problem = f"{name} does not fit in the memory of the {'device' if on_device else 'host'}"
        raise UserError(where, problem, "Make it smaller in the plan, or leave it out.") from None


def allocated() -> int:
    """Return the bytes of the GPU that PyTorch has handed out; 0 without a GPU."""
    return torch.cuda.memory_allocated() if machine.on_gpu() else 0


def release() -> None:
    """Give back what no tensor uses: cycles, workspaces of cuBLAS, and the allocator's free blocks."""
    gc.collect()
    if machine.on_gpu():
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
