"""The headline result under other rules for the resident experts, and under other assumptions."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.record import ESTIMATE, record
from prophet_moe.capacity.summary import extension_summary
from prophet_moe.capacity.sweep import law_popularity_cv
from prophet_moe.routing.distinct import overflow_share
from prophet_moe.settings.scenario import Quantile, Scenario
from studies.headline.study import HeadlineSettings

RULES = {"mean": "mean", "quantile 0.99": Quantile(quantile=0.99), "never_overflows": "never_overflows"}
"""Rules for the resident experts that are compared."""


def resident_rules(configured: Configured, batch_sizes: Sequence[int]) -> pd.DataFrame:
    """Return the headline under each rule of RULES, and how often a layer-step needs more experts than are resident.

    Parameters
    ----------
    configured : Configured
        Models, GPUs and a scenario, which gives all parameters but the rule for resident experts.
    batch_sizes : sequence of int
        Sequences decoded together.

    Returns
    -------
    DataFrame
        One row per rule: the columns of `extension_summary`, and the mean and the largest share of layer-steps over the
        rows whose baseline fits.

    Notes
    -----
    A power law has no distribution: then there is no row for a quantile, and the shares are NaN.
    """
    rows, scenario = [], configured.scenario
    distributed = scenario.routing.law != "power_law"
    rules = {name: rule for name, rule in RULES.items() if distributed or not isinstance(rule, Quantile)}
    for name, rule in rules.items():
        under = scenario.model_copy(update={"resident": rule})
        grid = _estimate(configured.under(under), batch_sizes)
        overflows = _overflow_shares(grid[grid["baseline_fits"]], under) if distributed else pd.Series([np.nan])
        shares = {"mean_overflow_share": overflows.mean(), "max_overflow_share": overflows.max()}
        rows.append({"resident": name} | extension_summary(record(grid)) | shares)
    return pd.DataFrame(rows)


def _overflow_shares(grid: pd.DataFrame, scenario: Scenario) -> pd.Series:
    columns = {name: grid[name].to_numpy(float) for name in ("experts", "top_k", "popularity_cv", "resident_experts")}
    popularity_cv = law_popularity_cv(columns, scenario)
    batch, unique = (grid[name].to_numpy(float) for name in ("batch_size", "unique_experts"))
    router = (columns["experts"], columns["top_k"], popularity_cv, batch)
    return pd.Series(overflow_share(unique, *router, columns["resident_experts"]))


def headline_sensitivity(
    configured: Configured, batch_sizes: Sequence[int], sensitivity: HeadlineSettings
) -> pd.DataFrame:
    """Return the headline under each changed assumption, one at a time.

    Parameters
    ----------
    configured : Configured
        Models, GPUs and a scenario, which gives the values that are not changed. A reserve that is changed takes the
        place of every measured one. The terms of an engine take the place of the reserve and of the tokens of a chunk,
        so that their values make no rows.
    batch_sizes : sequence of int
        Sequences decoded together.
    sensitivity : HeadlineSettings
        The assumptions and their values.

    Returns
    -------
    DataFrame
        One row per assumption and value: the columns of `extension_summary`; `as_given` marks the scenario's own
        values.
    """
    rows, scenario = [], configured.scenario
    for key, value, changed in _changes(scenario, sensitivity):
        if not configured.engine.ideal and key != "usable_memory_share":
            continue
        given = changed.model_copy(update={"runtime_reserve": scenario.runtime_reserve}) == scenario
        grid = _estimate(configured.under(changed), batch_sizes)
        rows.append({"assumption": key, "value": value, "as_given": given} | extension_summary(record(grid)))
    return pd.DataFrame(rows)


def _changes(scenario: Scenario, sensitivity: HeadlineSettings) -> Iterator[tuple[str, float, Scenario]]:
    for value in sensitivity.runtime_reserve_mib:
        assumed = {"runtime_reserve_mib": value, "runtime_reserve": "assumed"}
        yield "runtime_reserve_mib", value, scenario.model_copy(update=assumed)
    for value in sensitivity.usable_memory_share:
        yield "usable_memory_share", value, scenario.model_copy(update={"usable_memory_share": value})
    for value in sensitivity.prefill_chunk_tokens:
        activation = scenario.activation.model_copy(update={"prefill_chunk_tokens": value})
        yield "prefill_chunk_tokens", value, scenario.model_copy(update={"activation": activation})


def _estimate(configured: Configured, batch_sizes: Sequence[int]) -> pd.DataFrame:
    grid = capacity_grid(configured, batch_sizes)
    return grid[grid["case"] == ESTIMATE].reset_index(drop=True)
