"""The declaration of the study of laws for u(B)."""

from prophet_moe.routing.law_schema import BATCHING, EXPERTS, FITS, LAW, TOP_K
from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import MODEL, TRACE, Table, ends, flag, integer, number, text


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
        *ends("the exponent: over sequences for a trace, over routings of other models or over texts for a model"),
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
POOLED_CV = "the pooled CV, for one model more on one text more"
PUBLISHED_TRANSFER = Table(
    "published_routing_transfer",
    (
        text("observation", "Row of resources/observations/routing.csv that is predicted."),
        text("model", "Model whose counts it is of."),
        text("text", "Text that was counted."),
        text("domain", "web (like the text of pre-training) or prompts (instructions, questions, tasks)."),
        text("traffic", "whole (a mixture), or domain (a single domain, task or shape of request)."),
        text("phase", "Whose tokens were counted: prefill, decode, or both."),
        text("balancing", "How training balanced the load: auxiliary_loss, global_batch_loss, bias or unknown."),
        EXPERTS,
        TOP_K,
        flag("clean", "Whether all layers of the model were counted, and nothing is known to be wrong."),
        text(
            "basis",
            "What the prediction rests on: uniform_occupancy, all_others (models), balanced_alike (others that were "
            "balanced alike, if there are 3 or more, else all), balanced_alike_same_domain (their texts of the domain "
            "alone), or own (the effective CV of the row, which tells how well the shape of the law holds).",
        ),
        integer("models", "", "Models that the popularity CV was pooled from; the model itself is never among them."),
        number("popularity_cv", "", "Popularity CV of the prediction; empty for uniform_occupancy."),
        *ends(POOLED_CV),
        number("own", "", "Effective CV of the row."),
        flag("inside", "Whether the interval holds it; empty where there is none."),
        number("error_pct", "%", "Root mean square relative error of u(B), B of 2 to 64."),
        number("worst_residual_pct", "%", "Relative residual of largest size; positive where the law says too many."),
    ),
)
PUBLISHED_POOLS = Table(
    "published_routing_pools",
    (
        text("balancing", "How training balanced the load of the models; any for all of them."),
        text("domain", "Domain of the texts: web, prompts, or any."),
        integer("models", "", "Models that have such counts."),
        number("popularity_cv", "", "Mean of their effective CVs, one value a model."),
        *ends(POOLED_CV),
        text("names", "Names of the models that were pooled."),
    ),
)
FIGURE = Figure("routing_law", 7.0, 2.6)

STUDY = Study(
    id="routing_law",
    question="How many distinct experts does a batch need, and which law predicts it for a model without a trace?",
    settings=RoutingLawSettings,
    tables=(FITS, RESIDUALS, TRANSFER, VARIATION, PUBLISHED_TRANSFER, PUBLISHED_POOLS, EXPONENTS),
    figures=(FIGURE,),
    reports=("000:73", "000:870-873"),
    minutes=0.6,
)
