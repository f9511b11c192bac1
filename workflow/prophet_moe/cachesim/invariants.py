"""What must hold of every run, whatever the strategy; checked on each."""

import numpy as np

from prophet_moe.cachesim import engine
from prophet_moe.cachesim.simulation import Outcome, Times

TOLERANCE = 1e-9
"""Share by which sums of floating-point seconds may differ."""


class Impossible(AssertionError):
    """A run that no machine could do: a mistake in the simulator."""


def check(run: Outcome, times: Times) -> Outcome:
    """Return `run` if bytes, requests and time are conserved; else Impossible says what is not.

    With C the compute time and X the time that the copy queue is busy: max(C, X) <= T <= C + X, so prefetches of the
    same bytes gain at most (C + X) / max(C, X) over copies on demand. T is also at most that of a device without any
    cache, which copies for every request; a paused chunk may come before each copy.
    """
    count, seconds, compute = run.count, run.seconds, run.compute_seconds
    requests, longest = int(run.requests.sum()), max(times.fetch)
    moved = run.demand_seconds + run.prefetch_seconds
    interrupted = requests * min(times.chunk, longest) if count(engine.COPIES) else 0.0
    useful = count(engine.PREFETCHED) + count(engine.LATE)
    _require("copies of every tier", int(run.sources.sum()) == run.copies)
    _require("prefetches", count(engine.COPIES) == useful + count(engine.WASTED) + run.pending)
    _require("requests", requests <= run.routed)
    _require("compute time", _at_most(compute, seconds))
    _require("demand copies", _at_most(run.demand_seconds, seconds))
    # What is under way at the end is copied after it.
    _require("the copy queue", _at_most(moved, seconds + longest))
    _require("time", _at_most(seconds, compute + moved))
    _require("a device without cache", _at_most(seconds, compute + requests * longest + interrupted))
    _require("stalls", bool(np.isclose(run.sums[engine.STALL].sum(), seconds - compute, rtol=1e-6, atol=1e-9)))
    return run


def check_beside(run: Outcome, belady: Outcome, resident: Outcome) -> Outcome:
    """Return `run` if it beats neither the offline optimum nor a device that copies nothing; else Impossible.

    Prefetches included, no strategy copies less than Belady's rule on demand: copies made early can be made late.
    """
    _require("Belady's optimum", run.copies >= belady.count(engine.MISSED))
    _require("all experts resident", _at_most(resident.compute_seconds, run.seconds))
    return run


def _at_most(least: float, most: float) -> bool:
    return least <= most * (1 + TOLERANCE) + TOLERANCE


def _require(what: str, holds: bool) -> None:
    if not holds:
        raise Impossible(f"simulation: {what} does not hold")
