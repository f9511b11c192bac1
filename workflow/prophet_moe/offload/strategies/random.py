"""Random eviction: what any rule must beat."""

from prophet_moe.offload.strategies import Strategy

STRATEGY = Strategy(
    title="Random eviction", source="control", rank=15, role="control", eviction="random", deduplicated=True
)
