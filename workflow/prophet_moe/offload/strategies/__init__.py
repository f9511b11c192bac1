"""Strategies of serving experts from a cache, one file each: what is prefetched when, and what is evicted.

Every module of this folder holds one STRATEGY; its name is the module's. Add a file to add a strategy.
"""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prophet_moe.offload.simulator.batching import DecodeBatches
from prophet_moe.offload.simulator.predictions import Predictions
from prophet_moe.offload.simulator.simulation import Hierarchy, Prefetches, PrefetchPlan, no_prefetches

PrefetchPlanner = Callable[[DecodeBatches, Predictions, Hierarchy], Prefetches]
Order = Callable[[DecodeBatches, Predictions], NDArray[np.int64]]


def nothing(batches: DecodeBatches, predictions: Predictions, hierarchy: Hierarchy) -> PrefetchPlan:
    """Return a plan that prefetches nothing."""
    return no_prefetches(batches)


@dataclass(frozen=True)
class Strategy:
    """Describe one strategy: what it prefetches, what it evicts, and how it takes the tokens of a batch."""

    title: str
    source: str
    """The publication or report that describes the strategy."""
    rank: int
    """Its position in tables and figures, counted from 1."""
    role: Literal["strategy", "bound", "oracle", "control"] = "strategy"
    """A strategy of the comparison, or beside it a bound, an oracle (which knows the future and bounds nothing), or a
    control."""
    prefetches: PrefetchPlanner = nothing
    """What to prefetch before each pass and after each layer's access: (T, L + 1, P) ids layer * E + expert, the most
    urgent first, ended by -1, or what `prefetch.ahead` returns. Per layer at most what the nearest tier holds."""
    eviction: str = "lru"
    """The rule that chooses the expert to evict, one of `engine.EVICTIONS`."""
    deduplicated: bool = False
    """Whether a layer accesses the distinct experts of the batch at once, or those of one token after another."""
    order: Order | None = None
    """Returns (T, L, B): in which order the tokens of a layer are taken; None keeps their order."""
    clairvoyant: bool = False
    """Whether the strategy uses choices that the router has not made yet."""
    all_resident: bool = False
    """Whether every expert is in the nearest tier, whatever the capacity."""


@cache
def strategies() -> dict[str, Strategy]:
    """Return all strategies by name, in the order of their ranks."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    by_name = {name: import_module(f"{__name__}.{name}").STRATEGY for name in names}
    return dict(sorted(by_name.items(), key=lambda item: item[1].rank))
