"""The memory constants of one model under one scenario: from its published architecture, or from the report."""

import math
from dataclasses import dataclass

from prophet_moe import params
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.params import Cache, bounded_bytes, growing_bytes_per_token
from prophet_moe.predict.context import LOOKAHEADS, network_bytes
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import GB, MB

Number = int | float


@dataclass(frozen=True)
class ModelMemory:
    """What the capacity model needs to know of a model. Bytes; whole numbers for published architectures.

    Constants that the report leaves unknown are NaN.
    """

    experts: Number
    top_k: Number
    moe_layers: Number
    expert_bytes: Number
    non_expert_bytes: Number
    """Everything always resident, shared experts included."""
    kv_bytes_per_token: Number
    """What every token of a sequence adds to its cache, of the layers that keep all tokens one by one."""
    state_bytes_per_sequence: Number
    activation_bytes_per_token: Number
    activation_bytes_per_sequence: Number
    native_context: Number
    total_params: Number
    active_params: Number
    forced_not_fitting: bool = False
    popularity_cv: Number = 0
    """Coefficient of variation of the popularity of the experts; 0 is uniform routing."""
    encoder_moe_layers: Number = 0
    """MoE layers of an encoder. All their experts stay: the tokens of a source need nearly all of them."""
    predictor_bytes: Number = 0
    """Prophet's predictor, which predicts the other MoE layers."""
    further_caches: tuple[Cache, ...] = ()
    """Caches that end at a window, or whose entries stand for several tokens."""

    def cached_bytes(self, tokens: int) -> Number:
        """Return the bytes of the cache of one sequence of `tokens`."""
        return self.kv_bytes_per_token * tokens + sum(cache.bytes(tokens) for cache in self.further_caches)

    @property
    def kv_bytes_per_token_growing(self) -> Number:
        """Return by how much the cache of a sequence grows per token once every window is full."""
        growing = growing_bytes_per_token(self.further_caches)
        return self.kv_bytes_per_token + (growing.numerator if growing.denominator == 1 else float(growing))

    @property
    def kv_bytes_bounded(self) -> int:
        """Return what the windows of a sequence hold once they are full."""
        return bounded_bytes(self.further_caches)


def device_bytes(gpu: GpuSpec, scenario: Scenario) -> int:
    """Return the bytes of `gpu` that the scenario lets an engine use, rounded down to whole ones."""
    return math.floor(gpu.memory_bytes(scenario.device_memory) * scenario.usable_memory_share)


def covers(scenario: Scenario, spec: ModelSpec) -> bool:
    """Return whether a scenario has a model: those with reported architectures lack what the report does not cover."""
    return scenario.architecture == "published" or spec.reported is not None


def model_memory(spec: ModelSpec, scenario: Scenario) -> ModelMemory | None:
    """Return the memory constants of a model under a scenario.

    Parameters
    ----------
    spec : ModelSpec
        The model of the catalogue.
    scenario : Scenario
        Its `architecture` says whether constants are counted from the published architecture or taken from the report.

    Returns
    -------
    ModelMemory or None
        Constants in bytes; None where the report, and so the scenario, does not cover the model.
    """
    if not covers(scenario, spec):
        return None
    return _reported(spec, scenario) if scenario.architecture == "reported" else _published(spec, scenario)


def _published(spec: ModelSpec, scenario: Scenario) -> ModelMemory:
    arch = spec.architecture
    encoder_moe_layers = params.encoder_moe_layers(arch)
    # A dense model has no layer with experts. One expert of no bytes keeps every formula defined.
    experts, top_k = (arch.moe.experts, min(arch.moe.top_k, arch.moe.experts)) if arch.moe else (1, 1)
    counts, precision = params.parameter_counts(arch), scenario.precision_of(spec.precision)
    stored = params.weight_bytes(arch, precision)
    draft = scenario.draft_layers
    always_resident = sum(size for component, size in stored.items() if component != "routed_experts")
    if draft:
        always_resident += params.draft_bytes(arch, precision)
    kept = params.caches(arch, precision, draft)
    plain = [cache for cache in kept if cache.window is None and cache.tokens_per_entry == 1]
    per_component = scenario.activation.rule == "per_component"
    fitted = scenario.activation.gb_per_billion_parameters * counts.total
    return ModelMemory(
        experts=experts,
        top_k=top_k,
        moe_layers=params.moe_layers(arch),
        expert_bytes=params.expert_bytes(arch, precision),
        non_expert_bytes=always_resident,
        kv_bytes_per_token=sum(cache.bytes(1) for cache in plain),
        state_bytes_per_sequence=params.state_bytes_per_sequence(arch, precision, draft),
        activation_bytes_per_token=params.activation_bytes_per_token(arch) if per_component else 0,
        activation_bytes_per_sequence=params.logits_bytes_per_sequence(arch) if per_component else fitted,
        native_context=arch.native_context,
        total_params=counts.total,
        active_params=params.active_parameters(arch),
        encoder_moe_layers=encoder_moe_layers,
        predictor_bytes=predictor_bytes(experts, len(arch.moe_layers), scenario) if arch.moe else 0,
        further_caches=tuple(cache for cache in kept if cache not in plain),
    )


def predictor_bytes(experts: Number, predicted_layers: Number, scenario: Scenario) -> Number:
    """Return the bytes of the predictor of a model with E `experts` in each of the MoE layers that are predicted.

    A number that the scenario gives, or the model's own: the formula of table 6, at the scenario's hidden units.
    """
    if scenario.predictor_mb == "own":
        return network_bytes(experts, predicted_layers, scenario.predictor_hidden, len(LOOKAHEADS))
    return round(scenario.predictor_mb * MB)


def _reported(spec: ModelSpec, scenario: Scenario) -> ModelMemory:
    # The report mixes units: it divides an expert's MB by 1024, calls the result GB, and turns GB into tokens with
    # 10^9. Bytes here are its GB times 10^9.
    reported = {
        name: _value(getattr(spec.reported, name).value)
        for name in type(spec.reported).model_fields
        if name not in ("model", "forced_not_fitting")
    }
    return ModelMemory(
        experts=reported["experts"],
        top_k=reported["top_k"],
        moe_layers=reported["layers"],
        expert_bytes=reported["expert_mb"] / 1024 * GB,
        non_expert_bytes=reported["non_expert_gb"] * GB,
        kv_bytes_per_token=reported["kv_bytes_per_token"],
        state_bytes_per_sequence=0,
        activation_bytes_per_token=0,
        activation_bytes_per_sequence=scenario.activation.gb_per_billion_parameters * reported["total_params_b"] * GB,
        native_context=reported["native_context"],
        total_params=reported["total_params_b"] * 1e9,
        active_params=reported["active_params_b"] * 1e9,
        forced_not_fitting=spec.reported.forced_not_fitting,
        predictor_bytes=predictor_bytes(reported["experts"], reported["layers"], scenario),
    )


def _value(number: Number | None) -> Number:
    return math.nan if number is None else number
