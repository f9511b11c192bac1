"""The declaration of the study of predictors."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import TRACE, Table, ends, integer, interval, number, text


class PredictionSettings(StudySettings):
    """The evaluation of predictors; it has no settings."""


EXPERTS = integer("num_experts", "", "Routed experts per MoE layer, E.")
TOP_K = integer("top_k", "", "Routed experts per token and layer, k.")
LOOKAHEAD = integer("lookahead", "layers", "How many layers ahead the experts are predicted.")
RANK = integer("rank", "", "Experts that are named, K of recall@K: k or 2 k.")

SCORES = Table(
    "prediction",
    (
        TRACE,
        text("predictor", "What ranks the experts (docs/routing.md, Prophet's predictor)."),
        text(
            "tokens",
            "Tokens that are scored: held_out (all held-out decoded tokens), domain:<label> (those of one domain) or "
            "router_inputs (those whose router inputs were recorded).",
        ),
        LOOKAHEAD,
        integer(
            "layer", "", "Number of the layer in the model; empty: the mean over the layers that lookahead reaches."
        ),
        text("statistic", "recall, recall_gain, calibration_error, reliability or reliability_share."),
        number("x", "", "Rank K of a recall, or mean predicted probability of a reliability bin."),
        number("value", "", "Value of the statistic, a share."),
        *ends("the value, over sequences (bootstrap)"),
        text("against", "Predictor that a gain is over; empty for other statistics."),
    ),
)
BY_DOMAIN = Table(
    "prediction_by_domain",
    (
        TRACE,
        text("domain", "Domain of text, as the source of the trace names it."),
        LOOKAHEAD,
        RANK,
        text("best_counting", "Best predictor that only counts, chosen on all domains together (table 6)."),
        *(
            column
            for name, who in (
                ("prophet", "Prophet's network"),
                ("best_counting", "the best predictor that only counts"),
                ("popularity", "the popularity of the experts"),
            )
            for column in (
                number(f"{name}_recall", "", f"Share of a token's experts that {who} ranks among the first K."),
                *interval(f"{name}_recall", "", "over sequences of the domain"),
            )
        ),
    ),
)
SETS = Table(
    "predicted_sets",
    (
        TRACE,
        EXPERTS,
        TOP_K,
        integer("batch_size", "", "Held-out sequences that decode together, each at a token of its own."),
        integer("layer_steps", "", "Layer-steps that were counted."),
        number("mean_distinct", "experts", "Distinct experts that a layer-step needs, mean."),
        integer("distinct_p99", "experts", "Distinct experts that 99 % of the layer-steps do not exceed."),
        *(
            integer(
                f"predicted_set_p{share}",
                "experts",
                f"Experts, the likeliest first, that the predictor must name so that all of a layer-step are "
                f"among them in {share} % of the layer-steps.",
            )
            for share in (50, 90, 99)
        ),
    ),
)
SUMMARY = Table(
    "table6_prediction",
    (
        TRACE,
        EXPERTS,
        TOP_K,
        LOOKAHEAD,
        RANK,
        number("prophet_recall", "", "Share of a token's experts that Prophet's network ranks among the first K."),
        text("best_counting", "Best of the predictors that only count."),
        number("best_counting_recall", "", "Share of a token's experts that this predictor ranks among the first K."),
        number("gain", "", "Recall of Prophet minus that of the best predictor that only counts."),
        *interval("gain", "", "over sequences"),
        number(
            "gain_over_naive_bayes_all_inputs",
            "",
            "Recall of Prophet minus that of naive Bayes on the same inputs: what learning adds.",
        ),
        number("popularity_recall", "", "Recall of the ranking by popularity alone."),
        number("shuffled_recall", "", "Recall of the control: Prophet is asked about one token and judged by another."),
        number(
            "gate_input_recall",
            "",
            "Recall of the layer's own router, applied to the router input of the last known layer; empty where no "
            "inputs were recorded.",
        ),
        number("prophet_recall_same_tokens", "", "Recall of Prophet on the tokens whose router inputs were recorded."),
        number("calibration_error", "", "Mean distance of predicted probabilities from the shares that came true."),
        number("predictor_mb", "MB", "Weights of the networks in bf16, MB of 10^6 bytes."),
        number("microseconds", "us", "Time to predict one token on one CPU core; empty where it was not measured."),
        text("cpu", "CPU that this time was measured on."),
    ),
)
FIGURE = Figure("prediction", 7.0, 2.6)

STUDY = Study(
    id="prediction",
    question="How well can the experts of the next layers be predicted, and what does learning add to counting?",
    settings=PredictionSettings,
    tables=(SCORES, BY_DOMAIN, SETS, SUMMARY),
    figures=(FIGURE,),
    minutes=0.6,
)
