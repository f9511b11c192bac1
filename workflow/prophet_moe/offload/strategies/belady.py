"""Belady's MIN (1966): nothing is prefetched, the expert used again last makes room. No cache on demand misses less."""

from prophet_moe.offload.strategies import Strategy

STRATEGY = Strategy(
    title="Belady (offline optimum)",
    source="Belady 1966",
    rank=13,
    role="bound",
    eviction="belady",
    deduplicated=True,
    clairvoyant=True,
)
