"""The catalogue as a table: every constant as published and as reported, side by side."""

import pandas as pd

from prophet_moe import params
from prophet_moe.catalog import ModelSpec
from prophet_moe.tables import MODEL, Table, number, text
from prophet_moe.units import GB, MB

CATALOG = Table(
    "model_catalog",
    (
        MODEL,
        text("quantity", "Constant of the model, a key of `reported` in docs/models.md; its name ends in the unit."),
        number("published", "", "Its value by the published architecture, at 16 bits; empty where there is none."),
        number("reported", "", "Its value in the report; empty where the report gives none."),
        number("published_over_reported", "", "Ratio of the two; empty where one is missing or 0."),
        text("status", "How the reported value is known: exact, inferred or unknown; not covered by the report."),
        text("source", "Where the report has it (docs/reports.md), or how it was inferred."),
    ),
)


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
        "kv_bytes_per_token": float(params.growing_bytes_per_token(params.caches(arch))),
        "native_context": arch.native_context,
    }
