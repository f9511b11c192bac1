"""Exact accounting of a published architecture: parameters and bytes by component, caches, states, activations.

* `weights`: the matrices of every kind of mixer and FFN.
* `counts`: parameters and bytes, sums of the matrices over the pattern.
* `cache`: what a sequence keeps: caches that grow, caches that end at a window, states.
* `activations`: peak bytes of activations.
"""

from prophet_moe.params.activations import activation_bytes_per_token, logits_bytes_per_sequence
from prophet_moe.params.cache import (
    Cache,
    State,
    bounded_bytes,
    caches,
    growing_bytes_per_token,
    state_bytes_per_sequence,
    states,
)
from prophet_moe.params.counts import (
    NOTED_DEVIATION,
    UNQUANTISED,
    ParameterCounts,
    active_parameters,
    attention_layers,
    deviation_from_published,
    draft_bytes,
    draft_parameters,
    encoder_moe_layers,
    expert_bytes,
    expert_parameters,
    moe_layers,
    parameter_counts,
    source_projections,
    stored_bytes,
    weight_bytes,
)

__all__ = [
    "NOTED_DEVIATION",
    "UNQUANTISED",
    "Cache",
    "ParameterCounts",
    "State",
    "activation_bytes_per_token",
    "active_parameters",
    "attention_layers",
    "bounded_bytes",
    "caches",
    "deviation_from_published",
    "draft_bytes",
    "draft_parameters",
    "encoder_moe_layers",
    "expert_bytes",
    "expert_parameters",
    "growing_bytes_per_token",
    "logits_bytes_per_sequence",
    "moe_layers",
    "parameter_counts",
    "source_projections",
    "state_bytes_per_sequence",
    "states",
    "stored_bytes",
    "weight_bytes",
]
