"""Which GPU of the catalogue a device is, by its name and memory; needs neither pydantic nor PyTorch."""

import re

MEMORY_TOLERANCE = 0.1
"""Share by which the memory of the device measured may differ from that of the GPU: drivers reserve some, variants of
one product (A100 40 GB and 80 GB, MIG slices) differ by more."""


def words_of(gpu: str, device_words: str | None) -> str:
    """Return the words that the name of a device has where it is `gpu`: `device_words`, else the name's first word."""
    return device_words or gpu.split("-")[0]


def is_named(device: str, words: str) -> bool:
    """Return whether the name of a `device`, as the driver tells it, has all of the `words`."""
    return set(words.lower().split()) <= set(re.split("[^a-z0-9]+", device.lower()))


def has_memory(size: object, expected: int) -> bool:
    """Return whether `size`, bytes as a device tells them, is about as much as `expected`."""
    return isinstance(size, int) and abs(size - expected) <= MEMORY_TOLERANCE * expected
