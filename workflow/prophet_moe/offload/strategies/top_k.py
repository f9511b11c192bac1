"""Top-K (004:137-140): the experts that the batch used most often of late are prefetched for the next layer."""

import numpy as np
from numba import njit

from prophet_moe.offload.simulator.prefetch import Needs, ahead, append_likely, no_needs, true_needs
from prophet_moe.offload.strategies import Strategy

WINDOW = 16
"""Number of the last steps that are counted."""


def plan_prefetches(batches, predictions, hierarchy):
    """Prefetch what the next layer accessed in most of the last steps."""
    often = batches.memo("often", lambda: _often(*true_needs(batches), batches.layers, batches.experts, WINDOW))
    return ahead(batches, {1: Needs(*often)}, hierarchy)


@njit(cache=True)
def _often(starts_of, ids_of, layers, experts, window):
    """Return needs from what each layer accessed: the experts used in most of the `window` steps before."""
    steps = (len(starts_of) - 1) // layers
    starts, ids, places, keys = no_needs(steps, layers, experts)
    share = np.zeros((layers, experts), np.float32)
    counts = np.zeros(layers * experts, np.float32)
    flat = share.reshape(layers * experts)
    for step in range(steps):
        before = np.float32(max(1, min(step, window)))
        for expert in range(layers * experts):
            flat[expert] = counts[expert] / before
        append_likely(share, step, starts, ids, places, keys)
        for number in range(starts_of[step * layers], starts_of[(step + 1) * layers]):
            counts[ids_of[number]] += 1
        if step >= window:
            forgotten = step - window
            for number in range(starts_of[forgotten * layers], starts_of[(forgotten + 1) * layers]):
                counts[ids_of[number]] -= 1
    return starts, ids[: starts[-1]].copy()


STRATEGY = Strategy(title="Top-K", source="report 004:137", rank=4, prefetches=plan_prefetches)
