"""The declaration of the study of the models that people serve today."""

from typing import Annotated, ClassVar

from pydantic import Field

from prophet_moe.settings.fields import LARGEST_CONTEXT, Batch, Names, StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import GPU, Table, flag, gigabytes, integer, number, text


class CurrentModelsSettings(StudySettings):
    """What fits where, for the models of config/models/current/ in the formats that their authors ship."""

    named_gpus: ClassVar[tuple[str, ...]] = ("gpus",)

    gpus: Names = [
        "RTX4090-24GB",
        "RTX5090-32GB",
        "V100-32GB",
        "A100-40GB",
        "L40S-48GB",
        "A100-80GB",
        "H100-80GB",
        "GH200-96GB",
        "DGX-Spark-128GB",
        "H200-141GB",
        "B200-180GB",
        "MI300X-192GB",
    ]
    """GPUs of the table and the columns of the figure, names of config/gpus.yaml."""
    batch_size: Batch = 1
    """Sequences decoded together."""
    context_tokens: Annotated[int, Field(gt=0, le=LARGEST_CONTEXT)] = 32768
    """Context that slots leave room for, in tokens, or the native one of a model if that is shorter."""


CURRENT_MODELS = Table(
    "table13_current_models",
    (
        text("model", "Model, a file of config/models/current/."),
        number("total_params_b", "10^9", "All parameters that are counted.", "total_params", 1e9),
        number("active_params_b", "10^9", "Parameters that one token uses.", "active_params", 1e9),
        integer("num_experts", "", "Routed experts per MoE layer, E.", "experts"),
        integer("top_k", "", "Routed experts per token and layer, k."),
        integer("native_context", "tokens", "Native context of the model."),
        text("formats", "Formats of the weights as shipped, and of the KV cache."),
        gigabytes("checkpoint_gb", "All weights in these formats, without what is left out.", "checkpoint_bytes"),
        number("kv_bytes_per_token_growing", "B", "KV cache that each token adds for good, per sequence."),
        gigabytes("kv_bounded_gb", "KV cache that full windows hold besides, per sequence.", "kv_bytes_bounded"),
        gigabytes("state_gb", "Recurrent state of a sequence.", "state_bytes_per_sequence"),
        text("left_out", "Parts of the checkpoint that are not counted."),
        GPU,
        gigabytes("gpu_memory_gb", "Usable device memory, GB of 10^9 bytes.", "device_bytes"),
        flag("unified_memory", "Whether the host has no other memory: experts without a slot then lie on a disk."),
        integer("batch_size", "", "Sequences decoded together, B."),
        text(
            "fit_state",
            "both (all experts fit with a token of context), prophet_only (only with slots for some) or neither.",
        ),
        integer(
            "baseline_max_context", "tokens", "Longest context per sequence with every expert resident, memory limit."
        ),
        integer("baseline_native_context", "tokens", "The same, at most the native context."),
        integer("resident_experts", "experts", "Slots per MoE layer by the scenario's rule for resident experts."),
        integer("prophet_max_context", "tokens", "Longest context per sequence with these slots, memory limit."),
        integer("prophet_native_context", "tokens", "The same, at most the native context."),
        integer("context", "tokens", "Context per sequence that the following columns leave room for."),
        integer("slots", "experts", "Most slots per MoE layer beside that context; empty: not even one."),
        number("share_resident_pct", "%", "Those slots over E; empty where there is none."),
        gigabytes("other_experts_gb", "Experts without a slot, for which the host needs memory.", "other_expert_bytes"),
        number(
            "all_resident_ms",
            "ms",
            "Time of a decode step at that context with every expert on the GPU; hypothetical where slots are below E.",
        ),
        number("all_resident_bound_ms", "ms", "The same by the datasheet, a lower bound."),
        number(
            "slots_least_ms",
            "ms",
            "Least time of a step with these slots if they hold experts at random, with perfect prefetch; empty where "
            "there are none, or fewer than a token uses, or where the other experts lie on a disk.",
        ),
        number("slots_least_bound_ms", "ms", "The same by the datasheet."),
        text("times", "What times rest on: measured (here), or estimated (from others' measurements)."),
    ),
)
FIGURE = Figure("current_models", 7.0, 7.3, table=CURRENT_MODELS.name)

STUDY = Study(
    id="current_models",
    question="Which models of today fit on one GPU, and with how long a context?",
    settings=CurrentModelsSettings,
    tables=(CURRENT_MODELS,),
    figures=(FIGURE,),
    minutes=0.2,
)
