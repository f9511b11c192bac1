"""The declaration of the study of KV extension by memory alone: figures 1 to 5 and tables 1 to 4."""

from dataclasses import replace

from prophet_moe.capacity.record import OVER_ROUTING
from prophet_moe.present.price import STRATEGIES
from prophet_moe.settings.fields import Names, StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import MODEL, Column, Table, integer, interval, number, text


class KvExtensionSettings(StudySettings):
    """Models that the figures of KV extension draw, in order; report 000:490-582 describes these figures."""

    named_models = ("figure1_models", "figure3_models", "figure4_models")

    figure1_models: Names = [
        "Mixtral-8x7B",
        "DeepSeek-MoE-16B",
        "Qwen1.5-MoE-A2.7B",
        "Switch-Base-128",
        "Snowflake-Arctic-480B",
    ]
    """Models of figure 1, which shows memory by component."""
    figure3_models: Names = ["Switch-Base-128", "Qwen1.5-MoE-A2.7B", "DeepSeek-MoE-16B", "OLMoE-1B-7B"]
    """Models of figure 3, which shows KV extension against batch size."""
    figure4_models: Names = [
        "Mixtral-8x7B",
        "DeepSeek-MoE-16B",
        "DeepSeek-V2-236B",
        "DeepSeek-V3-671B",
        "Switch-Base-128",
        "Switch-XXL-128",
        "Qwen1.5-MoE-A2.7B",
        "Snowflake-Arctic-480B",
    ]
    """Models of figure 4, which shows expert savings by batch size."""


EXPERTS = integer("num_experts", "", "Routed experts per MoE layer, E.")
FIT = text("fit_state", "Which of the two fits: both, prophet_only, baseline_only or neither.")
FLOOR = number(
    "memory_floor_factor",
    "",
    "KV extension by memory alone, if every expert were there in time; empty where the baseline does not fit "
    "(reported: 0).",
)
MEAN_FLOOR = number(
    "mean_floor_fitting", "", "Mean KV extension by memory alone over the rows whose baseline fits; empty without any."
)
FITTING = integer("fitting_rows", "rows", "Rows of the record whose baseline fits.")
ROWS = integer("rows", "rows", "Rows of the record: GPUs and batch sizes.")
ZERO_FILLED = number(
    "mean_floor_zero_filled",
    "",
    "Mean KV extension by memory alone over all rows, with 0 where the baseline does not fit.",
)
MEAN_SAVINGS = number("mean_expert_savings_pct", "%", "Mean share of expert bytes that leaves the GPU, over all rows.")

TABLE1 = Table(
    "table1_kv_extension_a100_80gb",
    (
        MODEL,
        EXPERTS,
        integer("top_k", "", "Routed experts per token and layer, k."),
        FIT,
        number("expert_savings_pct", "%", "Share of expert bytes that leaves the GPU."),
        FLOOR,
        integer("kv_increase_tokens", "tokens", "Tokens of context gained per sequence, by memory alone."),
    ),
    by_scenario=True,
)
TABLE2 = Table(
    "table2_average_extension",
    (
        integer("rank", "", "Place in the order of the mean that the scenario ranks by."),
        MODEL,
        EXPERTS,
        MEAN_FLOOR,
        FITTING,
        integer("prophet_only_rows", "rows", "Rows of the record that only Prophet fits."),
        ROWS,
        ZERO_FILLED,
        number("best_floor", "", "Largest KV extension by memory alone of the rows whose baseline fits."),
        text("best_gpu", "GPU of that row; empty where the baseline never fits."),
        integer("best_batch_size", "", "Batch size of that row; empty where the baseline never fits."),
        MEAN_SAVINGS,
        number("median_floor_fitting", "", "Median KV extension by memory alone over the rows whose baseline fits."),
        number("geomean_floor_fitting", "", "Geometric mean of the KV extension by memory alone over the same rows."),
        number(
            "native_floor_fitting",
            "",
            "Mean over the same rows of the KV extension with both contexts cut at the native one.",
        ),
        integer("native_gain_rows", "rows", "Rows that gain anything within the native context."),
    ),
    repeated=tuple(
        number(
            f"mean_{strategy}_at_<limit>x",
            "",
            f"Mean KV extension within that limit of slowdown over the rows whose baseline fits ({who}).",
        )
        for strategy, who in STRATEGIES.items()
    ),
    by_scenario=True,
)
TABLE3 = Table(
    "table3_by_expert_count",
    (
        EXPERTS,
        integer("models", "", "Models with so many experts."),
        MEAN_SAVINGS,
        number("mean_dedup_factor", "", "Mean deduplication factor E / u(B), over all rows."),
        MEAN_FLOOR,
        FITTING,
        ROWS,
        ZERO_FILLED,
        text("pattern", "What the group shows: baseline never fits, saturates quickly or extends the context."),
    ),
    by_scenario=True,
)
TABLE4 = Table(
    "table4_max_context_length",
    (
        MODEL,
        FIT,
        integer("native_context", "tokens", "Native context of the model; empty where the report gives none."),
        integer(
            "baseline_max_context", "tokens", "Longest context per sequence with all experts resident; 0: none fits."
        ),
        integer(
            "prophet_max_context",
            "tokens",
            "Longest context per sequence with Prophet's resident experts; 0: none fits.",
        ),
        integer("baseline_native_context", "tokens", "The baseline's longest context, cut at the native one."),
        integer("prophet_native_context", "tokens", "Prophet's longest context, cut at the native one."),
        FLOOR,
    ),
    by_scenario=True,
)
AFFECTED = (
    "expert_savings_pct",
    "mean_expert_savings_pct",
    "memory_floor_factor",
    "kv_increase_tokens",
    "mean_floor_fitting",
    "mean_floor_zero_filled",
    "best_floor",
    "median_floor_fitting",
    "geomean_floor_fitting",
    "native_floor_fitting",
    "mean_dedup_factor",
    "prophet_max_context",
    "prophet_native_context",
)
"""Columns of tables 1-4 that depend on how many experts a batch needs."""


def _with_intervals(table: Table) -> Table:
    """The table with the ends of an interval after every AFFECTED column."""
    columns: list[Column] = []
    for column in table.columns:
        affected = column.name in AFFECTED
        columns += [column, *(interval(column.name, column.unit, OVER_ROUTING) if affected else ())]
    return replace(table, columns=tuple(columns), repeated=(), extended=True)


TABLES = (TABLE1, TABLE2, TABLE3, TABLE4)
EXTENDED = tuple(map(_with_intervals, TABLES))

FIGURE1 = Figure("figure1_memory_breakdown", 7.0, 3.2, by_scenario=True)
FIGURE2 = Figure("figure2_kv_extension_by_model", 3.33, 3.4, by_scenario=True)
FIGURE3 = Figure("figure3_context_scaling", 3.33, 2.5, by_scenario=True)
FIGURE4 = Figure("figure4_batch_context_tradeoff", 3.33, 2.6, by_scenario=True)
FIGURE5 = Figure("figure5_expert_count_analysis", 7.0, 3.2, by_scenario=True)

STUDY = Study(
    id="kv_extension",
    question="How much longer can a context be by memory alone, if every expert is always there in time?",
    settings=KvExtensionSettings,
    tables=TABLES,
    extended=EXTENDED,
    figures=(FIGURE1, FIGURE2, FIGURE3, FIGURE4, FIGURE5),
    reports=(),
    minutes=1,
)
