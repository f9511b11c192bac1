"""Every strategy on the same samples of a trace: at every batch size, by layer, by capacity and by link speed."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from prophet_moe.offload.replay import (
    RECORDED,
    SHUFFLED,
    Sample,
    SampleSize,
    Timed,
    available_strategies,
    layer_rows,
    metrics,
    run,
    samples,
    slots,
    with_interval,
)
from prophet_moe.offload.simulator.invariants import check_beside
from prophet_moe.offload.simulator.simulation import Hierarchy, Outcome, Times
from prophet_moe.offload.strategies import strategies
from prophet_moe.predict.network import Network
from prophet_moe.routing.trace import Trace
from studies.comparison.study import ComparisonSettings


def size_of(plan: ComparisonSettings) -> SampleSize:
    """Return the size of the samples that are compared."""
    return SampleSize(plan.sequences, plan.tokens, plan.sequence_order)


def comparative_results(
    name: str, trace: Trace, network: Network | None, timed: Timed, bound: Timed, plan: ComparisonSettings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row for every strategy at every batch size on every sample, and means over samples by layer.

    A strategy is run as it is described and also deduplicated: a serving engine computes each expert once for
    all tokens of a batch, whatever it does about caching. Both are reported by layer, as `deduplicated` says. The first
    sample is run with the times of the datasheet, `bound`, as well.
    """
    rows, by_layer = [], []
    hierarchy = Hierarchy((slots(trace.router.experts, plan.capacity_share),))
    for sample in samples(trace, network, size_of(plan), (RECORDED, SHUFFLED), plan.seeds):
        for batch in plan.batch_sizes:
            outcomes = _all_runs(sample, batch, hierarchy, timed(batch))
            first = sample.seed == 0 and sample.routing == RECORDED
            bounds = _all_runs(sample, batch, hierarchy, bound(batch)) if first else {}
            head = {"trace": name, "batch": batch, "seed": sample.seed, "sampled_share": sample.share}
            head |= {"routing": sample.routing}
            for (strategy, deduplicated), outcome in outcomes.items():
                described_as = strategies()[strategy]
                mode = {"strategy": strategy, "role": described_as.role, "deduplicated": deduplicated}
                described = {
                    "as_described": described_as.deduplicated == deduplicated,
                    "capacity": hierarchy.capacities[0],
                }
                least = _slowdown(bounds, (strategy, deduplicated)) if first else np.nan
                found = metrics(outcome, outcomes["all_resident", True].seconds) | {"slowdown_bound": least}
                rows.append(head | mode | described | found)
                reported = described["as_described"] or deduplicated
                if sample.routing == RECORDED and reported and batch in plan.sweep_batch_sizes:
                    by_layer += [head | mode | row for row in layer_rows(outcome, trace.router.layers)]
    keys = ["trace", "strategy", "role", "deduplicated", "batch", "layer", "sampled_share"]
    return pd.DataFrame(rows), with_interval(pd.DataFrame(by_layer).drop(columns=["seed", "routing"]), keys)


def _slowdown(outcomes: Mapping[tuple[str, bool], Outcome], run: tuple[str, bool]) -> float:
    """Return the time of a run over that with all experts resident."""
    return outcomes[run].seconds / outcomes["all_resident", True].seconds


def _all_runs(sample: Sample, batch: int, hierarchy: Hierarchy, times: Times) -> dict[tuple[str, bool], Outcome]:
    """Run all strategies of a batch size, deduplicated or not; check them against Belady and all experts resident."""
    outcomes, parts, training = {}, sample.parts(batch), sample.predictions.training
    for name, strategy in available_strategies(sample.predictions).items():
        for deduplicated in (True, False):
            if sample.routing == SHUFFLED and deduplicated != strategy.deduplicated and name != "belady":
                continue
            variant = replace(strategy, deduplicated=deduplicated)
            outcomes[name, deduplicated] = run(parts, training, variant, hierarchy, times)
    for (name, deduplicated), outcome in outcomes.items():
        least = outcomes["belady", deduplicated]
        if not deduplicated and (order := strategies()[name].order):
            # Regrouped tokens are another stream of requests, with an optimum of its own.
            regrouped = replace(strategies()["belady"], deduplicated=False, order=order)
            least = run(parts, training, regrouped, hierarchy, times)
        if not outcome.oversubscribed and name != "all_resident":
            check_beside(outcome, least, outcomes["all_resident", True])
    return outcomes


def sweep(name: str, trace: Trace, network: Network | None, timed: Timed, plan: ComparisonSettings) -> pd.DataFrame:
    """Run every strategy, deduplicated, as capacity goes from few experts to all, and as the link gets faster.

    Rows are means over samples with their 95 % interval; `link_speedup` is by how much copies are faster.
    """
    rows = []
    settings = [(share, 1.0) for share in plan.capacity_shares]
    settings += [(plan.capacity_share, speedup) for speedup in plan.link_speedups if speedup != 1]
    for sample in samples(trace, network, size_of(plan), (RECORDED,), plan.sweep_seeds):
        for batch in plan.sweep_batch_sizes:
            at_hand, parts = timed(batch), sample.parts(batch)
            for share, speedup in settings:
                times = replace(
                    at_hand,
                    transfer_seconds=(at_hand.transfer_seconds[0] / speedup,),
                    chunk_seconds=at_hand.chunk_seconds / speedup,
                )
                hierarchy = Hierarchy((slots(trace.router.experts, share),))
                for strategy_name, strategy in available_strategies(sample.predictions).items():
                    alike = replace(strategy, deduplicated=True)
                    outcome = run(parts, sample.predictions.training, alike, hierarchy, times)
                    head = {"trace": name, "strategy": strategy_name, "role": strategy.role, "batch": batch}
                    head |= {"capacity_share": share, "capacity": hierarchy.capacities[0], "link_speedup": speedup}
                    head |= {"sampled_share": sample.share}
                    rows.append(head | metrics(outcome, outcome.compute_seconds))
    frame = pd.DataFrame(rows)
    keys = ["trace", "strategy", "role", "batch", "capacity_share", "capacity", "link_speedup", "sampled_share"]
    return with_interval(frame[[*keys, "hit_rate", "slowdown", "step_ms_mean", "link_busy_share"]], keys)
