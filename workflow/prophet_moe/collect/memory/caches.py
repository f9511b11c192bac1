"""Key-value caches of Transformers: larger ones like a given one, and the bytes of one."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from transformers.cache_utils import Cache, EncoderDecoderCache


def stretched(template: Cache, batch: int, tokens: int) -> Cache:
    """Return a cache of zeros for `batch` sequences of `tokens` tokens, with the layers of `template`.

    Windowed layers hold their window, recurrent ones their state, cross-attention the source of `template`.
    """
    cache = copy.deepcopy(template)
    for kind, part in caches_by_kind(cache).items():
        for layer in part.layers:
            _stretch(layer, batch, None if kind == "cross" else tokens)
    return cache


def _stretch(layer: Any, batch: int, tokens: int | None) -> None:
    """Replace the tensors of one layer by zeros; `tokens` None leaves its length."""
    for held in vars(layer).values():
        if isinstance(held, dict):
            states = {key: state for key, state in held.items() if isinstance(state, torch.Tensor)}
            held.update({key: state.new_zeros(batch, *state.shape[1:]) for key, state in states.items()})
    if not isinstance(getattr(layer, "keys", None), torch.Tensor):
        return
    kept = layer.keys.shape[-2] if tokens is None else tokens
    if getattr(layer, "is_sliding", False):
        layer.cumulative_length, kept = kept, min(kept, layer.sliding_window - 1)
    for name in ("keys", "values"):
        _, heads, _, width = getattr(layer, name).shape
        setattr(layer, name, getattr(layer, name).new_zeros(batch, heads, kept, width))


def caches_by_kind(cache: Cache) -> dict[str, Cache]:
    """Return the cache by kind: an encoder-decoder's self-attention and cross-attention apart."""
    if isinstance(cache, EncoderDecoderCache):
        return {"self": cache.self_attention_cache, "cross": cache.cross_attention_cache}
    return {"self": cache}


def cached_tensors(cache: Cache) -> Iterator[torch.Tensor]:
    """K and V, or recurrent state, of every layer; not the scalars that some layers keep beside them."""
    for layer in cache.layers:
        for held in vars(layer).values():
            entries = held.values() if isinstance(held, dict) else [held]
            yield from (entry for entry in entries if isinstance(entry, torch.Tensor) and entry.dim())


def cache_bytes(cache: Cache) -> dict[str, int]:
    """Return the bytes of a cache by method: of its tensors, and of the storages behind them, which can be larger."""
    tensors = list(cached_tensors(cache))
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return {"tensors": sum(tensor.nbytes for tensor in tensors), "storages": sum(storages.values())}
