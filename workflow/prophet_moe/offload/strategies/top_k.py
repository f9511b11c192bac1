"""Top-K (004:144-147): the experts that the batch used most often of late are prefetched for the next layer."""

import numpy as np
from numba import njit

from prophet_moe.offload.simulator.prefetch import Needs, ahead, append_likely, no_needs, true_needs
from prophet_moe.offload.strategies import Strategy

WINDOW = 16
"""Steps that count."""


def plan_prefetches(batches, predictions, hierarchy):
    """What the next layer asked for in most of the last steps."""
    often = batches.memo("often", lambda: _often(*true_needs(batches), batches.layers, batches.experts, WINDOW))
    return ahead(batches, {1: Needs(*often)}, hierarchy)


@njit(cache=True)
def _often(asked_starts, asked_ids, layers, experts, window):
    """Needs, from what each layer asked for: the experts used in most of the `window` steps before."""
    steps = (len(asked_starts) - 1) // layers
    starts, ids, places, keys = no_needs(steps, layers, experts)
    share = np.zeros((layers, experts), np.float32)
    counts = np.zeros(layers * experts, np.float32)
    flat = share.reshape(layers * experts)
    for step in range(steps):
        before = np.float32(max(1, min(step, window)))
        for expert in range(layers * experts):
            flat[expert] = counts[expert] / before
        append_likely(share, step, starts, ids, places, keys)
        for asked in range(asked_starts[step * layers], asked_starts[(step + 1) * layers]):
            counts[asked_ids[asked]] += 1
        if step >= window:
            forgotten = step - window
            for asked in range(asked_starts[forgotten * layers], asked_starts[(forgotten + 1) * layers]):
                counts[asked_ids[asked]] -= 1
    return starts, ids[: starts[-1]].copy()


STRATEGY = Strategy(title="Top-K", source="report 004:144", rank=4, prefetches=plan_prefetches)
