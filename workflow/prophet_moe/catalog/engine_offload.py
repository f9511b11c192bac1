"""How an engine serves experts that are not in GPU memory: its kind, and what its host takes beside the link."""

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, RootModel

from prophet_moe.errors import UserError
from prophet_moe.validation import StrictModel, read_yaml, validate

Kind = Literal["in_graph_gather", "host_managed", "storage", "hybrid"]
"""Who serves a missing expert: a kernel inside the decode graph that reads host memory; the host, which reads the
routing back and copies; storage, read into memory that the cache is part of; or the CPU, which computes some misses
while others are fetched."""
KINDS: tuple[str, ...] = get_args(Kind)


class EngineOffload(StrictModel):
    """What serving misses costs beside their bytes: step = resident + misses (bytes / link + miss) + layers layer."""

    kind: Kind
    """Who brings a missing expert."""
    miss_overhead_us: float = Field(ge=0, le=1e6)
    """Microseconds for each missing expert, beside its bytes over the link."""
    layer_overhead_us: float = Field(ge=0, le=1e6)
    """Microseconds for each MoE layer of a step, whatever misses."""
    cpu_share: float | None = Field(default=None, gt=0, le=1)
    """Share of the bandwidth of host memory at which the CPU computes missing experts; of hybrids alone."""
    overlap_share: float = Field(default=1.0, gt=0, le=1)
    """What link and CPU reach together, over the sum of what each reaches alone: both read the same memory."""
    sources: list[str] = Field(min_length=1)
    """Where the two numbers come from."""
    rows: list[str]
    """Rows of resources/observations/hit_rates.csv that fixed them; none where they were not fitted."""

    def step_overhead_us(self, moe_layers: int) -> float:
        """Return the microseconds of a step that neither the device nor the link explains."""
        return self.layer_overhead_us * moe_layers

    def step_ms(
        self,
        resident_ms: float,
        misses: float,
        expert_mb: float,
        link_gb_per_s: float,
        layers: int,
        cpu_gb_per_s: float = 0.0,
    ) -> float:
        """Return the milliseconds of a step by the affine law; `misses` are of all layers together.

        A hybrid fetches the share q* = link / (link + CPU) of its misses, so that link and CPU end together: a miss
        takes its bytes over the sum of the two rates.
        """
        miss_ms = expert_mb / (link_gb_per_s + cpu_gb_per_s) + self.miss_overhead_us / 1e3
        return resident_ms + misses * miss_ms + self.step_overhead_us(layers) / 1e3


class OffloadFile(RootModel[dict[Kind, EngineOffload]]):
    """The whole of config/offload.yaml: a preset for each kind of engine."""


def load_offload(path: Path) -> dict[str, EngineOffload]:
    """Read the presets by kind; a kind that is missing is a UserError."""
    presets = validate(OffloadFile, read_yaml(path), str(path), "Mend that entry.").root
    for kind in KINDS:
        if kind not in presets or presets[kind].kind != kind:
            raise UserError(str(path), f"has no preset of kind {kind}", "Restore it: git checkout config/offload.yaml")
    if presets["hybrid"].cpu_share is None:
        raise UserError(f"{path}: hybrid.cpu_share", "is missing, the CPU's share of its memory", "Add it.")
    return dict(presets)
