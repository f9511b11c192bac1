"""The capacity model for one configuration, written to be read: the formulas of docs/model.md, one a line.

The vectorised sweep computes the same; tests hold the two against each other. Python integers stay exact integers here.
"""

import math
from bisect import bisect_left, bisect_right
from statistics import NormalDist

from prophet_moe.capacity.memory import ModelMemory, Number
from prophet_moe.routing import urn
from prophet_moe.routing.urn import ROUNDING_GUARD
from prophet_moe.settings.fields import LARGEST_CONTEXT
from prophet_moe.settings.scenario import Routing, Scenario
from prophet_moe.units import MIB


def unique_experts(routing: Routing, experts: Number, top_k: Number, popularity_cv: Number, batch: int) -> float:
    """Return u(B), the number of distinct routed experts that `batch` tokens activate in one layer."""
    if routing.law == "power_law":
        return min(experts, top_k * batch**routing.exponent)
    share = top_k / experts
    if routing.law == "uniform_occupancy":
        return experts * (1 - (1 - share) ** batch)
    rho = correlation(share, popularity_cv)
    missed = 1 - share
    for i in range(1, min(batch, urn.MULTIPLIED)):
        missed *= ((1 - rho) * (1 - share) + i * rho) / (1 - rho + i * rho)
    return experts * (1 - missed * urn.rest(share, rho, batch))


def correlation(share: float, popularity_cv: Number) -> float:
    """Return the correlation rho of the choices of two tokens of a batch."""
    return min(1.0, popularity_cv**2 * share / (1 - share)) if share < 1 else 0.0


def resident_experts(scenario: Scenario, model: ModelMemory, batch: int, unique: float) -> Number:
    """Return how many experts of each layer Prophet keeps resident under the scenario's rule."""
    most = min(model.experts, model.top_k * batch)
    if scenario.resident == "fractional":
        return unique
    if scenario.resident == "mean":
        return min(model.experts, math.ceil(unique - ROUNDING_GUARD))
    if scenario.resident == "never_overflows":
        return most
    popularity_cv = model.popularity_cv if scenario.routing.law == "dirichlet_occupancy" else 0.0
    deviations = NormalDist().inv_cdf(scenario.resident.quantile)
    bound = unique + deviations * deviation(unique, model.experts, model.top_k, popularity_cv, batch) - 0.5
    return min(max(math.ceil(bound - ROUNDING_GUARD), model.top_k), most)


def deviation(unique: float, experts: Number, top_k: Number, popularity_cv: Number, batch: int) -> float:
    """Return the standard deviation of the distinct experts of a layer over steps."""
    share = top_k / experts
    rho = correlation(share, popularity_cv)
    both = (top_k - 1) / top_k * experts / max(experts - 1, 1)
    missed_both = 1 - 2 * share + share * share * both
    for i in range(1, min(batch, urn.MULTIPLIED)):
        chosen = (1 - rho) * share / (1 - rho + i * rho)
        missed_both *= 1 - 2 * chosen + chosen * chosen * both
    missed_both *= urn.rest_of_both(share, rho, both, batch)
    missed = 1 - unique / experts
    variance = experts * missed * (1 - missed) + experts * (experts - 1) * (missed_both - missed * missed)
    return math.sqrt(max(variance, 0.0))


