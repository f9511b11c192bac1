"""The headline in other measures, under other rules for the resident experts and under other assumptions."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.record import ESTIMATE, record
from prophet_moe.capacity.sweep import popularity_variation
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.routing.distinct import overflow_share
from prophet_moe.routing.variation import Variation
from prophet_moe.settings import Quantile, Scenario, Sensitivity

RULES = {"mean": "mean", "quantile 0.99": Quantile(quantile=0.99), "never_overflows": "never_overflows"}
"""Rules for the resident experts that are set beside each other."""


def extension_summary(rows: pd.DataFrame) -> dict[str, float]:
    """Counts, means and sums of the KV extension over the rows of a record whose baseline fits.

    kv_bytes_ratio is the sum of the KV bytes that Prophet leaves room for over that of the baseline: rows weigh by
    their memory, so that a baseline that hardly fits cannot decide it. All but counts are NaN where no baseline fits.
    """
    fitting = rows[rows["baseline_fits"].astype(bool)]
    extension = fitting["kv_extension_factor"].astype(float)
    return {
        "fitting_rows": len(fitting),
        "prophet_only_rows": int((rows["prophet_fits"].astype(bool) & ~rows["baseline_fits"].astype(bool)).sum()),
        "median_extension": extension.median(),
        "geomean_extension": geometric_mean(extension),
        "mean_extension": extension.mean(),
        "max_extension": extension.max(),
        "kv_bytes_ratio": kv_bytes_ratio(fitting),
    }


def geometric_mean(factors: pd.Series) -> float:
    """Geometric mean of factors of at least 0, missing ones left out; NaN of none."""
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(factors.dropna().astype(float)).mean()))


def kv_bytes_ratio(fitting: pd.DataFrame) -> float:
    """Sum of the KV bytes at Prophet's longest context over that at the baseline's; NaN without rows that fit."""
    per_token = fitting["kv_cache_gb"] / fitting["seq_len"].astype(float)
    baseline = (per_token * fitting["baseline_max_context"].astype(float)).sum()
    prophet = (per_token * fitting["prophet_max_context"].astype(float)).sum()
    return float(prophet / baseline) if baseline > 0 else float("nan")


def resident_rules(
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    batch_sizes: Sequence[int],
    scenario: Scenario,
    variations: Mapping[str, Variation],
) -> pd.DataFrame:
    """One row per rule of RULES: what the headline becomes, and how often a layer-step needs more than is resident.

    Shares of layer-steps follow from the routing law: their mean over the rows whose baseline fits, and the largest.
    A power law has no distribution: then there is no row for a quantile, and the shares are NaN.
    """
    rows = []
    distributed = scenario.routing.law != "power_law"
    rules = {name: rule for name, rule in RULES.items() if distributed or not isinstance(rule, Quantile)}
    for name, rule in rules.items():
        under = scenario.model_copy(update={"resident": rule})
        grid = _estimate(models, gpus, batch_sizes, under, variations)
        overflows = _overflow_shares(grid[grid["baseline_fits"]], under) if distributed else pd.Series([np.nan])
        shares = {"mean_overflow_share": overflows.mean(), "max_overflow_share": overflows.max()}
        rows.append({"resident": name} | extension_summary(record(grid)) | shares)
    return pd.DataFrame(rows)


def _overflow_shares(grid: pd.DataFrame, scenario: Scenario) -> pd.Series:
    columns = {name: grid[name].to_numpy(float) for name in ("experts", "top_k", "variation", "resident_experts")}
    variation = popularity_variation(columns, scenario)
    batch, unique = (grid[name].to_numpy(float) for name in ("batch_size", "unique_experts"))
    router = (columns["experts"], columns["top_k"], variation, batch)
    return pd.Series(overflow_share(unique, *router, columns["resident_experts"]))


def headline_sensitivity(
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    batch_sizes: Sequence[int],
    scenario: Scenario,
    variations: Mapping[str, Variation],
    sensitivity: Sensitivity,
) -> pd.DataFrame:
    """One row per changed assumption: the headline with that one value and all others as in `scenario`.

    `as_given` marks the values that `scenario` has itself.
    """
    rows = []
    for key, value, changed in _changes(scenario, sensitivity):
        grid = _estimate(models, gpus, batch_sizes, changed, variations)
        rows.append(
            {"assumption": key, "value": value, "as_given": changed == scenario} | extension_summary(record(grid))
        )
    return pd.DataFrame(rows)


def _changes(scenario: Scenario, sensitivity: Sensitivity) -> Iterator[tuple[str, float, Scenario]]:
    """Key, value and the scenario with it."""
    for key in ("runtime_reserve_mib", "usable_memory_share"):
        for value in getattr(sensitivity, key):
            yield key, value, scenario.model_copy(update={key: value})
    for value in sensitivity.prefill_chunk_tokens:
        activation = scenario.activation.model_copy(update={"prefill_chunk_tokens": value})
        yield "prefill_chunk_tokens", value, scenario.model_copy(update={"activation": activation})


def _estimate(
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    batch_sizes: Sequence[int],
    scenario: Scenario,
    variations: Mapping[str, Variation],
) -> pd.DataFrame:
    grid = capacity_grid(models, gpus, batch_sizes, scenario, variations)
    return grid[grid["case"] == ESTIMATE].reset_index(drop=True)
