"""The three tables of report 004, measured: strategies, deduplication, and batch sizes; what it claims stands beside.

A speedup is over On-Demand in the same mode: as described (On-Demand takes the tokens of a batch one by one, as the
report's baselines do), or deduplicated (each strategy asks once for the distinct experts of a batch, as serving engines
do). Means over batch sizes weigh milliseconds, as the report's do; comparisons are paired by sample.
"""

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from prophet_moe.present.select import where
from prophet_moe.settings import ReportedComparison

BASE = "on_demand"
PAPERS = ("on_demand", "pre_gated", "expertflow")
"""What the report calls paper baselines (004:36-38)."""
OURS = ("top_k", "multi_look_ahead", "intelligent")
"""What the report calls its own strategies (004:39-41)."""
MODES = {"as_described": ("as_described", True), "deduplicated": ("deduplicated", True)}
"""Column and value that select the runs of a mode."""


def strategy_summary(results: pd.DataFrame, claimed: ReportedComparison) -> pd.DataFrame:
    """One row per trace, routing, mode and strategy: mean step, speedup over On-Demand with interval and p-values."""
    rows = []
    for (trace, routing), found in results.groupby(["trace", "routing"], sort=False):
        for mode, (column, value) in MODES.items():
            steps = _by_seed(found[found[column] == value])
            if BASE not in steps:
                continue
            means = found[found[column] == value].groupby("strategy")[["hit_rate", "slowdown", "stall_share"]].mean()
            for strategy, mine in steps.items():
                head = {"trace": trace, "routing": routing, "mode": mode, "strategy": strategy}
                head |= {"step_ms": mine.mean()} | means.loc[strategy].to_dict()
                told = claimed.speedups.get(strategy) if mode == "as_described" else None
                rows.append(head | speedup(steps[BASE], mine) | {"claimed_speedup": told})
    return _with_holm(pd.DataFrame(rows), ["trace", "routing", "mode"])


def batch_scaling(results: pd.DataFrame, claimed: ReportedComparison) -> pd.DataFrame:
    """One row per trace, mode and batch size: the papers' mean step, our fastest, its speedup, request_dedup."""
    claims = {"claimed_papers_ms": claimed.papers_ms, "claimed_best_ms": claimed.best_ms}
    claims |= {"claimed_speedup": claimed.improvements, "claimed_saving": claimed.scaling_savings}
    rows = []
    for trace, found in where(results, routing="recorded").groupby("trace", sort=False):
        for mode, (column, value) in MODES.items():
            for batch, runs in found[found[column] == value].groupby("batch"):
                steps = _by_seed(runs)
                best = min((name for name in OURS if name in steps), key=lambda name: steps[name].mean())
                papers = sum(steps[name] for name in PAPERS) / len(PAPERS)
                rows.append(
                    {"trace": trace, "mode": mode, "batch": batch, "papers_step_ms": papers.mean(), "best": best}
                    | {"best_step_ms": steps[best].mean()}
                    | speedup(papers, steps[best])
                    | {"request_dedup": where(runs, strategy=best)["request_dedup"].mean()}
                    | {name: told.get(batch) if mode == "as_described" else None for name, told in claims.items()}
                )
    return _with_holm(pd.DataFrame(rows), ["trace", "mode"])


def deduplication_summary(counted: pd.DataFrame, claimed: ReportedComparison) -> pd.DataFrame:
    """One row per trace and batch size: means over batches drawn, 95 % intervals, and the report's numbers."""
    rows = []
    for (trace, batch), runs in counted.groupby(["trace", "batch"], sort=False):
        row = {"trace": trace, "batch": batch, "runs": len(runs), "unique_experts": runs["unique_experts"].mean()}
        for name in ("request_dedup", "shared_requests", "resident_share"):
            half = stdtrit(len(runs) - 1, 0.975) * runs[name].sem()
            row |= {name: runs[name].mean(), f"{name}_low": runs[name].mean() - half}
            row |= {f"{name}_high": runs[name].mean() + half}
        row |= {"uniform_request_dedup": runs["uniform_request_dedup"].mean()}
        told = {"claimed_saving": claimed.savings, "claimed_saving_in_scaling": claimed.scaling_savings}
        told |= {"claimed_reuse": claimed.reuse}
        rows.append(row | {name: values.get(batch) for name, values in told.items()})
    return pd.DataFrame(rows)


def speedup(base: pd.Series, mine: pd.Series) -> dict[str, float]:
    """Ratio of steps by sample, geometric mean, with Student's 95 % interval, and p of the paired t-test of its log."""
    logs = np.log(base / mine)
    half = stdtrit(len(logs) - 1, 0.975) * logs.sem() if len(logs) > 1 else np.nan
    sure = len(logs) > 1 and logs.std() > 0
    return {
        "speedup": float(np.exp(logs.mean())),
        "speedup_low": float(np.exp(logs.mean() - half)),
        "speedup_high": float(np.exp(logs.mean() + half)),
        "p_value": float(2 * stdtr(len(logs) - 1, -abs(logs.mean() / logs.sem()))) if sure else np.nan,
    }


def holm(p_values: pd.Series) -> pd.Series:
    """Corrected for as many comparisons as there are values (Holm 1979); a missing one is none, and stays missing.

    That any of those below a level is so by chance has at most that probability.
    """
    ranked = p_values.dropna().sort_values()
    return (ranked * np.arange(len(ranked), 0, -1)).cummax().clip(upper=1).reindex(p_values.index)


def _with_holm(table: pd.DataFrame, family: list[str]) -> pd.DataFrame:
    """Add `p_holm`: p_value, corrected for all comparisons that share `family`."""
    corrected = table.groupby(family, sort=False)["p_value"].transform(holm)
    table.insert(table.columns.get_loc("p_value") + 1, "p_holm", corrected)
    return table


def _by_seed(runs: pd.DataFrame) -> dict[str, pd.Series]:
    """By strategy the mean step of each sample over batch sizes, in the order of the runs."""
    steps = runs.groupby(["strategy", "seed"], sort=False)["step_ms_mean"].mean()
    return {name: steps[name] for name in runs["strategy"].unique()}
