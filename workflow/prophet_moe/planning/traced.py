"""The hit rates of a recorded routing trace at every number of slots: the only part of a plan that replays."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np

from prophet_moe.errors import UserError
from prophet_moe.planning.curve import HitCurve, curve_of
from prophet_moe.routing.reuse import ask_hits
from prophet_moe.routing.sequences import without_repetition
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.trace import DECODE, Trace, sequence_starts

NORMAL_95 = 1.645
"""Standard deviations of a normal distribution that nine in ten lie within."""


def traced_curve(folder: Path, experts: int, top_k: int) -> HitCurve:
    """Return the curve of a trace: an LRU cache per layer, cold at the start of every sequence, decoded tokens.

    The interval is that of a sequence more: the spread of the misses of sequences at a quarter of the experts. A trace
    of another E or k, or without decoded tokens, is a UserError.
    """
    trace = read_trace(folder)
    if (trace.router.experts, trace.router.top_k) != (experts, top_k):
        found = f"has {trace.router.experts} experts and k = {trace.router.top_k}"
        raise UserError(str(folder), f"{found}, expected {experts} and {top_k}", "Name a trace of this model.")
    counts = _hits_by_sequence(without_repetition(trace), experts)
    if not len(counts):
        raise UserError(str(folder), "holds no decoded token", "Record decoded tokens, or give --curve.")
    requests = np.array([of_sequence[-1] for of_sequence in counts])
    rates = np.array([of_sequence[:-1] for of_sequence in counts]) / requests[:, None]
    mean = np.average(rates, axis=0, weights=requests)
    points = [(slots, float(rate)) for slots, rate in enumerate(mean, start=1)]
    origin = (
        f"replay of {folder} ({len(counts)} sequences, {requests.sum() // (top_k * len(trace.router.layers)):,} tokens)"
    )
    return curve_of(experts, top_k, points, origin, _factor(rates[:, max(top_k, experts // 4) - 1]))


def _hits_by_sequence(trace: Trace, experts: int) -> list[np.ndarray]:
    """Return by sequence (E + 1,): hits of 1 to E slots of its decoded tokens over all layers, then requests."""
    found = []
    for start, end in pairwise(sequence_starts(trace)):
        decoded = trace.experts[start:end][trace.phase[start:end] == DECODE]
        if len(decoded):
            asks = np.ascontiguousarray(decoded.transpose(1, 0, 2))
            found.append(np.append(ask_hits(asks, experts), asks.size))
    return found


def _factor(rates: np.ndarray) -> float:
    """Return within what factor nine in ten sequences miss; 1 where one sequence tells nothing of others."""
    misses = np.maximum(1 - rates, 1e-6)
    return 1.0 if len(misses) < 2 else math.exp(NORMAL_95 * float(np.std(np.log(misses), ddof=1)))
