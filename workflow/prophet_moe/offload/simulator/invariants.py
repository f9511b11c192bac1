"""What must hold of every run, whatever the strategy; checked on each."""

import numpy as np

from prophet_moe.errors import Fault
from prophet_moe.offload.simulator import engine
from prophet_moe.offload.simulator.simulation import Outcome, Times

TOLERANCE = 1e-9
"""Share by which two sums of a few floating-point seconds may differ."""
ROUNDINGS = 8
"""Additions to a clock for each request, copy and layer of a step, at most; each may be off by half a last bit."""


class Impossible(Fault):
    """A run that no machine could do: a mistake in the simulator."""


def check(run: Outcome, times: Times) -> Outcome:
    """Return `run` if bytes, requests and time are conserved; else Impossible says what is not.

    With C the compute time and X the time that the copy queue is busy: max(C, X) <= T <= C + X, so prefetches of the
    same bytes gain at most (C + X) / max(C, X) over copies on demand. T is also at most that of a device without any
    cache, which copies for every request; a paused chunk may come before each copy. Seconds may differ by what is
    rounded: the longer a run, the later its clocks and the more is added to them.
    """
    count, seconds, compute = run.count, run.seconds, run.compute_seconds
    requests, longest = int(run.requests.sum()), max(times.transfer_seconds)
    moved = run.demand_seconds + run.prefetch_seconds
    interrupted = requests * min(times.chunk_seconds, longest) if count(engine.COPIES) else 0.0
    useful = count(engine.PREFETCHED) + count(engine.LATE)
    _require("copies of every tier", int(run.sources.sum()) == run.copies)
    _require("prefetches", count(engine.COPIES) == useful + count(engine.WASTED) + run.pending)
    _require("requests", requests <= run.routed)
    slack = _rounded(run)
    _require("compute time", compute <= seconds + slack)
    _require("demand copies", run.demand_seconds <= seconds + slack)
    # What is under way at the end is copied after it.
    _require("the copy queue", moved <= seconds + longest + slack)
    _require("time", seconds <= compute + moved + slack)
    _require("a device without cache", seconds <= compute + requests * longest + interrupted + slack)
    _require("stalls", abs(run.sums[engine.STALL].sum() - (seconds - compute)) <= slack)
    return run


def check_beside(run: Outcome, belady: Outcome, resident: Outcome) -> Outcome:
    """Return `run` if it beats neither the offline optimum nor a device that copies nothing; else raise Impossible.

    Prefetches included, no strategy copies less than Belady's rule on demand: copies made early can be made late.
    """
    _require("Belady's optimum", run.copies >= belady.count(engine.MISSED))
    _require("all experts resident", resident.compute_seconds <= run.seconds + _rounded(run))
    return run


def _rounded(run: Outcome) -> float:
    """Return the seconds by which sums over `run` may differ by rounding: a share of the latest of its clocks."""
    latest = max(run.seconds, run.compute_seconds + run.demand_seconds + run.prefetch_seconds)
    events = int(run.requests.sum()) + run.copies + run.counts.shape[1] * len(run.step_seconds)
    return latest * max(TOLERANCE, ROUNDINGS * events * np.finfo(float).eps / 2)


def _require(what: str, holds: bool) -> None:
    if not holds:
        raise Impossible(f"simulation: {what} does not hold")
