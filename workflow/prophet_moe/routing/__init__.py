"""Routing: how many distinct experts a batch activates."""

from prophet_moe.routing.law import unique_experts

__all__ = ["unique_experts"]
