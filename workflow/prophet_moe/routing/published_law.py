"""The law for u(B) held against published routing: each model predicted from the counts of all others and its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from prophet_moe.routing.law import dirichlet_occupancy, uniform_occupancy
from prophet_moe.routing.published import BATCHES, PublishedRouting
from prophet_moe.routing.published_cv import Pool, pool_for, pooled

BASES = ("uniform_occupancy", "all_others", "balanced_alike", "balanced_alike_same_domain", "own")
"""What the popularity CV of a prediction rests on: nothing, other models, or the row itself."""


@dataclass(frozen=True)
class Prediction:
    """u(B) of one row of published routing, as the law for u(B) predicts it."""

    basis: str
    """One of BASES."""
    models: int
    """Models that the popularity CV was pooled from."""
    parameter: float
    """The popularity CV: the pooled one, cut at what E and k allow; NaN where the law has none."""
    low: float
    """Ends of its 95 % interval, of one model more on one text more; NaN where there is none."""
    high: float
    unique: NDArray[np.float64]
    """u(B) at BATCHES."""


class Counted(Protocol):
    """What is needed of a row of published routing to predict it."""

    known_as: str
    experts: int
    top_k: int
    balancing: str
    domain: str
    effective_cv: float


def predictions(row: PublishedRouting | Counted, rows: Sequence[PublishedRouting]) -> Iterator[Prediction]:
    """Yield the prediction of one row on every basis, from `rows` without those of its model.

    A basis that no other model gives is left out.
    """
    others = [other for other in rows if other.known_as != row.known_as]
    batch = np.array(BATCHES, float)
    shape = np.full_like(batch, row.experts), np.full_like(batch, row.top_k)
    yield Prediction(BASES[0], 0, np.nan, np.nan, np.nan, uniform_occupancy(*shape, batch))
    pools = pooled(others), pool_for(others, row.balancing), pool_for(others, row.balancing, row.domain)
    for basis, pool in zip(BASES[1:-1], pools, strict=True):
        if pool:
            value, low, high = _possible(pool, row.experts, row.top_k)
            unique = dirichlet_occupancy(*shape, np.full_like(batch, value), batch)
            yield Prediction(basis, len(pool.models), value, low, high, unique)
    at_own = dirichlet_occupancy(*shape, np.full_like(batch, row.effective_cv), batch)
    yield Prediction(BASES[-1], 0, row.effective_cv, np.nan, np.nan, at_own)


def _possible(pool: Pool, experts: int, top_k: int) -> tuple[float, float, float]:
    most = sqrt(experts / top_k - 1)
    return min(pool.value, most), min(pool.low, most), min(pool.high, most)
