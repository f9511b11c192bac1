"""GPUs: memory, bandwidths and peak compute, each with its source."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, RootModel, model_validator

from prophet_moe.errors import UserError
from prophet_moe.units import GB, GIB
from prophet_moe.validation import StrictModel, inconsistent, read_yaml, validate

LARGEST = 100_000
"""No GPU has so many GB, GB/s or TFLOP/s: a larger number is in another unit, bytes or FLOP/s."""


class GpuSpec(StrictModel):
    """One GPU, from its datasheet and from what CUDA reports."""

    memory_nominal_gb: float = Field(ge=1, le=LARGEST)
    """Memory in the product's name, GB."""
    memory_visible_gib: float = Field(ge=1, le=LARGEST)
    """Memory that CUDA offers to a process, GiB."""
    hbm_gb_per_s: float = Field(ge=1, le=LARGEST)
    """Peak bandwidth of the device memory, GB/s."""
    link_gb_per_s: float = Field(ge=1, le=LARGEST)
    """Peak bandwidth of the host link in one direction, GB/s."""
    peak_tflops: float = Field(ge=1, le=LARGEST)
    """Peak dense 16-bit tensor-core throughput, TFLOP/s."""
    device_words: str | None = None
    """Words of the device's name, where the first word of the GPU's name here is none of them. A measurement of another
    device is refused by them."""
    unified_memory: bool = False
    """Whether the host has no other memory than the device's. Experts that are not resident then lie on a disk."""
    same_chip_as: str | None = None
    """A GPU with the same chip, whose fitted operators (resources/operators/) this one has: as shares of its own
    bandwidth and peak. None where it has operators of its own, or where no such chip was measured."""
    sources: list[str] = Field(min_length=1)
    """Where the numbers come from."""

    @model_validator(mode="after")
    def _visible_below_nominal(self) -> "GpuSpec":
        if self.memory_visible_gib * GIB > 1.1 * self.memory_nominal_gb * GB:
            raise inconsistent(
                ("memory_visible_gib",),
                f"got {self.memory_visible_gib}, expected about the {self.memory_nominal_gb} GB of memory_nominal_gb",
            )
        return self

    def memory_bytes(self, which: str) -> int:
        """Return device memory in bytes: 'nominal' counts the product's GB as 10^9, 'visible' is what CUDA reports."""
        return round(self.memory_nominal_gb * GB) if which == "nominal" else round(self.memory_visible_gib * GIB)


class GpuFile(RootModel[dict[str, GpuSpec]]):
    """The whole of config/gpus.yaml, a mapping from the name of a GPU to its specification."""


def load_gpus(path: Path, names: Sequence[str] | None = None, otherwise: str = "") -> dict[str, GpuSpec]:
    """Read the GPUs of `path`; with `names`, just those, in that order. An unknown name is a UserError.

    `otherwise` is what else the user of an unknown name can do.
    """
    gpus = validate(GpuFile, read_yaml(path), str(path), "Mend that entry.").root
    if names is None:
        return gpus
    for name in names:
        if name not in gpus:
            problem = f"unknown GPU {name!r}, {path} has {', '.join(gpus)}"
            raise UserError("gpus", problem, f"Add it to {path} or correct the name. {otherwise}")
    return {name: gpus[name] for name in names}
