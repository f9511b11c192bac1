"""What a saved gigabyte costs: KV extension against slowdown, as fewer experts stay on the GPU.

Memory follows from the number of resident experts alone; hit rates, and with them time, from replaying recorded routing
with the times of each model on each GPU. A model without a trace of its own is replayed on the one most like it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log2

import numpy as np
import pandas as pd

from prophet_moe.cachesim.experiments import RECORDED, long_sequences, places, run, samples
from prophet_moe.cachesim.rounds import Round
from prophet_moe.cachesim.simulation import Hierarchy
from prophet_moe.cachesim.strategies import strategies
from prophet_moe.cachesim.timing import standing_for
from prophet_moe.cachesim.wishes import true_needs
from prophet_moe.capacity.sweep import INPUTS, evaluate
from prophet_moe.catalog import ModelSpec
from prophet_moe.hardware.profile import Profile
from prophet_moe.precision import Precision
from prophet_moe.predict.network import Network
from prophet_moe.routing.trace import Router, Trace
from prophet_moe.settings import Scenario, Simulation
from prophet_moe.units import GB

STRATEGIES = {"on_demand": False, "prophet": True, "perfect_prefetch": True}
"""No prediction, Prophet, and an oracle; whether they stage experts ahead."""


POINT = ["model", "gpu", "batch_size", "strategy", "resident_share"]


def nearest_trace(experts: int, top_k: int, routers: Mapping[str, Router]) -> str:
    """The trace whose E and k are least powers of two away, in sum; of equals the first by name."""

    def apart(name: str) -> float:
        router = routers[name]
        return abs(log2(router.experts / experts)) + abs(log2(router.top_k / top_k))

    return min(sorted(routers), key=apart)


def slowdowns(
    trace: Trace,
    network: Network | None,
    models: Mapping[str, ModelSpec],
    profiles: Mapping[str, Profile],
    grid: pd.DataFrame,
    context: int,
    precision: Precision,
    plan: Simulation,
) -> pd.DataFrame:
    """One row per model, GPU, batch size of `grid`, strategy and resident share: slowdown and hit rate.

    `grid` holds u(B) as unique_experts by model, gpu and batch_size. One sample is replayed; batches of more sequences
    than the trace has held out are left out.
    """
    batches = [
        int(batch) for batch in grid["batch_size"].unique() if batch <= long_sequences(trace, plan.frontier_tokens)
    ]
    size = {"sequences": max([plan.sequences, *batches]), "tokens": plan.frontier_tokens}
    enough = plan.model_copy(update=size)
    sample = next(samples(trace, network, enough, (RECORDED,), 1))
    known = {name: strategies()[name] for name in STRATEGIES if name != "prophet" or network}
    needed = grid.set_index(["model", "gpu", "batch_size"])["unique_experts"]
    rows = []
    for batch in batches:
        parts = sample.parts(batch)
        requests = _requests([decoding for decoding, _ in parts])
        for model, spec in models.items():
            for gpu, profile in profiles.items():
                times = standing_for(
                    spec.architecture,
                    profile,
                    len(trace.router.layers),
                    batch,
                    context,
                    min(needed[model, gpu, batch], spec.architecture.moe.top_k * batch),
                    requests,
                    precision,
                    plan.copy_chunk_mb,
                )
                for name, strategy in known.items():
                    for share in plan.frontier_shares:
                        hierarchy = Hierarchy((places(trace.router.experts, share),))
                        alike = replace(strategy, deduplicated=True)
                        outcome = run(parts, sample.forecast.learned, alike, hierarchy, times)
                        rows.append(
                            {"model": model, "gpu": gpu, "batch_size": batch, "strategy": name}
                            | {"resident_share": hierarchy.rooms[0] / trace.router.experts}
                            | {"slowdown": outcome.seconds / outcome.compute_seconds, "hit_rate": outcome.hit_rate}
                            | {"waves": outcome.waves}
                        )
    return pd.DataFrame(rows, columns=[*POINT, "slowdown", "hit_rate", "waves"]).drop_duplicates(POINT)


def _requests(replayed: Sequence[Round]) -> float:
    """Distinct experts that a layer of the trace needs at a step, mean."""
    asked = sum(len(true_needs(decoding).ids) for decoding in replayed)
    return asked / sum(len(decoding.rows) * decoding.layers for decoding in replayed)


def frontier(grid: pd.DataFrame, times: pd.DataFrame, scenario: Scenario) -> pd.DataFrame:
    """Join slowdowns with what the resident experts leave for the KV cache.

    `grid` is the capacity grid at its estimate. A strategy that prefetches keeps a staging buffer, Prophet its
    predictor besides; the experts of an encoder all stay. kv_extension_factor is empty where the baseline does not fit.
    """
    scenario = scenario.model_copy(update={"undefined_extension": "empty"})
    joined = times.merge(grid, on=["model", "gpu", "batch_size"], how="left", validate="many_to_one")
    resident = np.ceil(joined["resident_share"] * joined["experts"] - 1e-9)
    columns = joined.assign(batch=joined["batch_size"].astype(np.float64))
    memory = evaluate(
        {name: columns[name].to_numpy() for name in INPUTS},
        scenario,
        resident=resident.to_numpy(),
        staging_kept=joined["strategy"].map(STRATEGIES).to_numpy(),
        predictor_kept=(joined["strategy"] == "prophet").to_numpy(),
    )
    return joined[["model", "gpu", "batch_size", "strategy", "trace"]].assign(
        resident_experts=resident,
        resident_share=resident / joined["experts"],
        slowdown=joined["slowdown"],
        hit_rate=joined["hit_rate"],
        waves=joined["waves"],
        max_context=memory["prophet_max_context"],
        baseline_max_context=memory["baseline_max_context"],
        kv_extension_factor=memory["kv_extension_factor"],
        saved_gb=memory["expert_savings_bytes"] / GB,
    )


def context_gained(points: pd.DataFrame, limits: Sequence[float]) -> pd.DataFrame:
    """One row per model, GPU, batch size and strategy: the most KV extension and context at each limit of slowdown.

    All experts resident is always possible: no limit gains less than 1, where the baseline fits.
    """
    groups = points.groupby(["model", "gpu", "batch_size", "strategy"], sort=False)
    known = groups[["trace", "baseline_max_context"]].first()
    table, baseline = known[["trace"]].copy(), known["baseline_max_context"]
    for limit in limits:
        allowed = points["max_context"].where(points["slowdown"] <= limit)
        best = allowed.groupby([points[name] for name in known.index.names], sort=False).max().fillna(0)
        table[f"max_context_at_{limit:g}x"] = best.where(best > baseline, baseline)
        table[f"kv_extension_at_{limit:g}x"] = table[f"max_context_at_{limit:g}x"] / baseline.where(baseline > 0)
    return table.reset_index()
