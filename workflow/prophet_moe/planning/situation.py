"""A model on a GPU, as the few numbers that a plan follows from: no file is read here."""

from collections.abc import Callable
from dataclasses import dataclass

from prophet_moe.catalog.engine_offload import EngineOffload
from prophet_moe.catalog.link import MICROSECOND, LinkSpec
from prophet_moe.planning.curve import HitCurve
from prophet_moe.units import GB

CLEAN, HOSTED = "in_graph_gather", "host_managed"
"""The two laws of time: a kernel in the decode graph reads host memory, or the host reads routing back and copies."""
LAW_OF = {"freetoken": CLEAN, "ideal": CLEAN}
"""Kind of offloading by engine; engines that are not named let the host copy."""


@dataclass(frozen=True)
class Range:
    """A number between a low and a high end."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class MissCost:
    """Seconds that a step takes beside its resident time, between a clean link and a host that manages copies."""

    miss: Range
    """Seconds of one missing expert."""
    layer: Range
    """Seconds of every MoE layer, whatever misses."""


def miss_cost(
    expert_bytes: float, link_gb_per_s: float, link: LinkSpec, clean: EngineOffload, hosted: EngineOffload, law: str
) -> MissCost:
    """Return what misses cost: middle by the law of the engine, low and high by the two laws and the link's shares.

    `link_gb_per_s` is the datasheet's. Sources: config/links.yaml and config/offload.yaml.
    """
    shares = {"low": link.highest_share, "middle": link.share, "high": link.lowest_share}
    presets = {"low": clean, "middle": hosted if law == HOSTED else clean, "high": hosted}
    miss = {
        end: expert_bytes / (share * link_gb_per_s * GB) + (link.copy_us + presets[end].miss_overhead_us) * MICROSECOND
        for end, share in shares.items()
    }
    layer = {end: preset.layer_overhead_us * MICROSECOND for end, preset in presets.items()}
    return MissCost(Range(**miss), Range(**layer))


@dataclass(frozen=True)
class Situation:
    """What a split of memory is solved for. Bytes are of one GPU, times in seconds."""

    experts: int
    """Routed experts of a layer, E."""
    top_k: int
    layers: int
    """MoE layers whose experts may leave the GPU."""
    expert_bytes: float
    batch: int
    unique: float
    """Distinct experts that a step needs of a layer, u(B)."""
    room_bytes: float
    """What is left for slots and the KV cache once everything else is on the GPU."""
    cached_bytes: Callable[[int], float]
    """Bytes of the cache of one sequence of so many tokens."""
    native_context: int
    curve: HitCurve
    cost: MissCost | None = None
    """None where the bandwidths of the GPU are not known."""
    resident: Callable[[int], Range] | None = None
    """Seconds of a step with all experts resident, at a context."""
    prefill: Callable[[int, float], float] | None = None
    """Least seconds to prefill a context with so many experts of a layer resident."""
    host_bytes: float | None = None
    """Host memory that can be pinned; None: not said."""

    @property
    def all_slots(self) -> int:
        """Return the slots that hold every routed expert."""
        return self.layers * self.experts

    @property
    def cycle_slots(self) -> float:
        """Return the slots of one step: what it needs of all layers."""
        return self.layers * self.unique

    @property
    def timed(self) -> bool:
        """Return whether times can be told."""
        return self.cost is not None and self.resident is not None