def evaluate(
    model: ModelMemory,
    device_bytes: Number,
    batch: int,
    scenario: Scenario,
    resident: Number | None = None,
    staging_kept: bool = True,
    predictor_kept: bool = True,
) -> dict[str, Number]:
    """Return all metrics of one configuration.

    Parameters
    ----------
    model : ModelMemory
        The memory constants of the model.
    device_bytes : number
        Bytes of the device that an engine may use.
    batch : int
        Sequences decoded together, B.
    scenario : Scenario
        Routing law, rule for resident experts, activations and reserves.
    resident : number, optional
        Resident experts per MoE layer, instead of those of the scenario's rule.
    staging_kept, predictor_kept : bool
        Whether a staging buffer, and a predictor, are kept beside the resident experts.

    Returns
    -------
    dict from str to number
        Sizes in bytes (`_bytes`), contexts in tokens (`_context`, `_tokens`), shares in percent (`_pct`), and factors.

    Notes
    -----
    docs/model.md derives each formula.
    """
    m = model
    unique = unique_experts(scenario.routing, m.experts, m.top_k, m.popularity_cv, batch)
    resident = resident_experts(scenario, m, batch, unique) if resident is None else resident

    offloading_layers = m.moe_layers - m.encoder_moe_layers
    encoder_share = m.encoder_moe_layers / m.moe_layers if m.encoder_moe_layers else 0.0

    baseline_experts = m.moe_layers * m.experts * m.expert_bytes
    prophet_experts = (m.encoder_moe_layers * m.experts + offloading_layers * resident) * m.expert_bytes
    staged = min(scenario.lookahead_layers * m.top_k, offloading_layers * (m.experts - resident))
    staging = staged * m.expert_bytes if staging_kept else 0
    predictor = m.predictor_bytes if predictor_kept else 0

    tokens_in_flight = max(batch, scenario.activation.prefill_chunk_tokens)
    activations = m.activation_bytes_per_token * tokens_in_flight + m.activation_bytes_per_sequence * batch
    runtime = round((scenario.workspace_mib + scenario.runtime_reserve_mib) * MIB)
    fixed = m.non_expert_bytes + activations + m.state_bytes_per_sequence * batch + runtime

    kv_cache = batch * m.cached_bytes(m.native_context)
    baseline_without_kv = fixed + baseline_experts
    prophet_without_kv = fixed + prophet_experts + staging + predictor

    baseline_context = max_context(m, device_bytes - baseline_without_kv, batch)
    prophet_context = max_context(m, device_bytes - prophet_without_kv, batch)
    baseline_fits, prophet_fits = baseline_context >= 1, prophet_context >= 1
    undefined = 0.0 if scenario.undefined_extension == "zero" else math.nan
    return {
        "unique_experts": unique,
        "resident_experts": resident,
        "baseline_expert_bytes": baseline_experts,
        "prophet_expert_bytes": prophet_experts,
        "expert_savings_bytes": baseline_experts - prophet_experts,
        "expert_savings_pct": 100 * (1 - encoder_share) * (1 - resident / m.experts),
        "dedup_factor": m.experts / unique,
        "request_dedup": 1 - unique / (m.top_k * batch),
        "staging_bytes": staging,
        "activation_bytes": activations,
        "fixed_bytes": fixed,
        "kv_cache_bytes": kv_cache,
        "baseline_total_bytes": baseline_without_kv + kv_cache,
        "prophet_total_bytes": prophet_without_kv + kv_cache,
        "baseline_free_bytes": device_bytes - baseline_without_kv,
        "prophet_free_bytes": device_bytes - prophet_without_kv,
        "baseline_max_context": baseline_context,
        "prophet_max_context": prophet_context,
        "baseline_fits": baseline_fits,
        "prophet_fits": prophet_fits,
        "kv_extension_factor": prophet_context / baseline_context if baseline_fits else undefined,
        "kv_increase_tokens": prophet_context - baseline_context,
        "baseline_native_context": min(baseline_context, m.native_context),
        "prophet_native_context": min(prophet_context, m.native_context),
    }


def most_resident(model: ModelMemory, device_bytes: Number, batch: int, scenario: Scenario, context: int) -> int | None:
    """Return the most experts per layer that leave room for `context` tokens of every sequence; None if none does."""
    needed = batch * model.cached_bytes(context)

    def too_many(resident: int) -> bool:
        metrics = evaluate(model, device_bytes, batch, scenario, resident=resident)
        return not metrics["prophet_free_bytes"] >= needed

    return bisect_left(range(1, int(model.experts) + 1), True, key=too_many) or None


def max_context(model: ModelMemory, free_bytes: Number, batch: int) -> int:
    """Return longest context, tokens per sequence, whose KV cache fits into `free_bytes`; 0 when none does.

    It is found by halving, at most LARGEST_CONTEXT. Where the report leaves a constant unknown (NaN), none fits.
    """
    if model.forced_not_fitting or not (free_bytes >= 0 and model.kv_bytes_per_token >= 0):
        return 0
    return bisect_right(range(LARGEST_CONTEXT + 1), free_bytes, key=lambda s: batch * model.cached_bytes(s)) - 1
