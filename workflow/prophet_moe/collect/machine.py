"""The machine that collects: which device, and what its results must name."""

import os
import platform
from importlib import metadata
from typing import Any

import torch


def device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def described() -> dict[str, Any]:
    """Hardware and versions behind a measurement."""
    versions = {name: metadata.version(name) for name in ("numpy", "pyarrow", "tokenizers", "torch", "transformers")}
    found = {"python": platform.python_version(), **versions, "cpu_threads": torch.get_num_threads()}
    if not torch.cuda.is_available():
        return {"device": "cpu", "cpu": _cpu_name(), "cpus": len(os.sched_getaffinity(0))} | found
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "uuid": str(properties.uuid),
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
    } | found


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def collector() -> str:
    """Name and version of this project, for the metadata of what it records."""
    try:
        return f"prophet-moe {metadata.version('prophet-moe')}"
    except metadata.PackageNotFoundError:
        # A bare CUDA machine runs the collector from the source tree.
        return "prophet-moe, not installed"
