"""The machine that collects: which device, and what its results must name."""

import os
import platform
import subprocess
from importlib import metadata
from typing import Any

import torch


def device() -> torch.device:
    """Return the first CUDA device where there is one, else the CPU."""
    return torch.device("cuda", 0) if on_gpu() else torch.device("cpu")


def on_gpu() -> bool:
    """Return whether there is a CUDA device, on which everything runs."""
    return torch.cuda.is_available()


def described() -> dict[str, Any]:
    """Return hardware and versions behind a measurement."""
    versions = {name: metadata.version(name) for name in ("numpy", "pyarrow", "tokenizers", "torch", "transformers")}
    host = {"cpu": _cpu_name(), "cpus": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    host |= {**versions, "cpu_threads": torch.get_num_threads()}
    if not on_gpu():
        return {"device": "cpu"} | host
    properties = torch.cuda.get_device_properties(0)
    asked = _ask_driver("driver_version", "pcie.link.gen.max", "pcie.link.width.max")
    return {
        "device": properties.name,
        "uuid": str(properties.uuid),
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "driver": asked.pop("driver_version"),
        **asked,
    } | host


def state() -> dict[str, Any]:
    """Return clocks, temperature and power of the GPU just now, or the load of the CPU."""
    if not on_gpu():
        return {"load": os.getloadavg()[0]}
    return _ask_driver("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")


def _ask_driver(*names: str) -> dict[str, str]:
    """Return what nvidia-smi says of the first GPU, by name, with the units; "unknown" where it is not there."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return dict.fromkeys(names, "unknown")
    return dict(zip(names, line.split(", "), strict=True))


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def collector() -> str:
    """Return the name and version of this project, for the metadata of what it records."""
    try:
        return f"prophet-moe {metadata.version('prophet-moe')}"
    except metadata.PackageNotFoundError:
        # A bare CUDA machine runs the collector from the source tree.
        return "prophet-moe, not installed"
