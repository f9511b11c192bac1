"""The cost of saved memory: KV extension against slowdown, with fewer and fewer resident experts.

Memory follows from the number of resident experts alone. Hit rates and times follow from simulating routing with the
layer times of each model on each GPU, as measured or estimated; the first sample is simulated with those of the
datasheet, too. Resident experts are slots, which a prefetch fills like any other copy: the simulator has no staging
buffer in addition, and memory has one only if a scenario sets it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from prophet_moe.capacity.configured import read_configured
from prophet_moe.capacity.context import cache_columns, cached_bytes, longest_context
from prophet_moe.capacity.limits import CONFIGURATION, reach
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.capacity.sweep import INPUTS, RUNTIME, evaluate
from prophet_moe.capacity.under_engine import Held
from prophet_moe.catalog import ModelSpec
from prophet_moe.hardware.pace import Paces
from prophet_moe.offload.replay import OVERSUBSCRIBED, Sample, run, slots
from prophet_moe.offload.simulator.simulation import Hierarchy
from prophet_moe.offload.simulator.timing import proxy_times, requests_of
from prophet_moe.offload.strategies import strategies
from prophet_moe.routing.intervals import beyond_sample, half_width
from prophet_moe.routing.trace import sequence_starts
from prophet_moe.routing.urn import ROUNDING_GUARD
from prophet_moe.settings.scenario import Formats, Scenario
from prophet_moe.tables import write_table
from prophet_moe.units import GB
from studies.frontier.study import CONTEXT_GAINED, FRONTIER, FrontierSettings

STRATEGIES = ("on_demand", "prophet", "perfect_prefetch")
"""No prediction, Prophet, and an oracle that knows the routing of the next step."""
CURVE = [*CONFIGURATION, "strategy"]
REPLAYED = [
    *(*CURVE, "resident_experts", "sample", "slowdown", "slowdown_bound", "hit_rate", OVERSUBSCRIBED),
    *("trace", "sampled_share", "times"),
]
"""Columns of `slowdowns`."""


def to_replay(grid: pd.DataFrame, plan: FrontierSettings) -> pd.DataFrame:
    """Select the rows of a grid that are replayed: its estimate where Prophet fits, batches up to the plan's."""
    fits = (grid["case"] == ESTIMATE) & grid["prophet_fits"].astype(bool)
    return grid[fits & (grid["batch_size"] <= plan.largest_batch)]


def slowdowns(
    source: str,
    samples: Sequence[Sample],
    models: Mapping[str, ModelSpec],
    paces: Mapping[str, Paces],
    grid: pd.DataFrame,
    context: int,
    formats: Formats,
    plan: FrontierSettings,
    chunk_mb: float,
) -> pd.DataFrame:
    """Return one row of REPLAYED per configuration of `grid`, strategy, number of resident experts and sample.

    `models` have the E and k of the routing that `source` names; `grid` holds u(B) as unique_experts by model, GPU
    and batch size. Deduplicated: an engine computes an expert once for all tokens of a batch. With every expert
    resident nothing is replayed: the slowdown is 1. Only the first sample is replayed at the pace of the datasheet,
    too: slowdown_bound of the others is empty.
    """
    rows, precisions = [], {name: formats.precision_of(spec.precision) for name, spec in models.items()}
    for sample in samples:
        routed = sample.trace
        held = len(sequence_starts(routed)) - 1
        experts, top_k = routed.router.experts, routed.router.top_k
        sizes = sorted({slots(experts, share) for share in plan.shares})
        hierarchies = [Hierarchy((count,)) for count in sizes if top_k <= count < experts]
        for batch, configurations in grid.groupby("batch_size"):
            sequences = max(plan.sequences, int(batch))
            parts = sample.parts(int(batch), sequences)
            requests = requests_of([batches for batches, _ in parts])
            for row in configurations.itertuples():
                arch, precision = models[row.model].architecture, precisions[row.model]
                needed = min(row.unique_experts, top_k * batch)
                layers = len(routed.router.layers)
                pace, first = paces[row.gpu], sample is samples[0]
                best, bound = (
                    proxy_times(arch, each, layers, int(batch), context, needed, requests, precision, chunk_mb)
                    for each in (pace.best, pace.bound)
                )
                for name in STRATEGIES:
                    alike = replace(strategies()[name], deduplicated=True)
                    head = {"model": row.model, "gpu": row.gpu, "batch_size": int(batch), "strategy": name}
                    head |= {"sample": sample.seed, "trace": source, "sampled_share": sample.share * sequences / held}
                    head |= {"times": pace.best.basis}
                    whole = {"resident_experts": experts, "slowdown": 1.0, "slowdown_bound": 1.0 if first else np.nan}
                    rows.append(head | whole | {"hit_rate": 1.0, OVERSUBSCRIBED: False})
                    for hierarchy in hierarchies:
                        outcome = run(parts, sample.predictions.training, alike, hierarchy, best)
                        found = {"resident_experts": hierarchy.capacities[0], OVERSUBSCRIBED: outcome.oversubscribed}
                        found |= {"slowdown": outcome.slowdown, "hit_rate": outcome.hit_rate}
                        if first:
                            found["slowdown_bound"] = run(
                                parts, sample.predictions.training, alike, hierarchy, bound
                            ).slowdown
                        rows.append(head | found)
    return pd.DataFrame(rows, columns=REPLAYED)


