"""The law for u(B) beside what counts say: measured popularity gives u(B) of independent tokens without any law."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.routing import law
from prophet_moe.routing.counted import overall, popularity, popularity_cv, popularity_of_counts
from prophet_moe.routing.law_fit import Observed, dirichlet, fit_popularity_cv
from prophet_moe.routing.law_schema import BATCHES
from prophet_moe.routing.popularity_cv import PopularityCV
from prophet_moe.routing.store import read_counts
from prophet_moe.routing.trace import Counts, Router

BATCHING = "staggered"
"""The batches that counts speak for: tokens of different sequences, which choose independently."""
FEWEST_WINDOWS = 20
"""Fewer windows give no interval."""
BLOCKS, RESAMPLES = 200, 200
"""Blocks of consecutive windows that the bootstrap draws at most, and how often it draws."""
SEED = 0


@dataclass(frozen=True)
class Row:
    """u(B) at one batch size, mean over layers; errors are relative to `skewed`."""

    batch: int
    skewed: float
    at_measured: float
    measured_error: float
    at_effective: float
    effective_error: float
    uniform: float


@dataclass(frozen=True)
class BesideLaw:
    """What counts say about the popularity CV, and the law for u(B) at it."""

    measured: float
    """Standard deviation over mean, root mean square over layers."""
    effective: float
    """The popularity CV at which the law is nearest to u(B), as it is fitted to traces."""
    interval: tuple[float, float] | None
    """95 % interval of `effective` over windows (bootstrap)."""
    no_interval: str
    """Why there is none, else empty."""
    rows: list[Row]


def beside_law(counts: Counts) -> BesideLaw:
    """Compare the law for u(B) with the measured popularity of all windows together."""
    shares = popularity(counts)
    observed = _observed(shares, counts.router.top_k)
    measured, effective = overall(popularity_cv(shares)), fit_popularity_cv(observed)
    curves = [dirichlet(observed, value) for value in (measured, effective, 0.0)]
    rows = [
        Row(batch, skewed, first, first / skewed - 1, second, second / skewed - 1, uniform)
        for batch, skewed, first, second, uniform in zip(BATCHES, observed.unique, *curves, strict=True)
    ]
    windows = len(counts.counts)
    if windows < FEWEST_WINDOWS:
        reason = f"it takes counts of {FEWEST_WINDOWS} windows or more, here are {windows}"
        return BesideLaw(measured, effective, None, reason, rows)
    return BesideLaw(measured, effective, _interval(counts), "", rows)


def popularity_cv_of(counts: Counts, name: str) -> PopularityCV:
    """Return the effective popularity CV of the model of `counts`, called `name`; its ends are NaN without interval."""
    comparison = beside_law(counts)
    low, high = comparison.interval or (np.nan, np.nan)
    source = f"counts of {name}" + (f", no interval: {comparison.no_interval}" if comparison.no_interval else "")
    return PopularityCV(counts.router.model, BATCHING, comparison.effective, low, high, source)


def own_popularity_cvs(folders: Sequence[Path], models: Mapping[str, Router]) -> list[PopularityCV]:
    """Return the popularity CVs of those of `models`, name to router, whose counts lie in `folders`.

    Counts of other models are left out; another router than the model's, or two folders of one model, are a UserError.
    """
    rows: dict[str, PopularityCV] = {}
    for folder in folders:
        counts = read_counts(folder)
        router = counts.router
        if router.model not in models:
            continue
        if router != models[router.model]:
            problem = f"is of {router.model} with {_described(router)}, expected {_described(models[router.model])}"
            raise UserError(str(folder), problem, "Import it again.")
        if router.model in rows:
            problem = f"is of {router.model}, as another folder is: {rows[router.model].source}"
            raise UserError(str(folder), problem, "List one of them under counts, or import all from one folder.")
        rows[router.model] = popularity_cv_of(counts, folder.name)
    return list(rows.values())


def _described(router: Router) -> str:
    return f"{router.experts} experts, top-{router.top_k}, {len(router.layers)} MoE layers"


def _observed(shares: NDArray[np.float64], top_k: int) -> Observed:
    """u(B) of tokens that choose independently by popularity (L, E)."""
    return Observed(shares.shape[1], top_k, BATCHES, law.clustered_occupancy(shares, 0.0, BATCHES), shares)


def _interval(counts: Counts) -> tuple[float, float]:
    """95 % interval of the effective popularity CV: blocks of consecutive windows drawn anew with replacement."""
    windows = len(counts.counts)
    edges = np.unique(np.linspace(0, windows, BLOCKS + 1).astype(int))[:-1]
    blocks = np.add.reduceat(counts.counts, edges, axis=0).astype(float)
    rng = np.random.default_rng(SEED)
    copies = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), RESAMPLES)
    top_k, values = counts.router.top_k, []
    for chosen in np.tensordot(copies, blocks, 1):
        if chosen.any(axis=1).all():
            values.append(fit_popularity_cv(_observed(popularity_of_counts(chosen, top_k), top_k)))
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
