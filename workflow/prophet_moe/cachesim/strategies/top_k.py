"""Top-K (004:144-147): the experts that the batch used most often of late are prefetched for the next layer."""

import numpy as np
from numba import njit

from prophet_moe.cachesim.strategies import Strategy
from prophet_moe.cachesim.wishes import ahead

WINDOW = 16
"""Steps that count."""


def wishes(decoding, forecast, hierarchy):
    """What the next layer asked for in most of the last steps."""
    return ahead({1: _shares(decoding.rows, decoding.choices, decoding.experts, WINDOW)}, hierarchy)


@njit(cache=True)
def _shares(rows, choices, experts, window):
    """(T, L, E): share of the `window` steps before in which the batch used each expert."""
    layers = choices.shape[1]
    shares = np.zeros((len(rows), layers, experts), np.float32)
    used = np.zeros((window, layers, experts), np.bool_)
    counts = np.zeros((layers, experts), np.int32)
    for step in range(len(rows)):
        shares[step] = counts / np.float32(max(1, min(step, window)))
        oldest = used[step % window]
        counts -= oldest
        oldest[:] = False
        for row in rows[step]:
            if row >= 0:
                for layer in range(layers):
                    for expert in choices[row, layer]:
                        oldest[layer, expert] = True
        counts += oldest
    return shares


STRATEGY = Strategy(title="Top-K", source="report 004:144", rank=4, wishes=wishes)
