"""Perfect prefetch: everything that the next pass through the layers accesses is known, and when it is needed again."""

from prophet_moe.offload.simulator.prefetch import ahead, true_needs
from prophet_moe.offload.strategies import Strategy


def plan_prefetches(batches, predictions, hierarchy):
    """Prefetch the true experts of as many layers ahead as the model has."""
    needs = true_needs(batches)
    return ahead(
        batches, dict.fromkeys(range(1, batches.layers + 1), needs), hierarchy, before_pass=True, next_step=True
    )


STRATEGY = Strategy(
    title="Perfect prefetch",
    source="oracle",
    rank=12,
    role="oracle",
    prefetches=plan_prefetches,
    eviction="belady",
    deduplicated=True,
    clairvoyant=True,
)
