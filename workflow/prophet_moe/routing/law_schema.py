"""What is known of a law for u(B) once it was fitted to a trace: parameters, errors, residuals."""

from dataclasses import dataclass

from prophet_moe.settings.scenario import Routing
from prophet_moe.tables import TRACE, Table, ends, integer, number, text

BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes, in tokens, at which u(B) is measured."""
BATCHINGS = ("staggered", "decode_step", "prefill")
SATURATION_SHARE = 0.75
"""Share of the experts below which a power law is fitted: above, the limit E bends every curve."""
REPORTED_EXPONENT = Routing().exponent
"""Exponent of the report's power law."""

EXPERTS = integer("experts", "", "Routed experts per MoE layer, E.")
TOP_K = integer("top_k", "", "Routed experts per token and layer, k.")
BATCHING = text(
    "batching", "Which tokens decode together: staggered, decode_step or prefill (docs/routing.md, Laws for u(B))."
)
LAW = text("law", "Law for the distinct experts of a batch, u(B) (docs/routing.md, Laws for u(B)).")
FITS = Table(
    "routing_law_fits",
    (
        TRACE,
        text("model", "Model that the trace was recorded of."),
        EXPERTS,
        TOP_K,
        BATCHING,
        LAW,
        text("parameter", "Name of the fitted or given number; empty where the law has none."),
        number("value", "", "The parameter, as fitted to one half of the sequences; empty where the law has none."),
        *ends("the parameter, over sequences (bootstrap)"),
        integer("largest_batch", "tokens", "Largest B that the parameter was fitted to."),
        number("r_squared", "", "Share of the variance of u(B) over B that the law explains, on held-out sequences."),
        number("held_out_error_pct", "%", "Root mean square relative error of u(B), B > 1, on held-out sequences."),
        number(
            "worst_residual_pct",
            "%",
            "Relative residual of largest size there; positive where the law says too many.",
        ),
    ),
)
"""The fits of all traces, which `prophet-moe capacity` reads as well."""


@dataclass(frozen=True)
class Fit:
    """One law fitted to one trace under one way of batching."""

    trace: str
    model: str
    experts: int
    top_k: int
    batching: str
    law: str
    parameter: str
    """Name of the fitted or given number; empty where the law has none."""
    value: float
    low: float
    """95 % interval over sequences (bootstrap)."""
    high: float
    largest_batch: int
    """Largest B that the parameter was fitted to."""
    r_squared: float
    """Share of the variance of u(B) over B that the law explains, on held-out sequences."""
    held_out_error_pct: float
    """Root mean square relative error of u(B), B > 1, on held-out sequences, percent."""
    worst_residual_pct: float
    """The relative residual of largest size there, percent; positive where the law says too many."""


@dataclass(frozen=True)
class Residual:
    """The prediction of a law beside the measurement, at one batch size."""

    trace: str
    experts: int
    top_k: int
    batching: str
    law: str
    batch: int
    predicted: float
    held_out: float
    """u(B) of the held-out sequences, mean over layers."""
    residual_pct: float
