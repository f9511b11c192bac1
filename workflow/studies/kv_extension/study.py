"""The declaration of the study of KV extension by memory alone: figures 1 to 5 and tables 1 to 4."""

from prophet_moe.settings.fields import Names, StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import Table


class KvExtensionSettings(StudySettings):
    """Models that the figures of KV extension draw."""

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


TABLE1 = Table("table1_kv_extension_a100_80gb", (), by_scenario=True)
TABLE2 = Table("table2_average_extension", (), by_scenario=True)
TABLE3 = Table("table3_by_expert_count", (), by_scenario=True)
TABLE4 = Table("table4_max_context_length", (), by_scenario=True)

FIGURE1 = Figure("figure1_memory_breakdown", 7.0, 3.2, by_scenario=True)
FIGURE2 = Figure("figure2_kv_extension_by_model", 3.33, 3.4, by_scenario=True)
FIGURE3 = Figure("figure3_context_scaling", 3.33, 2.5, by_scenario=True)
FIGURE4 = Figure("figure4_batch_context_tradeoff", 3.33, 2.6, by_scenario=True)
FIGURE5 = Figure("figure5_expert_count_analysis", 7.0, 3.2, by_scenario=True)

STUDY = Study(
    id="kv_extension",
    question="How much longer can a context be by memory alone, if every expert is always there in time?",
    settings=KvExtensionSettings,
    tables=(TABLE1, TABLE2, TABLE3, TABLE4),
    figures=(FIGURE1, FIGURE2, FIGURE3, FIGURE4, FIGURE5),
    reports=(),
)
