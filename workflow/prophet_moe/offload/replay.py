"""Replays of routing traces: samples of sequences, cut into batches, served from an expert cache by one strategy.

A sample is so many sequences of a trace's held-out half, and so many decoded tokens of each. All strategies, batch
sizes and capacities replay the same samples, so that differences are paired. Caches start with the experts that were
chosen most often in the half that predictors learn from. Samples share sequences: `routing.intervals` says what their
spread tells of other sequences.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from prophet_moe.errors import UserError
from prophet_moe.offload.simulator import engine
from prophet_moe.offload.simulator.batching import DecodeBatches, LayerAccesses, accesses_of, decode_batches
from prophet_moe.offload.simulator.invariants import check
from prophet_moe.offload.simulator.predictions import Predictions, TrainingStatistics
from prophet_moe.offload.simulator.simulation import Hierarchy, Job, Outcome, Prefetches, Times, simulate
from prophet_moe.offload.strategies import Strategy, strategies
from prophet_moe.predict.context import split
from prophet_moe.predict.network import Network
from prophet_moe.routing.intervals import beyond_sample, half_width
from prophet_moe.routing.sequences import mixed, window
from prophet_moe.routing.statistics import shuffled
from prophet_moe.routing.trace import PHASES, Trace, sequence_starts
from prophet_moe.settings.fields import SequenceOrder

RECORDED, SHUFFLED = "recorded", "shuffled"
"""Whether the routing is as recorded, or every layer's choices permuted over all tokens of the sample."""
PERCENTILES = (50, 95, 99)
OVERSUBSCRIBED = "waves"
"""The published column that says whether a layer needed more experts at once than it has slots."""

MIXING_SEED = 0
"""Seed of the order in which a whole trace is replayed."""
PIECE_TOKENS = 8192
"""Tokens of each piece of a long trace that is replayed piece by piece."""
Part = tuple[DecodeBatches, Predictions]
"""What is decoded, and what is predicted of its tokens."""
Timed = Callable[[int], Times]
"""Times of a device at a batch size."""


class SampleSize(NamedTuple):
    """How much of a trace one sample replays, and in which order its sequences are batched."""

    sequences: int
    tokens: int
    order: SequenceOrder = "mixed"


@dataclass(frozen=True)
class Sample:
    """Sequences to be replayed, and what can be predicted of them."""

    predictions: Predictions
    seed: int
    routing: str
    share: float = 1.0
    """Share of the held-out sequences that are long enough, which the sample holds."""

    @property
    def trace(self) -> Trace:
        """Return the trace of the sample's tokens."""
        return self.predictions.trace

    def parts(self, batch: int, sequences: int | None = None) -> list[Part]:
        """Return its first `sequences`, by default all, `batch` at a time; they keep what is computed of them for many
        runs.
        """
        choices, starts = self.trace.experts, sequence_starts(self.trace)
        starts = starts if sequences is None else starts[: sequences + 1]
        return [
            (batches, self.predictions) for batches in decode_batches(choices, starts, batch, self.trace.router.experts)
        ]


