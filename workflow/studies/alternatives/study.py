"""The declaration of the study of alternatives to Prophet."""

from typing import Annotated, ClassVar

from pydantic import Field

from prophet_moe.precision import WeightFormat
from prophet_moe.settings.fields import (
    LARGEST_LAYERS,
    MOST_SEQUENCES,
    MOST_TOKENS,
    Batches,
    Names,
    Share,
    StudySettings,
)
from prophet_moe.study import Figure, Study
from prophet_moe.tables import GPU, MODEL, Table, flag, gigabytes, integer, number, text

BASELINE_FORMAT = "bf16"
"""Format of the weights of the baseline."""


class AlternativesSettings(StudySettings):
    """Ways of serving and formats that are compared with the baseline."""

    named_models: ClassVar[tuple[str, ...]] = ("models",)
    named_gpus: ClassVar[tuple[str, ...]] = ("gpus",)

    models: Names = ["Switch-XXL-128", "Qwen3-235B", "Mixtral-8x7B"]
    """Models that have a panel of their own in the figure."""
    gpus: Names = ["A100-80GB", "H100-80GB"]
    """GPUs of the table."""
    batch_sizes: Batches = [1, 16]
    """Sequences decoded together."""
    resident_shares: list[Share] = Field(default=[0.125, 0.5], min_length=1)
    """Shares of a layer's experts with a slot. The first is what Prophet keeps in the report, 48 of 384 GB."""
    formats: list[WeightFormat] = ["int8", "fp8_channel", "int4_group128", "mxfp4"]
    """Formats of all matrices beside those of the baseline, of 16 bits."""
    predictor: str = "gpt-oss-20b-decode"
    """Trace with a trained predictor, whose discrimination Prophet has in the simulation."""
    sequences: Annotated[int, Field(gt=0, le=MOST_SEQUENCES)] = 32
    """Generated sequences of a simulation."""
    tokens: Annotated[int, Field(gt=0, le=MOST_TOKENS)] = 96
    """Decoded tokens of each sequence."""
    layers: Annotated[int, Field(gt=0, le=LARGEST_LAYERS)] = 4
    """MoE layers of generated routing."""
    quality: dict[str, str] = {
        "int8": "no degradation up to 175B parameters, dense models, outliers in 16 bits (arXiv 2208.07339)",
        "int4_group128": "negligible at 3 or 4 bits, dense GPT models of 175B (arXiv 2210.17323)",
    }
    """What a publication says of the quality of a format, by format. Others are empty: none is known here."""


ALTERNATIVES = Table(
    "table17_alternatives",
    (
        MODEL,
        GPU,
        integer("batch_size", "", "Sequences decoded together, B."),
        text(
            "approach",
            "all_resident, every_expert (all experts of a layer copied in each step), needed_experts (those that the "
            "router chose), streamed (all weights, as ZeRO-Inference), streamed_kv (the KV cache too, as FlexGen), "
            "expert_slots (LRU, on demand) or prophet (the same slots, prefetched).",
        ),
        text("format", "Format of all matrices."),
        number("resident_share", "", "Slots over E, of the last two; empty elsewhere."),
        gigabytes("expert_gb", "Routed experts on the GPU, room for copies of them included.", "expert_bytes"),
        gigabytes("freed_gb", "Experts of the baseline less those.", "freed_bytes"),
        gigabytes("weights_gb", "All weights on the GPU, room for copies included.", "weights_bytes"),
        gigabytes("host_gb", "Weights, and KV cache of the step, in host memory.", "host_bytes"),
        integer(
            "max_context", "tokens", "Longest context per sequence by the GPU's memory alone; 0 where nothing fits."
        ),
        integer("native_context", "tokens", "The same, at most the native context."),
        flag("baseline_fits", "Whether the baseline fits: else its time is hypothetical."),
        gigabytes(
            "moved_gb", "What a decode step copies from the host; empty where no hit rate is known.", "moved_bytes"
        ),
        number("step_ms", "ms", "Estimated time of a step with every expert resident, in this format."),
        number("hit_rate", "", "Share of a layer's needed experts in a slot, simulated; empty without slots."),
        number("slowdown", "", "Estimated time of a step over that of the baseline at 16 bits and this batch."),
        number("slowdown_low", "", "Low end of its interval, over the baseline's time and the speed of the link."),
        number("slowdown_high", "", "High end of that interval."),
        number("slowdown_bound", "", "The same if all these copies went on beside all computing."),
        integer(
            "hidden_batch",
            "",
            "Smallest power of two of sequences whose step takes as long as what streaming copies; empty: none.",
        ),
        text("quality", "Cost in quality as a publication states it; empty: none is cited."),
        number("reported_expert_gb", "GB", "Experts on the GPU as the report has them, on its row."),
        number("reported_low", "", "Slowdown as the report has it, low end."),
        number("reported_high", "", "High end of the same."),
    ),
    by_scenario=True,
)
FIGURE = Figure("alternatives", 7.0, 3.5)

STUDY = Study(
    id="alternatives",
    question="What do offloading, quantisation and Prophet cost in time, and what do they leave on the GPU?",
    settings=AlternativesSettings,
    tables=(ALTERNATIVES,),
    figures=(FIGURE,),
    reports=("000:776-778", "002:301-305"),
    minutes=0.4,
)
