"""The longest context whose cache a GPU holds while the model works."""

from collections.abc import Callable
from functools import partial

import torch

from prophet_moe.collect import allocation
from prophet_moe.collect.measurement import Rows
from prophet_moe.collect.memory.caches import cache_bytes, caches_by_kind, stretched
from prophet_moe.collect.memory.plan import Plan
from prophet_moe.collect.memory.schema import is_lack_of_memory, row
from prophet_moe.collect.memory.subject import PROBE_TOKENS, Subject


def context_rows(subject: Subject, batch: int, plan: Plan) -> Rows:
    """Return the rows on the longest context, tokens per sequence, whose cache can be held while the model works."""
    search, lengths = plan.context, plan.cache_lengths[-1]

    def held(tokens: int) -> int:
        return cache_bytes(caches_by_kind(stretched(subject.template, batch, tokens))["self"])["tensors"]

    grown = held(lengths.long) - held(lengths.short)
    allocation.release()
    free, _ = torch.cuda.mem_get_info()
    refused = free * (lengths.long - lengths.short) // grown + 1
    fits = partial(cache_fits, subject, batch, search.prefill_tokens)
    contexts = largest(fits, refused, search.tolerance, search.trials)
    how = f"cache held beside a decode step and a prefill of {search.prefill_tokens} tokens"
    names = ("max_context_tokens", "refused_context_tokens")
    return [row(name, value, "context", how, batch=batch) for name, value in zip(names, contexts, strict=True)]


def cache_fits(subject: Subject, batch: int, prefill_tokens: int, tokens: int) -> bool:
    """Return whether a cache of `batch` sequences of `tokens` tokens fits beside a decode step and a prefill."""
    allocation.release()
    try:
        held = stretched(subject.template, batch, tokens)
        subject.run(subject.stepping(batch, PROBE_TOKENS))
        subject.run(subject.reading(1, prefill_tokens))
        del held
    except RuntimeError as error:
        if is_lack_of_memory(error):
            return False
        raise
    return True


def largest(fits: Callable[[int], bool], refused: int, tolerance: float, trials: int) -> tuple[int, int]:
    """Return the largest number that fits and the smallest that does not, as far as bisection below `refused` tells."""
    low, high = 0, refused
    for _ in range(trials):
        if high - low <= max(1, tolerance * low):
            break
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, high
