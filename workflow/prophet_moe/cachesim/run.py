"""A replacement policy on the requests of a trace: hits and misses, by layer."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prophet_moe.cachesim.policies import hits
from prophet_moe.cachesim.streams import Requests


@dataclass(frozen=True)
class Outcome:
    """Requests and misses of each MoE layer, both (L,)."""

    requests: NDArray[np.int64]
    misses: NDArray[np.int64]

    @property
    def hit_rates(self) -> NDArray[np.float64]:
        """(L,): share of the requests that hit."""
        return 1 - self.misses / self.requests

    @property
    def hit_rate(self) -> float:
        """Share of all requests that hit."""
        return 1 - float(self.misses.sum() / self.requests.sum())


def capacities(requests: Requests, *, per_layer: bool) -> range:
    """The capacities worth asking for: from what one layer asks for at once to all experts."""
    layers = 1 if per_layer else len(requests.router.layers)
    return range(requests.widest, layers * requests.router.experts + 1)


def simulate(requests: Requests, policy: str, capacity: int, *, per_layer: bool) -> Outcome:
    """Serve `requests` from a cache of `capacity` experts for each layer, or from one that all layers share.

    The experts that a step asks of a layer come one after another: one can be evicted by those before it.
    """
    router = requests.router
    count = len(router.layers)
    if per_layer:
        served = [hits(policy, requests.of_layer(layer), router.experts, capacity) for layer in range(count)]
        misses = np.array([np.count_nonzero(~layer) for layer in served])
    else:
        served = hits(policy, requests.of_all_layers(), count * router.experts, capacity)
        misses = np.bincount(requests.layers[~served], minlength=count)
    return Outcome(np.bincount(requests.layers, minlength=count), misses)
