"""The three tables of report 004, simulated: strategies, deduplication, and batch sizes, next to the report's claims.

A speedup is over On-Demand in the same mode: as described (On-Demand takes the tokens of a batch one by one, as the
report's baselines do), or deduplicated (each strategy accesses each distinct expert of a batch once, as serving engines
do). Over several batch sizes it is the geometric mean of theirs, in which each size counts the same; the report's own
means weigh milliseconds, so that the largest batch decides. Comparisons are paired by sample, their intervals those of
`routing.intervals`. No p-values: the few samples that share sequences carry none, and whether an interval excludes 1
says as much as can be said.
"""

import numpy as np
import pandas as pd

from prophet_moe.present.select import where
from prophet_moe.routing.intervals import beyond_sample, mean_interval
from prophet_moe.tables import joined, write_table
from studies.comparison.deduplication import MEASURED
from studies.comparison.study import (
    DEDUPLICATION,
    LAYERS,
    RESULTS,
    SAVINGS,
    SCALING,
    STRATEGIES,
    SWEEPS,
    ReportedComparison,
)

BASE = "on_demand"
UNPREDICTED = "intelligent"
"""What Prophet is without its predictor: the same cache, prefetching by counted transitions."""
PAPERS = ("on_demand", "pre_gated", "expertflow")
"""What the report calls paper baselines (004:30-32)."""
OURS = ("top_k", "multi_look_ahead", "intelligent")
"""What the report calls its own strategies (004:33-35)."""
MODES = {"as_described": ("as_described", True), "deduplicated": ("deduplicated", True)}
"""Column and value that select the runs of a mode."""
ALL_BATCHES = "all"
"""In place of a batch size: the summary over all of them."""


def strategy_summary(results: pd.DataFrame, claimed: ReportedComparison) -> pd.DataFrame:
    """One row per trace, routing, mode, batch size and strategy, and one over all batch sizes: times and speedups.

    Every speedup has a 95 % interval: over On-Demand, and over Intelligent, which is what prediction adds to Prophet.
    """
    rows = []
    for (trace, routing), found in results.groupby(["trace", "routing"], sort=False):
        for mode, (column, value) in MODES.items():
            runs = found[found[column] == value]
            if BASE not in set(runs["strategy"]):
                continue
            by_batch = [*((str(batch), of_batch) for batch, of_batch in runs.groupby("batch")), (ALL_BATCHES, runs)]
            for batch, of_batch in by_batch:
                head = {"trace": trace, "routing": routing, "mode": mode, "batch": batch}
                claims = claimed.speedups if (mode, batch) == ("as_described", ALL_BATCHES) else {}
                rows += [head | row | {"claimed_speedup": claims.get(row["strategy"])} for row in _strategies(of_batch)]
    return pd.DataFrame(rows)


def _strategies(runs: pd.DataFrame) -> list[dict[str, object]]:
    """One row per strategy: means of the runs, and speedups by sample."""
    steps, weighted = sample_steps(runs), _by_sample(runs, runs["step_ms_mean"])
    means = runs.groupby("strategy")[["step_ms_mean", "hit_rate", "slowdown", "slowdown_bound", "stall_share"]].mean()
    means = means.rename(columns={"step_ms_mean": "step_ms"})
    return [
        {"strategy": strategy}
        | means.loc[strategy].to_dict()
        | speedup(steps[BASE], mine)
        | {"speedup_ms_weighted": speedup(weighted[BASE], weighted[strategy])["speedup"]}
        | speedup(steps[UNPREDICTED], mine, "over_intelligent")
        for strategy, mine in steps.items()
    ]


def batch_scaling(results: pd.DataFrame, claimed: ReportedComparison) -> pd.DataFrame:
    """One row per trace, mode and batch size: our fastest over the mean of the papers' and over the fastest of theirs.

    Which is fastest is chosen for every sample by the other samples, of ours and of theirs alike.
    """
    claims = {"claimed_papers_ms": claimed.papers_ms, "claimed_best_ms": claimed.best_ms}
    claims |= {"claimed_speedup": claimed.improvements, "claimed_saving": claimed.scaling_savings}
    rows = []
    for trace, found in where(results, routing="recorded").groupby("trace", sort=False):
        for mode, (column, value) in MODES.items():
            for batch, runs in found[found[column] == value].groupby("batch"):
                steps = sample_steps(runs)
                papers = steps[list(PAPERS)].mean(axis=1)
                paper, ours = chosen_by_others(steps[list(PAPERS)]), chosen_by_others(steps[list(OURS)])
                theirs, mine = _of_choice(steps, paper), _of_choice(steps, ours)
                saved = _of_choice(_by_sample(runs, runs["request_dedup"]), ours)
                rows.append(
                    {"trace": trace, "mode": mode, "batch": batch, "papers_step_ms": papers.mean()}
                    | _told("best_paper", paper, theirs)
                    | _told("best", ours, mine)
                    | speedup(papers, mine)
                    | speedup(theirs, mine, "speedup_over_best_paper")
                    | {"request_dedup": saved.mean()}
                    | {name: told.get(batch) if mode == "as_described" else None for name, told in claims.items()}
                )
    return pd.DataFrame(rows)


