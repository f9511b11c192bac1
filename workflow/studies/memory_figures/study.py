"""The declaration of the study of memory in pictures: components, savings, contexts, and the graphical abstract."""

from typing import Annotated

from pydantic import Field

from prophet_moe.settings.fields import LARGEST_CONTEXT, Batch, Batches, Names, StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import GPU, MODEL, Table, gigabytes, integer, number

Context = Annotated[int, Field(gt=0, le=LARGEST_CONTEXT)]


class MemoryFiguresSettings(StudySettings):
    """Models, batch sizes and contexts that the figures of memory show."""

    named_models = ("component_models", "context_models", "map_models")

    component_models: Names = [
        "Mixtral-8x7B",
        "DeepSeek-MoE-16B",
        "Qwen1.5-MoE-A2.7B",
        "Switch-Base-128",
        "Snowflake-Arctic-480B",
    ]
    """Models of the detailed memory breakdown and of the graphical abstract, in order."""
    context_models: Names = ["Switch-XXL-128", "Qwen1.5-MoE-A2.7B"]
    """Models of the figure of memory by context. Report 003 has the first (003:72)."""
    context_batch: Batch = 8
    """Batch size of the figure of memory by context."""
    contexts: Annotated[list[Context], Field(min_length=2)] = [512, 1024, 2048, 4096, 8192, 16384]
    """Contexts of that figure, tokens of each sequence."""
    savings_batches: Batches = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    """Batch sizes of the figure of savings."""
    map_models: Names = ["Switch-Large-128"]
    """Model of the maps of the longest context; the first that there is."""


MEMORY_BY_CONTEXT = Table(
    "memory_by_context",
    (
        MODEL,
        GPU,
        integer("batch_size", "", "Sequences decoded together, B."),
        integer("context", "tokens", "Tokens in the cache of each sequence."),
        gigabytes("kv_cache_gb", "KV cache of the batch at that context.", "kv_cache"),
        gigabytes("baseline_total_gb", "All of the baseline's memory.", "baseline"),
        gigabytes("prophet_total_gb", "All of Prophet's memory, predictor included.", "prophet"),
        gigabytes("gpu_memory_gb", "Usable memory of the GPU.", "device"),
    ),
)
SAVINGS_BY_BATCH = Table(
    "savings_by_batch",
    (
        MODEL,
        integer("num_experts", "", "Routed experts per MoE layer, E."),
        integer("top_k", "", "Routed experts per token and layer, k."),
        integer("batch_size", "", "Sequences decoded together, B."),
        number(
            "savings_pct", "%", "Share of the experts of a layer that is not resident, by the scenario's law and rule."
        ),
        number("power_law_savings_pct", "%", "The same by the report's law, u(B) = k B^a, not rounded."),
    ),
)
SATURATION = Table(
    "saturation",
    (
        MODEL,
        integer("num_experts", "", "Routed experts per MoE layer, E."),
        integer("top_k", "", "Routed experts per token and layer, k."),
        number("power_law_batch", "sequences", "Batch from which the report's law needs all experts, (E/k)^(1/a)."),
        integer("saturating_batch", "sequences", "The same by the scenario's law and rule; empty: none up to 65536."),
    ),
)

COMPONENTS_FIGURE = Figure("figure1_detailed_memory_breakdown", 7.0, 3.1)
SAVINGS_FIGURE = Figure("figure6_savings_vs_batch_by_experts", 7.0, 3.3, table=SAVINGS_BY_BATCH.name)
CONTEXT_FIGURE = Figure("figure7_memory_by_context", 7.0, 2.7, table=MEMORY_BY_CONTEXT.name)
MAPS_FIGURE = Figure("figure8_longest_context", 7.0, 2.5)
ABSTRACT_FIGURE = Figure("figure9_graphical_abstract", 3.33, 5.2)

STUDY = Study(
    id="memory_figures",
    question="What is the memory made of, and how does it change with batch size, context and GPU?",
    settings=MemoryFiguresSettings,
    tables=(MEMORY_BY_CONTEXT, SAVINGS_BY_BATCH, SATURATION),
    figures=(COMPONENTS_FIGURE, SAVINGS_FIGURE, CONTEXT_FIGURE, MAPS_FIGURE, ABSTRACT_FIGURE),
    minutes=0.3,
)