def reserves_of(grid: pd.DataFrame) -> dict[str, int]:
    """Return the runtime reserve in bytes of the GPUs of a grid where it was measured."""
    measured = grid[grid["runtime_reserve_basis"] == "measured"]
    return measured.groupby("gpu")["runtime_reserve_bytes"].first().astype(int).to_dict()


def joined(
    grid: pd.DataFrame, replayed: pd.DataFrame, held: Mapping[tuple[str, str], Held], scenario: Scenario
) -> pd.DataFrame:
    """Return the rows of `slowdowns` with the memory of their configuration, and the tokens of context that it leaves.

    `grid` is the capacity grid at its estimate, `held` the memory of its models by model and GPU. Prophet also keeps
    its predictor. All experts of an encoder stay. `tokens` is not cut at 0: below it, the experts do not fit.
    """
    rows = replayed.merge(grid.drop(columns="resident_experts"), on=CONFIGURATION, how="left", validate="many_to_one")
    columns = rows.assign(batch=rows["batch_size"].astype(np.float64))
    of_rows = [held[pair] for pair in zip(rows["model"], rows["gpu"], strict=True)]
    given = {name: columns[name].to_numpy() for name in INPUTS}
    given |= cache_columns([each.memory.further_caches for each in of_rows])
    given[RUNTIME] = np.array([each.runtime_bytes for each in of_rows], float)
    memory = evaluate(
        given,
        scenario,
        resident=rows["resident_experts"].to_numpy(float),
        staging_kept=(rows["strategy"] != "on_demand").to_numpy(),
        predictor_kept=(rows["strategy"] == "prophet").to_numpy(),
    )
    free = memory["prophet_free_bytes"]
    # A model of states alone caches nothing: there a token stands for a byte.
    short = np.floor(free / (given["batch"] * np.maximum(1.0, cached_bytes(given, np.ones_like(free)))))
    return rows.assign(
        tokens=np.where(free < 0, short, longest_context(given, free)),
        saved_gb=memory["expert_savings_bytes"] / GB,
    )


