"""Laws for u(B), the distinct routed experts that a batch of B tokens activates in one MoE layer."""

import numpy as np
from numpy.typing import NDArray

from prophet_moe.settings import Routing

Floats = NDArray[np.float64]


def unique_experts(routing: Routing, experts: Floats, top_k: Floats, batch: Floats) -> Floats:
    """u(B) for arrays of experts E, choices per token k and tokens B, all of one shape; not rounded."""
    if routing.law == "power_law":
        return np.minimum(experts, top_k * batch**routing.exponent)
    return uniform_occupancy(experts, top_k, batch)


def uniform_occupancy(experts: Floats, top_k: Floats, batch: Floats) -> Floats:
    """Expected distinct experts when each token draws k of E uniformly: E (1 - (1 - k/E)^B).

    Exact for independent tokens: one token misses a given expert with probability 1 - k/E.
    """
    return experts * (1.0 - (1.0 - top_k / experts) ** batch)
