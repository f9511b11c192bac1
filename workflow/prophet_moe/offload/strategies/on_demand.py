"""On-Demand: an expert is copied when a layer needs it, and the one used least recently makes room."""

from prophet_moe.offload.strategies import Strategy

STRATEGY = Strategy(title="On-Demand (LRU)", source="report 004:30", rank=1)
