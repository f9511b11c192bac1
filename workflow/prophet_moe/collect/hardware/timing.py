"""Rows of hardware.csv, and what they are made of: samples on the device, and numbers to compute with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from prophet_moe.collect import machine
from prophet_moe.collect.measurement import spread

DTYPE = torch.bfloat16
"""Type of weights, activations and KV caches."""
WARMUP = 3
"""Samples before the first one that counts."""


def row(measurement: str, samples: Sequence[float], calls: int, clock: str = "", **configuration: Any) -> dict:
    """Return a row from the seconds of samples of `calls` calls each."""
    timed = {"clock": clock or ("event" if machine.on_gpu() else "wall"), "calls_per_sample": calls}
    return {"measurement": measurement} | configuration | timed | spread([sample / calls for sample in samples])


def kernel_columns(launch: str) -> dict[str, str]:
    """Return the columns that all rows with kernels have: the type, and how kernels are launched."""
    return {"dtype": str(DTYPE).removeprefix("torch."), "launch": launch}


def random(*shape: int) -> torch.Tensor:
    """Draw normal numbers, scaled such that a product with their last dimension keeps its magnitude."""
    return torch.randn(shape, dtype=DTYPE, device=machine.device()).mul_(shape[-1] ** -0.5)


@contextmanager
def forked(streams: Sequence[torch.cuda.Stream]) -> Iterator[None]:
    """Run work on `streams` inside this context between what the current stream has before and after it."""
    current = torch.cuda.current_stream()
    for stream in streams:
        stream.wait_stream(current)
    yield
    for stream in streams:
        current.wait_stream(stream)
