"""The declaration of the study of laws for u(B)."""

from prophet_moe.routing.law_schema import BATCHING, EXPERTS, FITS, LAW, TOP_K
from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import MODEL, TRACE, Table, ends, integer, number, text


class RoutingLawSettings(StudySettings):
    """The laws for the distinct experts of a batch, u(B)."""

    reported_exponents: dict[str, float] = {
        "Switch-Base-128": 0.934,
        "Qwen1.5-MoE-A2.7B": 0.928,
        "DeepSeek-V3-671B": 0.935,
        "Mixtral-8x7B": 0.931,
    }
    """Exponents of u(B) = k B^a by model that the report states as fitted (000:870-873)."""


RESIDUALS = Table(
    "routing_law_residuals",
    (
        TRACE,
        EXPERTS,
        TOP_K,
        BATCHING,
        LAW,
        integer("batch", "tokens", "Batch size B, in tokens."),
        number("predicted", "experts", "u(B) as the law predicts it."),
        number("held_out", "experts", "u(B) of the held-out sequences, mean over layers."),
        number("residual_pct", "%", "Relative residual of the prediction; positive where the law says too many."),
    ),
)
TRANSFER = Table(
    "routing_law_transfer",
    (
        text("trace", "Trace that is left out and predicted from the traces of all other models."),
        BATCHING,
        LAW,
        number("parameter", "", "Parameter of the law, pooled from the other models; empty where the law has none."),
        *ends("the pooled parameter, over models"),
        number("own", "", "Parameter as fitted to the trace itself; empty where the law has none."),
        number("error_pct", "%", "Root mean square relative error of u(B), B > 1."),
        number("worst_residual_pct", "%", "Relative residual of largest size; positive where the law says too many."),
    ),
)
VARIATION = Table(
    "routing_variation",
    (
        MODEL,
        BATCHING,
        number(
            "value",
            "",
            "Popularity CV of the model: standard deviation of the popularity of its experts over its mean.",
        ),
        *ends("the value: of the fit, or of one model more"),
        text("source", "Trace or counts that it was fitted to, or the traces that it was pooled from."),
    ),
)
EXPONENTS = Table(
    "table5_routing_exponents",
    (
        text("name", "Trace, or model that the report names."),
        text("basis", "measured (fitted to the trace), or what the popularity CV of the model rests on."),
        integer("num_experts", "", "Routed experts per MoE layer, E."),
        TOP_K,
        number("exponent", "", "Exponent a of u(B) = k B^a, for staggered batches."),
        *ends("the exponent: over sequences for a trace, over routings of other models for a model"),
        integer("largest_batch", "tokens", "Largest B that the exponent was fitted to."),
        number("r_squared", "", "Share of the variance of u(B) over B that the power law explains; empty for a model."),
        number(
            "held_out_error_pct",
            "%",
            "Root mean square relative error of u(B) on held-out sequences; empty for a model.",
        ),
        number("reported_exponent", "", "Exponent that the report states, for a trace its common one."),
    ),
)
FIGURE = Figure("routing_law", 7.0, 2.6)

STUDY = Study(
    id="routing_law",
    question="How many distinct experts does a batch need, and which law predicts it for a model without a trace?",
    settings=RoutingLawSettings,
    tables=(FITS, RESIDUALS, TRANSFER, VARIATION, EXPONENTS),
    figures=(FIGURE,),
    reports=("000:73", "000:870-873"),
    minutes=0.6,
)
