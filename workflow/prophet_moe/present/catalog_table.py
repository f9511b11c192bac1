"""The catalogue as a table: every constant as published and as reported, side by side."""

import pandas as pd

from prophet_moe import params
from prophet_moe.catalog import ModelSpec
from prophet_moe.units import GB, MB


def catalog_table(models: dict[str, ModelSpec]) -> pd.DataFrame:
    """One row per model and quantity: published value, reported value, its status and source, published / reported."""
    return pd.DataFrame([row for spec in models.values() for row in _rows(spec)])


def _rows(spec: ModelSpec) -> list[dict]:
    published = _published(spec)
    rows = []
    for quantity, value in published.items():
        told = getattr(spec.reported, quantity) if spec.reported else None
        reported = told.value if told else None
        rows.append(
            {
                "model": spec.name,
                "quantity": quantity,
                "published": value,
                "reported": reported,
                "published_over_reported": value / reported if value is not None and reported else None,
                "status": told.status if told else "not covered",
                "source": told.source if told else "",
            }
        )
    return rows


def _published(spec: ModelSpec) -> dict[str, float | int | None]:
    """The published counterpart, at 16 bits, of each of the report's constants; None where it has none."""
    arch, counts = spec.architecture, params.parameter_counts(spec.architecture)
    return {
        "experts": arch.moe.experts,
        "top_k": arch.moe.top_k,
        "layers": params.moe_layers(arch),
        "expert_mb": 2 * params.expert_parameters(arch) / MB,
        "expert_total_gb": 2 * counts.routed_experts / GB,
        "total_params_b": counts.total / 1e9,
        "active_params_b": params.active_parameters(arch) / 1e9,
        "non_expert_gb": 2 * counts.non_expert / GB,
        "activation_gb_per_sequence": None,
        "kv_bytes_per_token": params.kv_bytes_per_token(arch),
        "native_context": arch.native_context,
    }
