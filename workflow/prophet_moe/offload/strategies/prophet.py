"""Prophet: a learned predictor looks three layers ahead; predictions and requests are joined over the batch.

Caching is that of `intelligent`, so that the two differ by the prediction alone.
"""

from prophet_moe.offload.simulator.prefetch import LOOKAHEAD, ahead, batch_needs
from prophet_moe.offload.strategies import Strategy


def plan_prefetches(batches, predictions, hierarchy):
    """Prefetch what the predictor considers likely in the layers ahead."""
    return ahead(batches, {d: batch_needs(batches, predictions.prophet(d)) for d in range(1, LOOKAHEAD + 1)}, hierarchy)


STRATEGY = Strategy(
    title="Prophet", source="report 000:63-69", rank=7, prefetches=plan_prefetches, eviction="lrfu", deduplicated=True
)
