"""Static: the experts chosen most often in training stay; whatever else is copied makes room again first."""

from prophet_moe.offload.strategies import Strategy

STRATEGY = Strategy(
    title="Static most popular",
    source="control",
    rank=14,
    role="control",
    eviction="popularity",
    deduplicated=True,
)
