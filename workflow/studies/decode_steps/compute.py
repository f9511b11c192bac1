"""Decode steps of every model on every GPU: all experts resident, and every expert of the batch fetched.

Both bound the effect of any prefetching, because the link moves a limited number of bytes per second.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from prophet_moe.capacity.configured import Configured, read_configured
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.catalog import Architecture, ModelSpec
from prophet_moe.catalog.link import LinkSpec, link_named, load_links
from prophet_moe.hardware.estimate import Estimator, estimate_step, read_estimators
from prophet_moe.hardware.profile import Profile, read_profile
from prophet_moe.hardware.roofline import all_resident_seconds, layer_times, link_bound_seconds, on_demand_seconds
from prophet_moe.routing.law import unique_experts
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import write_table
from prophet_moe.units import MB
from studies.decode_steps.study import DECODE_STEPS


def decode_steps(
    configured: Configured, profiles: Mapping[str, Profile], batch_sizes: Sequence[int], step: DecodeStep
) -> pd.DataFrame:
    """Time the decode steps of every model on every GPU at every batch size.

    Parameters
    ----------
    configured : Configured
        Models, GPUs and a scenario, of which routing and precision count.
    profiles : mapping from str to Profile
        Measured or datasheet performance by GPU.
    batch_sizes : sequence of int
        Sequences decoded together.
    step : DecodeStep
        The context, and the slowdown that the report claims.

    Returns
    -------
    DataFrame
        One row per model, GPU and batch size: milliseconds, and the hit rates that the claimed slowdown demands.
    """
    rows, scenario = [], configured.scenario
    for model, spec in configured.models.items():
        unique = _unique(spec.architecture, batch_sizes, scenario, configured.popularity_cv(model))
        for profile in profiles.values():
            for batch, needed in zip(batch_sizes, unique, strict=True):
                rows.append({"model": model} | _row(spec, profile, batch, needed, scenario, step))
    return pd.DataFrame(rows)


def with_estimates(
    table: pd.DataFrame, configured: Configured, estimators: Mapping[str, Estimator], step: DecodeStep, link: LinkSpec
) -> pd.DataFrame:
    """Return `table` with estimates of its times beside their bounds, as columns after its own."""
    found = [
        _estimates(row, configured.models[row["model"]], estimators[row["gpu"]], configured.scenario, step, link)
        for row in table.to_dict("records")
    ]
    return pd.concat([table, pd.DataFrame(found, index=table.index)], axis=1)


def _estimates(
    row: Mapping, spec: ModelSpec, estimator: Estimator, scenario: Scenario, step: DecodeStep, link: LinkSpec
) -> dict[str, object]:
    arch, precision, unique = spec.architecture, scenario.precision_of(spec.precision), row["unique_experts"]
    used = min(unique, arch.moe.top_k * row["batch_size"])
    found = estimate_step(estimator, arch, row["batch_size"], row["context"], used, precision)
    resident = max(1e3 * found.seconds, row["all_resident_ms"])
    copies = len(arch.moe_layers) * unique
    fetching = 1e3 * copies * link.seconds(estimator.spec, row["expert_mb"] * MB)
    return {
        "all_resident_estimate_ms": resident,
        "all_resident_estimate_low_ms": max(1e3 * found.low, row["all_resident_ms"]),
        "all_resident_estimate_high_ms": max(1e3 * found.high, resident),
        "cold_on_demand_estimate_ms": resident + fetching,
        "cold_on_demand_estimated_slowdown": 1 + fetching / resident,
        "hit_rate_needed_estimated": max(0.0, 1 - (step.claimed_slowdown - 1) * resident / fetching),
        "estimate_basis": found.basis,
    }


def with_fit(table: pd.DataFrame, grid: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with baseline_fits: whether the GPU holds all experts and the context of the row.

    Times with all experts resident are hypothetical where it does not. `grid` is the capacity grid at its estimate; the
    cell is empty for a model that the grid's scenario does not cover.
    """
    keys = ["model", "gpu", "batch_size"]
    longest = table[keys].merge(grid[[*keys, "baseline_max_context"]], on=keys, how="left", validate="one_to_one")
    longest = longest["baseline_max_context"].set_axis(table.index)
    fits = (longest >= table["context"]).astype(object).where(longest.notna(), None)
    at = table.columns.get_loc("context") + 1
    return pd.concat([table.iloc[:, :at], fits.rename("baseline_fits"), table.iloc[:, at:]], axis=1)


def _unique(arch: Architecture, batch_sizes: Sequence[int], scenario: Scenario, popularity_cv: float) -> np.ndarray:
    batch = np.array(batch_sizes, float)
    experts, top_k, spread = (
        np.full_like(batch, number) for number in (arch.moe.experts, arch.moe.top_k, popularity_cv)
    )
    return unique_experts(scenario.routing, experts, top_k, spread, batch)


def _row(
    spec: ModelSpec, profile: Profile, batch: int, unique: float, scenario: Scenario, step: DecodeStep
) -> dict[str, object]:
    arch, precision = spec.architecture, scenario.precision_of(spec.precision)
    context = min(step.context_tokens, arch.native_context)
    times = layer_times(arch, profile, batch, context, min(unique, arch.moe.top_k * batch), precision)
    resident, cold = all_resident_seconds(times), on_demand_seconds(times, unique)
    prefetched, fetching = link_bound_seconds(times, unique), cold - resident
    return {
        "gpu": profile.gpu,
        "batch_size": batch,
        "context": context,
        "unique_experts": unique,
        "expert_mb": times.expert_bytes / MB,
        "fetch_ms_per_expert": 1e3 * times.transfer_seconds_per_expert,
        "all_resident_ms": 1e3 * resident,
        "cold_on_demand_ms": 1e3 * cold,
        "cold_prefetch_bound_ms": 1e3 * prefetched,
        "cold_on_demand_slowdown": cold / resident,
        "cold_prefetch_slowdown_bound": prefetched / resident,
        "hit_rate_needed_on_demand": max(0.0, 1 - (step.claimed_slowdown - 1) * resident / fetching),
        "hit_rate_needed_prefetch": max(0.0, 1 - step.claimed_slowdown * resident / fetching),
        "source": profile.source,
        **{f"{part}_basis": basis for part, basis in times.bases.items()},
    }


def build(files, parameters):
    """Write table 7, the times of decode steps."""
    configured, folder = read_configured(files, parameters), Path(parameters["profiles"])
    profiles = {name: read_profile(folder, name, spec) for name, spec in configured.gpus.items()}
    step = DecodeStep.model_validate(parameters["decode_step"])
    table = decode_steps(configured, profiles, parameters["batch_sizes"], step)
    estimators = read_estimators(files.operators[0].parent, configured.gpus)
    table = with_estimates(table, configured, estimators, step, link_named(step.link, load_links(files.links)))
    grid = pd.read_parquet(files.grid)
    write_table(files.table, with_fit(table, grid[grid["case"] == ESTIMATE]), DECODE_STEPS)
