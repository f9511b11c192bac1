"""What one trace says about its model's routing, as rows: every statistic, by layer and over all layers.

Statistics are of the decoded tokens, or of those of prefill where there are none, without sequences that their source
flags as repetitive and without duplicates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prophet_moe.routing import reuse, sequences, statistics
from prophet_moe.routing.law import uniform_occupancy
from prophet_moe.routing.law_schema import BATCHES
from prophet_moe.routing.schema import Row
from prophet_moe.routing.trace import Trace, sequence_starts

CAPACITY_SHARES = tuple(share / 16 for share in range(1, 17))
"""Cache sizes as shares of a layer's experts."""
BY_LAYER_BATCH = 8
BY_LAYER_SHARES = (0.25, 0.5, 0.75)
SEED = 0


@dataclass(frozen=True)
class Totals:
    """What is summed over the tokens of a trace of any length."""

    tokens: int
    sequences: int
    load: statistics.Floats
    """(L, E), as `statistics.load` has it."""
    overlap: statistics.Floats
    """(L,), as `statistics.consecutive_overlap` has it."""
    repetition: statistics.Floats | None
    """(L,), as `statistics.first_choice_repetition` has it; None where the choices are not in rank order."""


def totals_of(trace: Trace) -> Totals:
    """Compute the totals of a trace that is in memory."""
    repetition = statistics.first_choice_repetition(trace) if trace.ranked else None
    load, overlap = statistics.load(trace), statistics.consecutive_overlap(trace)
    return Totals(len(trace), len(sequence_starts(trace)) - 1, load, overlap, repetition)


def summarise(name: str, trace: Trace) -> list[Row]:
    """Compute all statistics of the described tokens of a trace, without repetition.

    Parameters
    ----------
    name : str
        What the rows call the trace.
    trace : Trace
        The whole trace, prompts included.

    Returns
    -------
    list of Row
        Means over layers, then rows by layer, with the shuffled control and what uniform routing would give.
    """
    trace = sequences.without_repetition(trace).described()
    return summarise_described(name, trace, totals_of(trace))


def summarise_described(name: str, trace: Trace, totals: Totals) -> list[Row]:
    """Compute all statistics of a trace called `name`.

    `trace` holds its described tokens without repetition, or a sample of them, and `totals` the sums over all of them.
    """
    control = statistics.shuffled(trace, SEED)
    rows = [*_sizes(name, trace, totals), *_load(name, trace, totals), *_persistence(name, trace, totals, control)]
    rows += _predictability(name, trace, control)
    if trace.token is not None:
        rows += _token_information(name, trace)
    for batching in ("decode_step", "staggered", "prefill"):
        rows += _distinct(name, trace, control, batching)
    rows += _reuse(name, trace, control)
    return rows


def _sizes(name: str, trace: Trace, totals: Totals) -> Iterator[Row]:
    router = trace.router
    sizes = {
        "tokens": totals.tokens,
        "sequences": totals.sequences,
        "moe_layers": len(router.layers),
        "experts": router.experts,
        "top_k": router.top_k,
    }
    for statistic, value in sizes.items():
        yield Row(name, statistic, None, None, value)


def _load(name: str, trace: Trace, totals: Totals) -> Iterator[Row]:
    most = np.log2(trace.router.experts)
    yield from _by_layer(name, "load_skew", trace, statistics.load_skew(totals.load), uniform=1.0)
    yield from _by_layer(name, "load_entropy_share", trace, statistics.load_entropy(totals.load) / most, uniform=1.0)


def _persistence(name: str, trace: Trace, totals: Totals, control: Trace) -> Iterator[Row]:
    by_chance = statistics.consecutive_overlap(control)
    share = trace.router.top_k / trace.router.experts
    yield from _by_layer(name, "consecutive_overlap", trace, totals.overlap, control=by_chance, uniform=share)
    if totals.repetition is not None:
        by_chance, uniform = statistics.first_choice_repetition(control), 1 / trace.router.experts
        repetition = totals.repetition
        yield from _by_layer(name, "first_choice_repetition", trace, repetition, control=by_chance, uniform=uniform)


