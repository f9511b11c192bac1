"""What a batch saves because its tokens share experts (report 004:43-57)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from prophet_moe.errors import UserError
from prophet_moe.routing import statistics
from prophet_moe.routing.trace import Trace, sequence_starts

SEED = 0
"""Seed of the batches that are drawn."""
RESAMPLES = 500
"""Draws of the sequences anew from which intervals are taken."""
MEASURED = ("request_dedup", "shared_requests", "resident_share")
"""Columns that have an interval."""


def process_batch(layer_id: int, batch_expert_requests: Sequence[Sequence[int]]) -> tuple[list[int], float]:
    """Return the distinct experts that a layer needs for a batch, ascending, and `request_dedup`, 1 - distinct /
    requests.

    `batch_expert_requests` holds what each item of the batch requests of layer `layer_id` (004:89-105). Without any
    request, the saving is 0.
    """
    requests = [int(expert) for item in batch_expert_requests for expert in item]
    unique = sorted(set(requests))
    return unique, 1 - len(unique) / len(requests) if requests else 0.0


@dataclass(frozen=True)
class Deduplication:
    """One batch of tokens, each of another sequence at a step of its own; values are means over layers."""

    trace: str
    batch: int
    sample: int
    requests: float
    """Routed choices of a layer, k B."""
    unique_experts: float
    """Distinct experts of a layer, u(B)."""
    request_dedup: float
    """1 - u / (k B): the share of copies and bytes that deduplication saves."""
    shared_requests: float
    """Share of the requests whose expert another token of the batch chose as well."""
    resident_share: float
    """u / E: of a layer's experts, those that the batch needs."""
    uniform_request_dedup: float
    """The same were each token's k experts drawn at random from all: E (1 - (1 - k/E)^B) distinct."""
    request_dedup_low: float
    """Lower end of the 95 % interval of the mean over the batches of this size, the same for all of them."""
    request_dedup_high: float
    """Upper end of the same interval."""
    shared_requests_low: float
    shared_requests_high: float
    resident_share_low: float
    resident_share_high: float


def deduplication(name: str, trace: Trace, batches: Sequence[int], samples: int, seed: int) -> Iterator[Deduplication]:
    """Yield `samples` batches of each size; sequences are drawn anew for each, without replacement.

    Batches share the sequences that were held out, so that intervals are those of a bootstrap over sequences: around
    the mean, as far as it spreads when sequences, and as many batches of them, are drawn anew. Too few held-out
    sequences for the largest batch are a UserError.
    """
    starts, router = sequence_starts(trace), trace.router
    random = np.random.default_rng(seed)
    if len(starts) - 1 < max(batches):
        problem = f"{len(starts) - 1} held-out sequences, expected at least the largest batch, {max(batches)}"
        raise UserError(name, problem, "Lower studies.comparison.batch_sizes.")
    spread = _spread(trace, batches, samples, seed)
    for place, batch in enumerate(batches):
        runs = []
        for sample in range(samples):
            drawn = random.choice(len(starts) - 1, batch, replace=False)
            rows = random.integers(starts[drawn], starts[drawn + 1])
            chosen = trace.experts[rows]
            layers = [process_batch(layer, chosen[:, layer]) for layer in range(len(router.layers))]
            unique = float(np.mean([len(experts) for experts, _ in layers]))
            chosen_by = [
                np.bincount(chosen[:, layer].ravel(), minlength=router.experts) for layer in range(len(layers))
            ]
            requests = batch * router.top_k
            uniform = router.experts * (1 - (1 - router.top_k / router.experts) ** batch)
            runs.append(
                {
                    "trace": name,
                    "batch": batch,
                    "sample": sample,
                    "requests": requests,
                    "unique_experts": unique,
                    "request_dedup": float(np.mean([saved for _, saved in layers])),
                    "shared_requests": float(np.mean([counts[counts > 1].sum() / requests for counts in chosen_by])),
                    "resident_share": unique / router.experts,
                    "uniform_request_dedup": 1 - uniform / requests,
                }
            )
        ends = {}
        for measured, around in zip(MEASURED, spread[place], strict=True):
            low, high = np.clip(np.mean([run[measured] for run in runs]) + around, 0, 1).tolist()
            ends |= {f"{measured}_low": low, f"{measured}_high": high}
        yield from (Deduplication(**run, **ends) for run in runs)


def _spread(trace: Trace, batches: Sequence[int], samples: int, seed: int) -> np.ndarray:
    """Return how far the mean over `samples` batches lies from its own mean in 95 % of resamples, (batches, MEASURED,
    2).

    NaN where no resample has as many different sequences as the batch.
    """
    drawn = statistics.bootstrap_requests(trace, batches, "staggered", samples, RESAMPLES, seed)
    unique, shared = np.moveaxis(np.array(list(drawn)), 0, -1)
    requests = trace.router.top_k * np.array(batches)[:, None]
    values = np.stack([1 - unique / requests, shared / requests, unique / trace.router.experts], axis=1)
    possible = np.isfinite(values).any(axis=2)
    values = np.where(possible[..., None], values, 0.0)
    low, high = np.nanquantile(values - np.nanmean(values, axis=2, keepdims=True), (0.025, 0.975), axis=2)
    ends = np.stack([np.minimum(low, 0), np.maximum(high, 0)], axis=-1)
    return np.where(possible[..., None], ends, np.nan)