def frontier(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per configuration, strategy and number of resident experts; `rows` as `joined` returns them.

    Slowdown and hit rate are means over samples; the interval of the slowdown is over sequences. kv_extension_factor is
    empty where the baseline does not fit.
    """
    groups = rows.groupby([*CURVE, "resident_experts"], sort=False)
    same, count = groups.first(), groups.size()
    mean = groups[["slowdown", "slowdown_bound", "hit_rate"]].mean()
    half = half_width(groups["slowdown"].std(), count, beyond_sample(same["sampled_share"]))
    baseline, tokens = same["baseline_max_context"], same["tokens"].clip(lower=0)
    return pd.DataFrame(
        {
            "trace": same["trace"],
            "resident_share": same.index.get_level_values("resident_experts") / same["experts"],
            "slowdown": mean["slowdown"],
            "slowdown_low": np.maximum(1.0, mean["slowdown"] - half),
            "slowdown_high": mean["slowdown"] + half,
            "slowdown_bound": mean["slowdown_bound"],
            "times": same["times"],
            "hit_rate": mean["hit_rate"],
            OVERSUBSCRIBED: groups[OVERSUBSCRIBED].any(),
            "max_context": tokens,
            "baseline_max_context": baseline,
            "kv_extension_factor": (tokens / baseline).where(same["baseline_fits"].astype(bool)),
            "saved_gb": same["saved_gb"],
        }
    ).reset_index()


def context_gained(rows: pd.DataFrame, limits: Sequence[float]) -> pd.DataFrame:
    """Return KV extension and context at each limit of slowdown, a row per configuration and strategy of `joined` rows.

    Read from the mean slowdown over samples, by `limits.reach`. All experts resident is always possible: no limit gains
    less than 1, where the baseline fits. The interval is over sequences, from what each sample gains.
    """
    return pd.DataFrame(
        [dict(zip(CURVE, key, strict=True)) | _gained(curve, limits) for key, curve in rows.groupby(CURVE, sort=False)]
    )


def _gained(curve: pd.DataFrame, limits: Sequence[float]) -> dict[str, object]:
    by_sample = curve.pivot_table(index="resident_experts", columns="sample", values="slowdown")[::-1]
    experts = by_sample.index.to_numpy(float)
    tokens = curve.drop_duplicates("resident_experts").set_index("resident_experts")["tokens"].reindex(experts)
    baseline, share = (float(curve[name].iloc[0]) for name in ("baseline_max_context", "sampled_share"))
    slowdown, gained = by_sample.mean(axis=1).to_numpy(), tokens.to_numpy()
    contexts = np.maximum(reach(slowdown, gained, limits), baseline)
    held = experts[0] - reach(slowdown, experts[0] - experts, limits)
    sampled = np.maximum([reach(found, gained, limits) for found in by_sample.to_numpy().T], baseline)
    half = half_width(sampled.std(axis=0, ddof=1), len(sampled), beyond_sample(share))
    one = baseline if baseline else np.nan
    by_datasheet = curve.groupby("resident_experts")["slowdown_bound"].mean()
    bounded = np.maximum(reach(by_datasheet.reindex(experts).to_numpy(), gained, limits), baseline)
    row = {name: curve[name].iloc[0] for name in ("trace", "times")}
    row |= {"baseline_max_context": baseline}
    for limit, context, resident, aside, least in zip(limits, contexts, held, half, bounded, strict=True):
        at = f"at_{limit:g}x"
        row |= {f"resident_experts_{at}": resident, f"max_context_{at}": max(0.0, np.floor(context + ROUNDING_GUARD))}
        row |= {f"kv_extension_{at}": context / one}
        row |= {f"kv_extension_{at}_low": np.maximum(1, (context - aside) / one)}
        row |= {f"kv_extension_{at}_high": (context + aside) / one, f"kv_extension_{at}_bound": least / one}
    return row


def build(files, parameters):
    """Write the frontier and table 11."""
    grid = pd.read_parquet(files.grid)
    replayed = pd.concat(map(pd.read_parquet, files.slowdowns))
    configured = read_configured(files, parameters, sorted(set(replayed["gpu"])))
    held = replace(configured, reserves=reserves_of(grid)).held()
    rows = joined(grid[grid["case"] == ESTIMATE], replayed, held, configured.scenario)
    write_table(files.frontier, frontier(rows), FRONTIER)
    write_table(files.gained, context_gained(rows, parameters["slowdown_limits"]), CONTEXT_GAINED)
