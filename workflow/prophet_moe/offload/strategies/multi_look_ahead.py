"""Multi-Look-Ahead (004:142-145): patterns of three layers predict the experts of the next three."""

from prophet_moe.offload.simulator.prefetch import LOOKAHEAD, ahead, batch_needs
from prophet_moe.offload.strategies import Strategy
from prophet_moe.predict.context import LAYERS_BEFORE


def plan_prefetches(batches, predictions, hierarchy):
    """Prefetch what the first choices of three layers make likely in the layers ahead."""
    distances = range(1, LOOKAHEAD + 1)
    return ahead(
        batches, {d: batch_needs(batches, predictions.transitions(d, LAYERS_BEFORE)) for d in distances}, hierarchy
    )


STRATEGY = Strategy(title="Multi-Look-Ahead", source="report 004:142", rank=5, prefetches=plan_prefetches)