def _predictability(name: str, trace: Trace, control: Trace) -> Iterator[Row]:
    """Recall of a naive Bayes on the layer before: what a predictor that only counts would know."""
    halves = (sequences.split_to_evaluate(part, sequences.TRAINING_SHARE, SEED) for part in (trace, control))
    recalls, by_chance = (statistics.next_layer_recall(*half) for half in halves)
    for place, label in enumerate(("k", "2k")):
        uniform = recalls.ranks[place] / trace.router.experts
        for predictor in ("naive_bayes", "posterior", "popularity"):
            values, chance = (getattr(recall, predictor)[place] for recall in (recalls, by_chance))
            statistic = f"next_layer_recall_{label}_{predictor}"
            yield from _by_layer(name, statistic, trace, values, control=chance, uniform=uniform, first=1)


def _token_information(name: str, trace: Trace) -> Iterator[Row]:
    information = statistics.token_information(trace, seed=SEED)
    yield from _by_layer(
        name, "token_information_bits", trace, information.bits, control=information.control, uniform=0.0
    )


def _distinct(name: str, trace: Trace, control: Trace, batching: statistics.Batching) -> Iterator[Row]:
    statistic = f"distinct_experts_{batching}"
    distinct = statistics.distinct_by_batch(trace, BATCHES, batching, seed=SEED)
    # Short traces have no batch of the larger sizes.
    batches = [batch for batch, values in zip(BATCHES, distinct, strict=True) if not np.isnan(values).any()]
    by_chance = statistics.distinct_by_batch(control, batches, batching, seed=SEED)
    low, high = statistics.bootstrap_distinct(trace, batches, batching, seed=SEED)
    router = trace.router
    for place, batch in enumerate(batches):
        uniform = float(uniform_occupancy(np.float64(router.experts), np.float64(router.top_k), np.float64(batch)))
        yield Row(
            name,
            statistic,
            None,
            batch,
            distinct[place].mean(),
            low[place],
            high[place],
            by_chance[place].mean(),
            uniform,
        )
        if batch == BY_LAYER_BATCH:
            yield from _by_layer(
                name, statistic, trace, distinct[place], control=by_chance[place], uniform=uniform, x=batch, mean=False
            )


def _reuse(name: str, trace: Trace, control: Trace) -> Iterator[Row]:
    experts = trace.router.experts
    trace, control = (sequences.mixed(t, SEED) for t in (trace, control))
    for statistic, hits in (("lru_hit_rate", reuse.lru_hits), ("belady_hit_rate", reuse.belady_hits)):
        rates, by_chance = (reuse.hit_rates(t, hits) for t in (trace, control))
        for share in CAPACITY_SHARES:
            slots = round(share * experts)
            if slots < 1 or abs(slots - share * experts) > 1e-9:
                continue
            values, chance = rates[:, slots - 1], by_chance[:, slots - 1]
            yield Row(name, statistic, None, share, values.mean(), control=chance.mean())
            if share in BY_LAYER_SHARES:
                yield from _by_layer(name, statistic, trace, values, control=chance, x=share, mean=False)


def _over_layers(values: np.ndarray) -> float:
    """Return the mean over layers; NaN without layers, as for pairs of layers in a model with a single MoE layer."""
    return values.mean() if len(values) else np.nan


def _by_layer(
    name: str,
    statistic: str,
    trace: Trace,
    values: np.ndarray,
    *,
    control: np.ndarray | None = None,
    uniform: float | None = None,
    x: float | None = None,
    first: int = 0,
    mean: bool = True,
) -> Iterator[Row]:
    """Yield the mean over layers, then one row per layer from the `first` on."""
    if mean:
        chance = None if control is None else _over_layers(control)
        yield Row(name, statistic, None, x, _over_layers(values), control=chance, uniform=uniform)
    for place, layer in enumerate(trace.router.layers[first:]):
        chance = None if control is None else control[place]
        yield Row(name, statistic, layer, x, values[place], control=chance, uniform=uniform)
