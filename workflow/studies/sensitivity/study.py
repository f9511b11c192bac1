"""The declaration of the study of sensitivity."""

from typing import Annotated

from pydantic import Field, model_validator

from prophet_moe.precision import KvFormat, WeightFormat
from prophet_moe.settings.fields import LARGEST_CONTEXT, LARGEST_MIB, Names, Share, StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import Table, number, text
from prophet_moe.validation import inconsistent


class SensitivitySettings(StudySettings):
    """The inputs that are varied, and over what; everything else is the default scenario's."""

    named_models = ("models",)

    models: Names = [
        "Switch-Base-128",
        "OLMoE-1B-7B",
        "Qwen1.5-MoE-A2.7B",
        "DeepSeek-MoE-16B",
        "Switch-Large-128",
        "Mixtral-8x7B",
    ]
    """Models whose results are varied: those that fit on one GPU of the grid in some format."""
    hit_rate: Annotated[list[Share], Field(min_length=2)] = [0.994, 0.95, 0.90]
    """Shares of the distinct experts of a layer-step that are resident (000:788), the claimed one first."""
    exponent: Annotated[list[Share], Field(min_length=1)] = [0.932, 0.9, 0.85]
    """Exponents of the report's law (000:789), which take the place of the scenario's law."""
    activation_share: Annotated[list[Share], Field(min_length=3, max_length=3)] = [0.15, 0.2, 0.25]
    """Activations over active parameters (000:790), the report's own second; activations of the scenario are multiplied
    by their ratio to it."""
    runtime_reserve_mib: Annotated[
        list[Annotated[float, Field(ge=0, le=LARGEST_MIB)]], Field(min_length=2, max_length=2)
    ] = [
        0,
        3072,
    ]
    """Ends of the runtime reserve, MiB."""
    usable_memory_share: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.9, 1.0]
    """Ends of the share of the device memory that an engine may use."""
    prefill_chunk_tokens: Annotated[list[Annotated[int, Field(gt=0, le=LARGEST_CONTEXT)]], Field(min_length=2)] = [
        512,
        2048,
        8192,
    ]
    """Tokens of one prefill chunk."""
    weight_formats: Annotated[list[WeightFormat], Field(min_length=1)] = ["bf16", "int8", "int4_group128"]
    """Formats of all weights."""
    kv_formats: Annotated[list[KvFormat], Field(min_length=1)] = ["bf16", "fp8"]
    """Formats of the KV cache."""
    base_samples: Annotated[int, Field(ge=16, le=2**20)] = 16384
    """Base samples N of each model, a power of two: N (inputs + 2) configurations are evaluated for it."""
    resamples: Annotated[int, Field(ge=2, le=10_000)] = 20
    """Bootstrap resamples behind the interval of a model's shares."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 1
    """Seed of the samples."""
    map_hit_rates: Annotated[list[Share], Field(min_length=2)] = [0.999, 0.994, 0.98, 0.95, 0.9, 0.8]
    """Hit rates of the map of slowdowns."""

    @model_validator(mode="after")
    def _samples_are_a_power_of_two(self) -> "SensitivitySettings":
        if self.base_samples & (self.base_samples - 1):
            problem = (
                f"got {self.base_samples}, expected a power of two, without which Sobol's samples are not balanced"
            )
            raise inconsistent(("base_samples",), problem)
        return self


SENSITIVITY = Table(
    "table22_sensitivity",
    (
        text("analysis", "one_at_a_time, two_at_a_time, first_order or total_order (shares of the variance by Sobol)."),
        text("outcome", "gained_share (of Prophet's context, 1 - baseline / Prophet) or slowdown (of a decode step)."),
        text("model", "Model, or `all`: the mean over models, of slowdowns the geometric one."),
        text("input", "The input that is changed, or whose share it is; `none`: all as at the reference."),
        text("level", "What it is changed to; empty for shares."),
        text("other_input", "The second input of a two-way map."),
        text("other_level", "What that is changed to."),
        number("value", "", "The outcome, or the share of its variance (of slowdowns, that of the logarithm)."),
        number("low", "", "Lower end: of a model's share, its 95 % bootstrap interval; of `all`, the least model."),
        number("high", "", "Upper end: of a model's share, its 95 % bootstrap interval; of `all`, the largest model."),
    ),
)
FIGURE = Figure("sensitivity", 7.0, 3.9, table=SENSITIVITY.name)
MAPS = Figure("sensitivity_maps", 7.0, 2.75, table=SENSITIVITY.name)

STUDY = Study(
    id="sensitivity",
    question="Which assumptions do memory and time depend on?",
    settings=SensitivitySettings,
    tables=(SENSITIVITY,),
    figures=(FIGURE, MAPS),
    minutes=0.3,
)
