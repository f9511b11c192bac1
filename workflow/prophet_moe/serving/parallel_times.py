"""Times of a decode step over several GPUs: an estimate with all experts resident, and what experts without a slot add.

With copies of attention, a copy's step is that of its own sequences, with the experts of the whole batch in place of
its own and the all-to-all added. A token passes the stages of a pipeline one after another. GPUs fetch over host links
of their own, side by side: split experts in parts, whole ones each GPU its own.
"""

from dataclasses import dataclass

from prophet_moe.capacity.several_gpus import Spread
from prophet_moe.catalog.architecture import letters
from prophet_moe.catalog.link import LinkSpec
from prophet_moe.hardware.estimate import Estimator, Split, estimate_step, layer_operations
from prophet_moe.serving.exchange import Exchange
from prophet_moe.units import GB


@dataclass(frozen=True)
class SpreadTimes:
    """Seconds of one decode step of a batch over several GPUs."""

    seconds: float
    """The estimate with every expert resident."""
    low: float
    high: float
    """Ends of its interval."""
    all_to_all: float
    """Seconds of it that the all-to-all takes: bytes over the speed of the link, without latency."""


def step_times(
    held: Spread, estimator: Estimator, batch: int, context: int, traffic: Exchange, link_gb_per_s: float
) -> SpreadTimes:
    """Estimate a decode step with all experts resident.

    Parameters
    ----------
    held : Spread
        The model in its layout.
    estimator : Estimator
        The GPU with its operators and constants.
    batch, context : int
        Sequences of the whole system, and cached tokens of each.
    traffic : Exchange
        What GPUs send per token.
    link_gb_per_s : float
        What one GPU sends to others, GB/s that are reached; it carries the all-to-all.
    """
    arch, over = held.spec.architecture, held.over
    precision = held.scenario.precision_of(held.spec.precision)
    sequences, top_k, experts = held.sequences(batch), held.whole.top_k, held.whole.experts
    unique = min(held.unique_experts(batch), top_k * batch, experts)
    by_expert = over.expert > 1
    if over.data == 1:
        found = estimate_step(estimator, arch, batch, context, unique, precision, Split(over.tensor, by_expert))
        return SpreadTimes(found.seconds, found.low, found.high, 0.0)
    own = min(held.unique_experts(sequences), top_k * sequences, experts)
    found = estimate_step(estimator, arch, sequences, context, own, precision, Split(over.tensor))

    def of_experts(tokens: int, used: float, split: Split) -> float:
        """Seconds of the MoE operators of all layers."""
        blocks = (arch.blocks[letter] for letter in letters(arch.pattern))
        operations = (
            each for block in blocks for each in layer_operations(arch, block, tokens, context, used, precision, split)
        )
        return sum(estimator.operation_seconds(each) for each in operations if each.kind == "moe_layer")

    exchanged = batch * traffic.all_to_all / over.experts_over / (link_gb_per_s * GB)
    alone = of_experts(sequences, own, Split(over.tensor))
    together = of_experts(batch, unique, Split(over.experts_over, True))
    seconds = found.seconds - alone + together + exchanged
    ratio = seconds / found.seconds
    return SpreadTimes(seconds, found.low * ratio, found.high * ratio, exchanged)


def fetch_seconds(held: Spread, estimator: Estimator, batch: int, hit_rate: float, link: LinkSpec) -> float:
    """Return the seconds of a step's copies from the host, if all GPUs copy side by side.

    `hit_rate` is the share of the distinct experts of a layer-step that are in slots when the layer runs.
    """
    memory = held.stages[0].memory
    needed = min(held.unique_experts(batch) * memory.experts / held.whole.experts, memory.experts)
    copies = len(held.spec.architecture.moe_layers) * needed * (1 - hit_rate)
    return link.seconds(estimator.spec, memory.expert_bytes, copies)