def chosen_by_others(steps: pd.DataFrame) -> pd.Series:
    """For every sample (row), the strategy (column) with the least mean step in the other samples.

    So no strategy is evaluated on the sample that it was chosen by. A single sample has no other and chooses itself.
    """
    others = (steps.sum() - steps) / (len(steps) - 1) if len(steps) > 1 else steps
    return others.idxmin(axis=1)


def _of_choice(table: pd.DataFrame, choice: pd.Series) -> pd.Series:
    """From each row of a table the column that was chosen for it."""
    values = table.to_numpy()[np.arange(len(table)), table.columns.get_indexer(choice)]
    return pd.Series(values, table.index)


def _told(name: str, choice: pd.Series, steps: pd.Series) -> dict[str, object]:
    """What was chosen most often, in which share of the samples, and the mean step of what was chosen."""
    often = choice.value_counts(normalize=True)
    return {name: often.index[0], f"{name}_share": often.iloc[0], f"{name}_step_ms": steps.mean()}


def deduplication_summary(counted: pd.DataFrame, claimed: ReportedComparison) -> pd.DataFrame:
    """One row per trace and batch size: means over batches drawn with their intervals, and the report's numbers."""
    rows = []
    for (trace, batch), runs in counted.groupby(["trace", "batch"], sort=False):
        row = {"trace": trace, "batch": batch, "runs": len(runs), "unique_experts": runs["unique_experts"].mean()}
        for name in MEASURED:
            row |= {name: runs[name].mean()}
            row |= {end: runs[end].iloc[0] for end in (f"{name}_low", f"{name}_high")}
        row |= {"uniform_request_dedup": runs["uniform_request_dedup"].mean()}
        told = {"claimed_saving": claimed.savings, "claimed_saving_in_scaling": claimed.scaling_savings}
        told |= {"claimed_reuse": claimed.reuse}
        rows.append(row | {name: values.get(batch) for name, values in told.items()})
    return pd.DataFrame(rows)


def sample_steps(runs: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds per step, geometric mean over the batch sizes of `runs`: a row per sample, a column per strategy.

    The index has the `seed` of each sample and its `sampled_share`, which intervals need.
    """
    return np.exp(_by_sample(runs, np.log(runs["step_ms_mean"])))


def _by_sample(runs: pd.DataFrame, values: pd.Series) -> pd.DataFrame:
    """Means of `values`, one a run: a row per sample, a column per strategy, both in the order of the runs."""
    index = ["seed", "sampled_share"]
    return runs.assign(value=values).pivot_table(index=index, columns="strategy", values="value", sort=False)


def speedup(base: pd.Series, mine: pd.Series, name: str = "speedup") -> dict[str, float]:
    """Ratio of steps by sample, geometric mean, and the ends of its 95 % interval over other sequences of the kind.

    The index is that of `sample_steps`; keys are `name` and, with `_low` and `_high`, its ends.
    """
    logs = np.log(base / mine)
    ends = np.exp(mean_interval(logs, beyond_sample(logs.index.get_level_values("sampled_share")[0])))
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends.tolist(), strict=True))


def build(files, parameters):
    """Write four tables of runs and three of what they say."""
    claimed = ReportedComparison.model_validate(parameters["claimed"], strict=False)
    tables = {}
    runs = {"results": RESULTS, "deduplication": DEDUPLICATION, "layers": LAYERS, "sweeps": SWEEPS}
    for kind, declared in runs.items():
        tables[kind] = joined(map(pd.read_csv, getattr(files, f"of_{kind}")), getattr(files, kind))
        write_table(getattr(files, kind), tables[kind], declared)
    write_table(files.strategies, strategy_summary(tables["results"], claimed), STRATEGIES)
    write_table(files.savings, deduplication_summary(tables["deduplication"], claimed), SAVINGS)
    write_table(files.scaling, batch_scaling(tables["results"], claimed), SCALING)
