"""The declaration of the study of where expert slots pay."""

from typing import Annotated, ClassVar

from pydantic import Field

from prophet_moe.precision import WeightFormat
from prophet_moe.settings.fields import (
    LARGEST_LAYERS,
    MOST_SEQUENCES,
    MOST_TOKENS,
    Names,
    StudySettings,
)
from prophet_moe.study import Figure, Study
from prophet_moe.tables import GPU, Table, flag, gigabytes, integer, number, text

SHIPPED = "shipped"
"""The formats that a model's authors ship."""
OWN = "own"
"""The host link that config/gpus.yaml has for a GPU."""


class WhereItPaysSettings(StudySettings):
    """Break-even of hit rate and bandwidths, for models, machines and formats."""

    named_gpus: ClassVar[tuple[str, ...]] = ("gpus",)

    current: list[str] = [
        "gpt-oss-20b",
        "gpt-oss-120b",
        "Qwen3-30B-A3B",
        "Qwen3-Next-80B-A3B",
        "GLM-4.5-Air",
        "DeepSeek-V3.2",
        "Kimi-K2",
    ]
    """Models of config/models/current/ beside those of the grid."""
    gpus: Names = [
        "V100-32GB",
        "A100-80GB",
        "H100-80GB",
        "H200-141GB",
        "B200-180GB",
        "RTX4090-24GB",
        "RTX5090-32GB",
        "DGX-Spark-128GB",
    ]
    """GPUs with the host link of config/gpus.yaml."""
    buses: dict[str, list[str]] = {
        "ssd_pcie4_x4": ["H100-80GB", "DGX-Spark-128GB"],
        "pcie6_x16": ["B200-180GB"],
        "nvlink_c2c": ["B200-180GB", "GH200-96GB"],
    }
    """GPUs by a bus of config/buses.yaml that experts come over instead."""
    formats: list[WeightFormat] = ["fp8_channel", "mxfp4"]
    """Formats of all matrices beside those that a model ships."""
    tokens: Annotated[int, Field(gt=0, le=MOST_TOKENS)] = 256
    """Decoded tokens of a generated sequence, over which hit rates are counted."""
    sequences: Annotated[int, Field(gt=0, le=MOST_SEQUENCES)] = 24
    """Generated sequences of a hit curve, and of a simulation."""
    layers: Annotated[int, Field(gt=0, le=LARGEST_LAYERS)] = 6
    """MoE layers of generated routing. The time of one layer does not depend on their number."""
    simulated: list[str] = ["A100-80GB", "RTX5090-32GB", "GH200-96GB"]
    """GPUs on which the closed form is held against the simulator, for shipped formats."""


WHERE_IT_PAYS = Table(
    "table16_where_it_pays",
    (
        text("model", "Model, a file of config/models/ or config/models/current/."),
        integer("num_experts", "", "Routed experts per MoE layer, E."),
        integer("top_k", "", "Routed experts per token and layer, k."),
        GPU,
        text("bus", "own (the host link of config/gpus.yaml), or a bus of config/buses.yaml."),
        text("link", "Name of that link in figures."),
        text("link_basis", "What the speed of copies rests on: measured (by others), or bound (a specification)."),
        flag("unified_memory", "Whether experts need no copy, since the host has no other memory than the GPU's."),
        text("format", "shipped (by the model's authors), or a format of all matrices."),
        integer("context", "tokens", "Context of the sequence, at most the native one; one sequence decodes."),
        number("expert_mb", "MB", "Bytes of one routed expert, MB of 10^6 bytes."),
        number("step_ms", "ms", "Estimated time of a decode step with every expert resident."),
        number("step_low_ms", "ms", "Low end of its interval, which nine of ten servers of others are in."),
        number("step_high_ms", "ms", "High end of that interval."),
        number("expert_share", "", "f: reading the step's routed experts at the datasheet's speed, over step_ms."),
        number("link_ratio", "", "rho: reading one expert from device memory, over copying it from the host."),
        number("cold_slowdown", "", "Slowdown on demand if every needed expert is missing, 1 + f / rho."),
        number("hit_rate_needed", "", "Least hit rate within the claimed slowdown on demand."),
        number("hit_rate_needed_low", "", "The same with the step as slow as step_high_ms."),
        number("hit_rate_needed_high", "", "The same with the step as fast as step_low_ms."),
        number("hit_rate_needed_prefetched", "", "Hit rate below which no prefetch keeps within the claimed slowdown."),
        number("hit_rate_needed_in_place", "", "Least hit rate if missing experts are read over the link in place."),
        text("routing", "Published hit curve whose fitted routing stands in for the model."),
        number("resident_share_needed", "", "Fewest slots over E whose LRU cache reaches hit_rate_needed."),
        number("resident_share_low", "", "The least of them over all published hit curves, in place of that one."),
        number("resident_share_high", "", "The most of them over all published hit curves."),
        number("resident_share_prefetched", "", "Fewest slots over E that reach hit_rate_needed_prefetched."),
        number("largest_resident_share", "", "Most slots over E that fit beside the context; 0 where none do."),
        text(
            "state",
            "all_fit (every expert fits beside the context), slots (the share needed fits), too_slow (slots fit, but "
            "fewer than needed), too_large (fewer than k slots fit).",
        ),
        gigabytes("freed_gb", "Experts beyond the share needed, which leave the GPU.", "freed_bytes"),
        integer("baseline_max_context", "tokens", "Longest context with every expert resident, by memory alone."),
        integer("slots_max_context", "tokens", "The same with the share needed."),
        number("simulated_hit_rate", "", "Hit rate of the simulator with that share; empty where not simulated."),
        number("simulated_slowdown", "", "Slowdown of the simulator on demand, with the same step and copies."),
        number("closed_form_slowdown", "", "Closed form on demand at simulated_hit_rate."),
        number("closed_form_prefetched", "", "Closed form of the prefetched bound, likewise."),
    ),
)
FIGURE = Figure("where_it_pays", 7.0, 4.4, table=WHERE_IT_PAYS.name)

STUDY = Study(
    id="where_it_pays",
    question="On which hardware does a cache of experts keep a decode step within the claimed slowdown?",
    settings=WhereItPaysSettings,
    tables=(WHERE_IT_PAYS,),
    figures=(FIGURE,),
    reports=("000:778",),
    minutes=0.3,
)
