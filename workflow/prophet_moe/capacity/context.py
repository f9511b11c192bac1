"""The longest context whose cache fits, over arrays of configurations; `reference.max_context` is the plain form.

The cache of S tokens costs kv S + the sum over further caches of bytes * ceil(min(S, window) / tokens). Without the
ceilings, that is the least of linear pieces, one for every number of full windows: the longest context is the most that
any piece allows. Where an entry stands for several tokens, the pieces bound the answer, and halving finds it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from prophet_moe.params import Cache
from prophet_moe.settings.fields import LARGEST_CONTEXT

Columns = Mapping[str, NDArray]
Floats = NDArray[np.float64]

CACHE_COLUMNS = ("cache_bytes", "cache_tokens", "cache_window")
"""Columns of further caches, (n, caches): bytes of an entry over all layers, its tokens, the window or infinity."""


def cache_columns(caches: Sequence[tuple[Cache, ...]]) -> dict[str, Floats]:
    """Return the CACHE_COLUMNS of n configurations, filled up with caches of no bytes; {} where none has any."""
    most = max(map(len, caches), default=0)
    if not most:
        return {}
    filled = [(*kept, *[_NONE] * (most - len(kept))) for kept in caches]
    return {
        "cache_bytes": np.array([[float(c.layers * c.bytes_per_entry) for c in row] for row in filled]),
        "cache_tokens": np.array([[float(c.tokens_per_entry) for c in row] for row in filled]),
        "cache_window": np.array([[np.inf if c.window is None else float(c.window) for c in row] for row in filled]),
    }


_NONE = Cache("none", 0, 0, window=0)


def cached_bytes(c: Columns, tokens: NDArray) -> Floats:
    """(n,): bytes of the cache of one sequence of `tokens` (n,)."""
    held = c["kv_bytes_per_token"] * tokens
    if "cache_bytes" in c:
        kept = np.minimum(tokens[:, None], c["cache_window"])
        held = held + (c["cache_bytes"] * np.ceil(kept / c["cache_tokens"])).sum(axis=1)
    return held


def longest_context(c: Columns, free: NDArray) -> Floats:
    """(n,): the most tokens per sequence whose cache fits into `free` bytes of a batch, at most LARGEST_CONTEXT.

    `c` holds `batch`, `kv_bytes_per_token` and, where a model has further caches, CACHE_COLUMNS. Below 0 of `free` it
    is 0.
    """
    if "cache_bytes" not in c:
        per_token = c["batch"] * c["kv_bytes_per_token"]
        if per_token.min(initial=1) > 0:
            tokens = free / per_token
            np.maximum(np.floor(tokens, out=tokens), 0.0, out=tokens)
            return np.minimum(tokens, LARGEST_CONTEXT, out=tokens)
        return _fits(free, c["batch"], np.zeros_like(free), c["kv_bytes_per_token"])
    most = _by_pieces(c, free)
    stepped = (c["cache_tokens"] > 1).any(axis=1)
    if stepped.any():
        rows = np.flatnonzero(stepped)
        of_rows = {name: c[name][rows] for name in ("batch", "kv_bytes_per_token", *CACHE_COLUMNS)}
        most[rows] = _by_halving(of_rows, free[rows], most[rows])
    return most


def _by_pieces(c: Columns, free: NDArray) -> Floats:
    """(n,): the most tokens whose cost without ceilings fits: over the number of full windows, the most of all."""
    order = np.argsort(c["cache_window"], axis=1)
    window = np.take_along_axis(c["cache_window"], order, axis=1)
    rate = np.take_along_axis(c["cache_bytes"] / c["cache_tokens"], order, axis=1)
    full = np.zeros_like(free)
    growing = c["kv_bytes_per_token"] + rate.sum(axis=1)
    most = _fits(free, c["batch"], full, growing)
    for number in range(window.shape[1]):
        ends = np.isfinite(window[:, number])
        full = full + np.where(ends, rate[:, number] * np.where(ends, window[:, number], 0.0), np.inf)
        growing = growing - rate[:, number]
        most = np.maximum(most, _fits(free, c["batch"], full, growing))
    return most


def _fits(free: NDArray, batch: NDArray, full: NDArray, growing: NDArray) -> Floats:
    """(n,): tokens that fit where a sequence costs `full` + `growing` * tokens; LARGEST_CONTEXT where it stays full."""
    left = free - batch * full
    grows = ~(growing <= 0)  # an unknown size is no size of 0
    tokens = np.floor(np.divide(left, batch * growing, out=np.full_like(left, np.inf), where=grows))
    return np.where(left < 0, 0.0, np.minimum(tokens, LARGEST_CONTEXT))


def _by_halving(c: Columns, free: NDArray, relaxed: NDArray) -> Floats:
    """(n,): the most tokens whose exact cost fits, at most one above those that fit without ceilings."""
    low, high = np.zeros_like(relaxed), np.minimum(relaxed + 1, LARGEST_CONTEXT)
    while (low < high).any():
        middle = np.ceil((low + high) / 2)
        fits = c["batch"] * cached_bytes(c, middle) <= free
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    return low
