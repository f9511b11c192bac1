"""The most memory that a pass takes beside its cache: counted in tensors, or by the allocator of a GPU."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prophet_moe.collect.memory.subject import Subject


class LiveTensors(TorchDispatchMode):
    """Bytes of the storages that operators have made on one device and that still live: now, and at most.

    What an operator allocates and frees inside is not seen.
    """

    def __init__(self, device: torch.device) -> None:
        """Count from nothing: tensors made before are not seen."""
        super().__init__()
        self.device, self.now, self.peak = device, 0, 0
        self._living: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator, and count the storages of its results that were not given to it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = {storage._cdata for storage in self._storages((args, kwargs))}
        for storage in self._storages(result):
            if storage._cdata not in given and storage._cdata not in self._living:
                self._add(storage._cdata, storage.nbytes(), storage)
        return result

    def _storages(self, tree: Any) -> list[torch.UntypedStorage]:
        leaves = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
        return [leaf.untyped_storage() for leaf in leaves if leaf.device.type == self.device.type]

    def _add(self, key: int, size: int, storage: torch.UntypedStorage) -> None:
        def drop(_reference: weakref.ref) -> None:
            del self._living[key]
            self.now -= size

        self._living[key] = weakref.ref(storage, drop)
        self.now += size
        self.peak = max(self.peak, self.now)


def live_peak(subject: Subject, prepare: Callable[[], dict[str, Any]]) -> int:
    """Return the bytes of tensors that live at most during a pass, less those that live after it: its cache."""
    with LiveTensors(subject.device) as live:
        inputs = prepare()
        live.peak = live.now
        inputs["past_key_values"] = subject.run(inputs)
        return live.peak - live.now


def allocator_peak(subject: Subject, prepare: Callable[[], dict[str, Any]]) -> int:
    """Return the same as PyTorch's CUDA allocator counts it, which sees what kernels allocate, too."""
    inputs = prepare()
    torch.cuda.reset_peak_memory_stats()
    inputs["past_key_values"] = subject.run(inputs)
    return torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
