"""The declaration of the study of the planner."""

from typing import Literal

from pydantic import Field

from prophet_moe.settings.fields import Batch, StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import GPU, MODEL, Column, Table, flag, integer, number, text

RATE, SLOTS, PLAN = "tokens_per_s", "slots", "plan"
"""Parts of the table."""
RATE_FACTOR, SLOTS_PCT = 1.6, 5.0
"""Goals: the largest factor of a speed, and the largest error of a number of slots in %, that count as right."""


class PlannerSettings(StudySettings):
    """The hit curves that plans rest on, and the plans that are shown."""

    tokens: int = Field(default=256, gt=0, le=4096)
    """Decode tokens that a hit rate is counted over. As many before them fill the cache, as in a server that runs."""
    start: Literal["cold", "warm"] = "warm"
    """Whether the cache has seen as many tokens of the sequence before."""
    lookup: Literal["ask", "request"] = "ask"
    """Whether the experts of a token are looked up together, as most engines do."""
    sequences: int = Field(default=12, gt=0, le=1000)
    """Sequences that are generated for a curve."""
    points: int = Field(default=28, gt=2, le=1000)
    """Numbers of slots of a curve, from one token's k to all but one, in equal ratios."""
    pairs: dict[str, str] = {
        "Qwen3-30B-A3B": "RTX4090-24GB",
        "gpt-oss-120b": "RTX5090-32GB",
        "Qwen3-235B": "H200-141GB",
        "DeepSeek-V3-671B": "H200-141GB",
    }
    """GPU by model of the plans that are shown: models of config/models/ or config/models/current/ in the formats that
    are shipped, GPUs of config/gpus.yaml."""
    batches: list[Batch] = [1, 16]
    """Batch sizes of the plans of every model and GPU of the grid."""


def _between(name: str, unit: str, meaning: str) -> tuple[Column, ...]:
    """Declare a number with the ends of its range."""
    ends = (("_low", ", low end of its range."), ("_high", ", high end of its range."))
    return (number(name, unit, f"{meaning}."), *(number(f"{name}{end}", unit, f"{meaning}{of}") for end, of in ends))


CURVES = Table(
    "planner_hit_curves",
    (
        text("routing", "Calibrated routing, a file of resources/routing/."),
        integer("experts", "experts", "Routed experts of a layer, E."),
        integer("top_k", "experts", "Routed experts of a token, k."),
        integer("slots", "experts", "Slots of a layer."),
        number("hit_rate", "", "Simulated hit rate of a cache of the least recently used experts, one sequence."),
        number(
            "miss_factor_own",
            "",
            "Within this factor either way lie nine in ten misses of models whose own routing is calibrated, of rows "
            "that it was not fitted to.",
        ),
        number("miss_factor_stand_in", "", "The same where the routing of another model stands in."),
    ),
)
PLANNER = Table(
    "table15_planner",
    (
        text("id", "Row of resources/observations/hit_rates.csv or slots.csv; empty of a plan."),
        text("part", "tokens_per_s, slots, or plan."),
        text("run", "Runs whose configurations are compared in their order; empty of a plan."),
        text("engine", "Engine, or the kind that times are planned for."),
        text("model", "Model as its source names it."),
        text("gpu", "GPU as its source names it."),
        integer("context", "tokens", "Context of a plan; empty of what others measured."),
        number("resident_share_pct", "%", "Experts of a layer that have a slot."),
        number("hit_rate", "", "Hit rate that the planner predicts."),
        number("hit_rate_measured", "", "Hit rate that was measured beside it."),
        number("measured", "", "What was measured, in `unit`."),
        number("predicted", "", "What the planner says."),
        number("low", "", "Low end of its range."),
        number("high", "", "High end of its range."),
        number(
            "predicted_left_out",
            "",
            "The same without what the row fixed: hit rates of other models, and overheads of other engines or "
            "sources.",
        ),
        text("unit", "tok/s, the slots' own unit, or x: a slowdown."),
        number("factor", "", "Predicted over measured."),
        flag("within_goal", "Whether the prediction is within the goal of the study; empty without one."),
        flag("left_out_within_goal", "Whether predicted_left_out is."),
        integer("pairs", "", "Other configurations of its run with another measured speed and other slots."),
        integer("pairs_right", "", "Those that the planner orders as they were measured."),
        text("source", "Where it was published."),
        text("note", "What else there is to know."),
    ),
)

PLANS = Table(
    "plans",
    (
        MODEL,
        GPU,
        integer("batch_size", "sequences", "Sequences that decode together."),
        integer("context", "tokens", "Tokens of every sequence."),
        integer("slots", "experts", "Most slots of all layers together that fit beside the context; 0 where none do."),
        integer("slots_per_layer", "experts", "Whole slots of a layer."),
        integer("experts", "experts", "Routed experts of a layer, E."),
        number("resident_share_pct", "%", "Experts that have a slot."),
        *_between("hit_rate", "", "Hit rate with these slots"),
        *_between("tokens_per_s", "tok/s", "Tokens that all sequences together decode in a second"),
        *_between("slowdown", "", "Time of a decode step over that with all experts resident"),
        number("prefill_s", "s", "Least time to prefill the context; empty for encoder-decoders."),
        flag("works", "Whether an engine could keep this split."),
        text("refusals", "Why no engine, or not every engine, could; empty where nothing speaks against it."),
        integer("advised_context", "tokens", "Context that the recommendation is for."),
        text("advice", "The recommendation, one for all contexts of a model, GPU and batch size."),
        text("reasons", "Its reasons, separated by semicolons."),
    ),
)
"""What `prophet-moe plan` says of every model and GPU of the grid."""

FIGURE = Figure("planner", 7.0, 3.7, table=PLANNER.name)

STUDY = Study(
    id="planner",
    question="Would a plan made beforehand have said what people measured afterwards?",
    settings=PlannerSettings,
    tables=(PLANNER, CURVES, PLANS),
    figures=(FIGURE,),
    minutes=0.5,
)
