"""All experts resident: what serving takes without a cache. Nothing can be faster."""

from prophet_moe.offload.strategies import Strategy

STRATEGY = Strategy(
    title="All resident", source="baseline", rank=11, role="bound", deduplicated=True, all_resident=True
)
