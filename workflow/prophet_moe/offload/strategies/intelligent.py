"""Intelligent + Deduplication (004:147-150): each distinct expert of the batch once, caching by recency and frequency.

The report says no more of its caching. Here it is LRFU (Lee et al. 2001), and the next layer is predicted from one.
"""

from prophet_moe.offload.simulator.prefetch import ahead, batch_needs
from prophet_moe.offload.strategies import Strategy


def plan_prefetches(batches, predictions, hierarchy):
    """Prefetch what the first choices of this layer make likely in the next."""
    return ahead(batches, {1: batch_needs(batches, predictions.transitions(1, 1))}, hierarchy)


STRATEGY = Strategy(
    title="Intelligent + Deduplication",
    source="report 004:147",
    rank=6,
    prefetches=plan_prefetches,
    eviction="lrfu",
    deduplicated=True,
)
