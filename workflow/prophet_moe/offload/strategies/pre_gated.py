"""Pre-gated MoE (Hwang et al., ISCA 2024, arXiv 2308.12066): a block's gate chooses the experts of the next block.

So the next block's experts are known exactly one block early; those of the first are copied on demand. The model is
trained for that: what it does to quality is not judged here.
"""

from prophet_moe.offload.simulator.prefetch import ahead, true_needs
from prophet_moe.offload.strategies import Strategy


def plan_prefetches(batches, predictions, hierarchy):
    """Prefetch the true experts of the next layer."""
    return ahead(batches, {1: true_needs(batches)}, hierarchy)


STRATEGY = Strategy(
    title="Pre-gated MoE", source="arXiv 2308.12066", rank=2, prefetches=plan_prefetches, clairvoyant=True
)
