"""The capacity model over arrays of configurations; the fast counterpart of reference.py.

Bytes are float64 here. Whole bytes stay exact: every sum and product is below 2^53, and for whole a and b with
a < 2^53 the rounded quotient a / b reaches an integer only when the true one does, so token counts are exact too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from prophet_moe.capacity.context import CACHE_COLUMNS, cached_bytes, longest_context
from prophet_moe.capacity.memory import ModelMemory
from prophet_moe.routing import distinct
from prophet_moe.routing.law import unique_experts
from prophet_moe.routing.urn import ROUNDING_GUARD
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import MIB

Columns = Mapping[str, NDArray]

INPUTS = (
    *(f.name for f in fields(ModelMemory) if f.name not in ("total_params", "active_params", "further_caches")),
    "device_bytes",
    "batch",
)
"""Columns that a sweep reads: the memory constants, the device and the batch."""
RUNTIME = "runtime_bytes"
"""Column of workspace and runtime reserve in bytes, where configurations differ in them; else the scenario's count."""

BLOCK_ROWS = 4096
"""Rows evaluated together: small enough that all columns of a block stay in the processor's cache."""


def sweep(
    configurations: Columns, scenario: Scenario, block_rows: int = BLOCK_ROWS
) -> Iterator[tuple[slice, dict[str, NDArray]]]:
    """Yield (rows, metrics) for block after block of configurations.

    Parameters
    ----------
    configurations : mapping from str to array
        The columns INPUTS, all of one length; memory in bytes, context and batch in tokens and sequences. Where a model
        has further caches, the CACHE_COLUMNS of `context` too.
    scenario : Scenario
        The parameters that all configurations share.
    block_rows : int
        Rows evaluated together.

    Yields
    ------
    rows : slice
        The rows of the block.
    metrics : dict from str to array
        What `evaluate` returns for them.

    Notes
    -----
    Memory in use is that of one block, whatever the number of configurations.
    """
    count = len(configurations["batch"])
    given = [name for name in (*INPUTS, RUNTIME, *CACHE_COLUMNS) if name in configurations]
    for start in range(0, count, block_rows):
        rows = slice(start, min(start + block_rows, count))
        yield rows, evaluate({name: configurations[name][rows] for name in given}, scenario)


def evaluate(
    c: Columns,
    scenario: Scenario,
    resident: NDArray | None = None,
    staging_kept: NDArray | bool = True,
    predictor_kept: NDArray | bool = True,
) -> dict[str, NDArray]:
    """Return all metrics of one block of configurations.

    Parameters
    ----------
    c : mapping from str to array
        The columns INPUTS, all of one length n, CACHE_COLUMNS where a model has further caches, and RUNTIME where it
        differs.
    scenario : Scenario
        The parameters that all configurations share.
    resident : array (n,), optional
        Resident experts per MoE layer, instead of those of the scenario's rule.
    staging_kept, predictor_kept : array (n,) of bool, or bool
        Where a staging buffer, and a predictor, are kept beside the resident experts.

    Returns
    -------
    dict from str to array (n,)
        The metrics of `reference.evaluate`, under the same names and in the same units.

    Notes
    -----
    docs/model.md derives the formulas; tests hold the two implementations against each other.
    """
    experts, top_k, batch = c["experts"], c["top_k"], c["batch"]
    unique = unique_experts(scenario.routing, experts, top_k, c["popularity_cv"], batch)
    resident = resident_experts(c, unique, scenario) if resident is None else resident

    encoder_layers = c["encoder_moe_layers"]
    offloading_layers = c["moe_layers"] - encoder_layers
    encoder_share = np.divide(
        encoder_layers, c["moe_layers"], out=np.zeros_like(encoder_layers), where=encoder_layers > 0
    )

    baseline_experts = c["moe_layers"] * experts * c["expert_bytes"]
    prophet_experts = (encoder_layers * experts + offloading_layers * resident) * c["expert_bytes"]
    staged = np.minimum(scenario.lookahead_layers * top_k, offloading_layers * (experts - resident))
    staging = staging_kept * staged * c["expert_bytes"]
    predictor = predictor_kept * c["predictor_bytes"]

    tokens_in_flight = np.maximum(batch, scenario.activation.prefill_chunk_tokens)
    activations = c["activation_bytes_per_token"] * tokens_in_flight + c["activation_bytes_per_sequence"] * batch
    runtime = c[RUNTIME] if RUNTIME in c else round((scenario.workspace_mib + scenario.runtime_reserve_mib) * MIB)
    fixed = c["non_expert_bytes"] + activations + c["state_bytes_per_sequence"] * batch + runtime

    native = c["native_context"]
    kv_cache = batch * cached_bytes(c, native)
    baseline_without_kv = fixed + baseline_experts
    prophet_without_kv = fixed + prophet_experts + staging + predictor
    baseline_free = c["device_bytes"] - baseline_without_kv
    prophet_free = c["device_bytes"] - prophet_without_kv

    free_to_fit = ~c["forced_not_fitting"]
    baseline_context = np.where(free_to_fit, longest_context(c, baseline_free), 0.0)
    prophet_context = np.where(free_to_fit, longest_context(c, prophet_free), 0.0)
    baseline_fits, prophet_fits = baseline_context >= 1, prophet_context >= 1
    undefined = 0.0 if scenario.undefined_extension == "zero" else np.nan
    extension = np.full_like(baseline_context, undefined)
    np.divide(prophet_context, baseline_context, out=extension, where=baseline_fits)
    return {
        "unique_experts": unique,
        "resident_experts": resident,
        "baseline_expert_bytes": baseline_experts,
        "prophet_expert_bytes": prophet_experts,
        "expert_savings_bytes": baseline_experts - prophet_experts,
        "expert_savings_pct": 100.0 * (1.0 - encoder_share) * (1.0 - resident / experts),
        "dedup_factor": experts / unique,
        "request_dedup": 1.0 - unique / (top_k * batch),
        "staging_bytes": staging,
        "activation_bytes": activations,
        "fixed_bytes": fixed,
        "kv_cache_bytes": kv_cache,
        "baseline_total_bytes": baseline_without_kv + kv_cache,
        "prophet_total_bytes": prophet_without_kv + kv_cache,
        "baseline_free_bytes": baseline_free,
        "prophet_free_bytes": prophet_free,
        "baseline_max_context": baseline_context,
        "prophet_max_context": prophet_context,
        "baseline_fits": baseline_fits,
        "prophet_fits": prophet_fits,
        "kv_extension_factor": extension,
        "kv_increase_tokens": prophet_context - baseline_context,
        "baseline_native_context": np.fmin(baseline_context, native),
        "prophet_native_context": np.fmin(prophet_context, native),
    }


def resident_experts(c: Columns, unique: NDArray, scenario: Scenario) -> NDArray:
    """Return the experts per layer that Prophet keeps where a batch activates `unique`, by the scenario's rule."""
    experts, top_k, batch = c["experts"], c["top_k"], c["batch"]
    if scenario.resident == "fractional":
        return unique
    if scenario.resident == "mean":
        return np.minimum(experts, np.ceil(unique - ROUNDING_GUARD))
    if scenario.resident == "never_overflows":
        return np.minimum(experts, top_k * batch)
    return distinct.quantile(unique, experts, top_k, law_popularity_cv(c, scenario), batch, scenario.resident.quantile)


def law_popularity_cv(c: Columns, scenario: Scenario) -> NDArray:
    """Return the popularity CV under the scenario's law, which is 0 where routing is uniform."""
    return c["popularity_cv"] if scenario.routing.law == "dirichlet_occupancy" else np.zeros_like(c["popularity_cv"])
