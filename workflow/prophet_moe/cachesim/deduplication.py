"""What a batch saves because its tokens share experts (report 004:50-64)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from prophet_moe.errors import UserError
from prophet_moe.routing.trace import Trace, sequence_starts

SEED = 0
"""Of the batches that are drawn."""


def process_batch(layer_id: int, batch_expert_requests: Sequence[Sequence[int]]) -> tuple[list[int], float]:
    """The distinct experts that one layer needs for a batch, ascending, and `request_dedup`, 1 - distinct / requests.

    `batch_expert_requests` is what each item of the batch asks of layer `layer_id` (004:84-98). No request saves 0.
    """
    requests = [int(expert) for item in batch_expert_requests for expert in item]
    unique = sorted(set(requests))
    return unique, 1 - len(unique) / len(requests) if requests else 0.0


@dataclass(frozen=True)
class Deduplication:
    """One run: a batch of tokens, each of another sequence at a step of its own; means over layers."""

    trace: str
    batch: int
    sample: int
    requests: float
    """Per layer, k B."""
    unique_experts: float
    """Per layer, u(B)."""
    request_dedup: float
    """1 - u / (k B): copies and bytes that are not asked for twice."""
    shared_requests: float
    """Share of the requests whose expert another token of the batch asks for as well."""
    resident_share: float
    """u / E: of a layer's experts, those that the batch needs."""
    uniform_request_dedup: float
    """The same were each token's k experts drawn at random from all: E (1 - (1 - k/E)^B) distinct."""


def deduplication(name: str, trace: Trace, batches: Sequence[int], samples: int, seed: int) -> Iterator[Deduplication]:
    """`samples` batches of each size; sequences are drawn anew for each, without replacement."""
    starts, router = sequence_starts(trace), trace.router
    random = np.random.default_rng(seed)
    if len(starts) - 1 < max(batches):
        problem = f"{len(starts) - 1} held-out sequences, expected at least the largest batch, {max(batches)}"
        raise UserError(name, problem, "Lower simulation.batch_sizes.")
    for batch in batches:
        for sample in range(samples):
            drawn = random.choice(len(starts) - 1, batch, replace=False)
            rows = random.integers(starts[drawn], starts[drawn + 1])
            chosen = trace.experts[rows]
            layers = [process_batch(layer, chosen[:, layer]) for layer in range(len(router.layers))]
            unique = float(np.mean([len(experts) for experts, _ in layers]))
            asked = [np.bincount(chosen[:, layer].ravel(), minlength=router.experts) for layer in range(len(layers))]
            requests = batch * router.top_k
            uniform = router.experts * (1 - (1 - router.top_k / router.experts) ** batch)
            yield Deduplication(
                name,
                batch,
                sample,
                requests,
                unique,
                float(np.mean([saved for _, saved in layers])),
                float(np.mean([counts[counts > 1].sum() / requests for counts in asked])),
                unique / router.experts,
                1 - uniform / requests,
            )