def parts_of(training: TrainingStatistics, trace: Trace, batch: int, order: SequenceOrder = "mixed") -> Iterator[Part]:
    """Yield a long trace for one run, in pieces of whole batches, so that only one piece is in memory.

    Its sequences are mixed, so that a batch has several tenants, or taken as recorded, one tenant at a time.
    """
    trace = mixed(trace, MIXING_SEED) if order == "mixed" else trace
    starts = sequence_starts(trace)
    first, last = 0, len(starts) - 1
    while first < last:
        enough = int(np.searchsorted(starts, starts[first] + PIECE_TOKENS))
        end = min(last, first + batch * max(1, (enough - first) // batch))
        rows = np.zeros(len(trace), bool)
        rows[starts[first] : starts[end]] = True
        yield from Sample(Predictions(training, trace.select(rows)), 0, RECORDED).parts(batch)
        first = end


def samples(
    trace: Trace, network: Network | None, size: SampleSize, routings: Sequence[str], seeds: int
) -> Iterator[Sample]:
    """Yield `seeds` samples of a trace, each of the `routings`; too few long sequences are a UserError."""
    learned_from, held_out = split(trace)
    training, decoded = TrainingStatistics(learned_from, network), held_out.described()
    for seed in range(seeds):
        drawn = draw(decoded, *size[:2], seed, size.order)
        share = size.sequences / _as_long(decoded, size.tokens)
        for routing in routings:
            tokens = drawn if routing == RECORDED else shuffled(drawn, seed)
            yield Sample(Predictions(training, tokens), seed, routing, share)


def long_sequences(trace: Trace, tokens: int) -> int:
    """Count the held-out sequences of at least so many decoded tokens."""
    _, held_out = split(trace)
    return _as_long(held_out.described(), tokens)


def _as_long(trace: Trace, tokens: int) -> int:
    """Count the sequences of `trace` that have at least so many tokens."""
    return int(np.count_nonzero(np.diff(sequence_starts(trace)) >= tokens))


def draw(trace: Trace, sequences: int, tokens: int, seed: int, order: SequenceOrder = "mixed") -> Trace:
    """Draw `tokens` consecutive tokens, from a random one on, of each of `sequences` sequences, without replacement.

    Neighbours of the result decode together. `mixed`: as drawn, so that a batch mixes the trace's domains, and each of
    its sequences is at a token of its own, as in continuous batching. `one_tenant_at_a_time`: as recorded, domain by
    domain. Too few sequences of so many tokens are a UserError.
    """
    lengths = np.diff(sequence_starts(trace))
    long = np.flatnonzero(lengths >= tokens)
    if len(long) < sequences:
        phase = PHASES[trace.described_phase]
        problem = f"{len(long)} held-out sequences of {tokens} {phase} tokens, expected {sequences}"
        raise UserError(trace.router.model, problem, "Lower its `sequences` or `tokens` in config/experiment.yaml.")
    random = np.random.default_rng(seed)
    chosen = random.permutation(long)[:sequences]
    if order == "one_tenant_at_a_time":
        chosen.sort()
    first = random.integers(lengths[chosen] - tokens + 1)
    return window(trace, chosen, first, np.full(sequences, tokens))


def available_strategies(predictions: Predictions) -> dict[str, Strategy]:
    """Return all strategies by name, Prophet only where a predictor was trained on the trace."""
    return {
        name: strategy for name, strategy in strategies().items() if name != "prophet" or predictions.training.network
    }


def slots(experts: int, share: float) -> int:
    """Return the slots of each layer for a share of its experts, at least 1."""
    return max(1, round(share * experts))


def run(
    parts: Iterable[Part],
    training: TrainingStatistics,
    strategy: Strategy,
    hierarchy: Hierarchy,
    times: Times,
    *,
    oversubscribe: bool = True,
) -> Outcome:
    """Run one strategy and check what must hold of every run.

    A layer may `oversubscribe` its slots; else that is a UserError. Only Belady's rule, which needs to know all that is
    to come, takes more memory than one part.
    """
    popularity = training.popularity
    if strategy.all_resident:
        every = popularity.shape[1] if hierarchy.per_layer else popularity.size
        hierarchy, times = (
            Hierarchy((every,), hierarchy.per_layer),
            replace(times, transfer_seconds=times.transfer_seconds[-1:]),
        )
    jobs = (
        Job(batches, _accesses_of(batches, strategy, predictions), _planned(batches, strategy, predictions, hierarchy))
        for batches, predictions in parts
    )
    return check(simulate(jobs, hierarchy, times, popularity, strategy.eviction, oversubscribe=oversubscribe), times)


def _accesses_of(batches: DecodeBatches, strategy: Strategy, predictions: Predictions) -> LayerAccesses:
    def make() -> LayerAccesses:
        order = strategy.order and strategy.order(batches, predictions)
        return accesses_of(batches, deduplicated=strategy.deduplicated, order=order)

    return batches.memo(("accesses", strategy.deduplicated, strategy.order), make)


def _planned(batches: DecodeBatches, strategy: Strategy, predictions: Predictions, hierarchy: Hierarchy) -> Prefetches:
    return batches.memo((strategy.prefetches, hierarchy), lambda: strategy.prefetches(batches, predictions, hierarchy))


def with_interval(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return means of all other columns by `keys` over samples, and their 95 % interval, which a single row has not.

    The last of `keys` is `sampled_share`; the interval is of other sequences too, as `routing.intervals` explains.
    """
    groups = frame.groupby(list(keys), sort=False)
    mean, count = groups.mean(), groups.size()
    share = count.index.get_level_values("sampled_share")
    half = groups.std().mul(half_width(1.0, count, beyond_sample(share)), axis=0)
    columns = {}
    for name in mean:
        columns |= {name: mean[name], f"{name}_low": mean[name] - half[name], f"{name}_high": mean[name] + half[name]}
    return pd.DataFrame(columns).reset_index()


def metrics(outcome: Outcome, resident_seconds: float) -> dict[str, object]:
    """Return the columns that are reported of a run; milliseconds are per step, so per token of each sequence.

    `resident_seconds` is what the same tokens take with all experts resident, each computed once for the whole batch.
    """
    count, requests = outcome.count, int(outcome.requests.sum())
    steps, compute = 1e3 * outcome.step_seconds, outcome.compute_seconds
    moved = outcome.demand_seconds + outcome.prefetch_seconds
    wasted = float(outcome.sums[engine.WASTED_SHARE].sum())
    useful, late = count(engine.PREFETCHED) + outcome.pending, count(engine.LATE)
    return {
        "step_ms_mean": steps.mean(),
        **dict(zip((f"step_ms_p{rank}" for rank in PERCENTILES), np.percentile(steps, PERCENTILES), strict=True)),
        "tokens_per_second": outcome.step_tokens.sum() / outcome.seconds,
        "slowdown": outcome.seconds / resident_seconds,
        "stall_share": outcome.sums[engine.STALL].sum() / outcome.seconds,
        "hit_rate": outcome.hit_rate,
        "kept_share": count(engine.KEPT) / requests,
        "prefetched_share": count(engine.PREFETCHED) / requests,
        "late_share": late / requests,
        "missed_share": count(engine.MISSED) / requests,
        "routed_requests": outcome.routed,
        "requests": requests,
        "request_dedup": outcome.request_dedup,
        "demand_copies": count(engine.MISSED),
        "useful_prefetches": useful,
        "late_prefetches": late,
        "wasted_prefetches": wasted,
        "link_busy_share": moved / outcome.seconds,
        "prefetch_gain_bound": (compute + moved) / max(compute, moved),
        OVERSUBSCRIBED: outcome.oversubscribed,
    }


def layer_rows(outcome: Outcome, layers: Sequence[int]) -> Iterator[dict[str, object]]:
    """Yield the columns that are reported of each layer of a run."""
    for number, layer in enumerate(layers):
        requests = outcome.requests[number]
        yield {
            "layer": layer,
            "unique_experts": requests / len(outcome.step_seconds),
            "hit_rate": 1 - (outcome.counts[engine.MISSED, number] + outcome.counts[engine.LATE, number]) / requests,
            "prefetched_share": outcome.counts[engine.PREFETCHED, number] / requests,
            "stall_ms": 1e3 * outcome.sums[engine.STALL, number] / len(outcome.step_seconds),
            "wasted_prefetches": outcome.sums[engine.WASTED_SHARE, number] / len(outcome.step_seconds),
        }
