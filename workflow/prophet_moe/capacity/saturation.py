"""The batch from which a layer needs all its experts: in closed form for the power law, by search for any other."""

from bisect import bisect_left

from prophet_moe.capacity.memory import ModelMemory
from prophet_moe.capacity.reference import resident_experts, unique_experts
from prophet_moe.settings.scenario import Scenario

LARGEST_BATCH = 2**16
"""The largest batch that is asked for."""


def power_law_batch(experts: float, top_k: float, exponent: float) -> float:
    """Return the B at which k B^exponent reaches E, which is (E/k)^(1/exponent), not rounded."""
    return (experts / top_k) ** (1 / exponent)


def saturating_batch(memory: ModelMemory, scenario: Scenario) -> int | None:
    """Return the smallest batch whose resident experts are all experts, by the scenario's law and rule.

    None where even LARGEST_BATCH leaves experts out.
    """

    def all_resident(batch: int) -> bool:
        unique = unique_experts(scenario.routing, memory.experts, memory.top_k, memory.popularity_cv, batch)
        return resident_experts(scenario, memory, batch, unique) >= memory.experts

    if not all_resident(LARGEST_BATCH):
        return None
    return 1 + bisect_left(range(1, LARGEST_BATCH + 1), True, key=all_resident)
