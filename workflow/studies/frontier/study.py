"""What the study of KV extension against slowdown declares of itself."""

from typing import Annotated

from pydantic import Field, model_validator

from prophet_moe.capacity.limits import CONTEXT_GAINED
from prophet_moe.settings.fields import (
    LARGEST_LAYERS,
    LARGEST_RATIO,
    MOST_SAMPLES,
    MOST_SEQUENCES,
    MOST_TOKENS,
    Names,
    Share,
    StudySettings,
    bounded_replay,
)
from prophet_moe.study import Figure, Study
from prophet_moe.tables import GPU, MODEL, Table, flag, integer, interval, number, text


class FrontierSettings(StudySettings):
    """The replay of every model with fewer and fewer experts on the GPU."""

    named_models = ("models",)

    models: Names = ["Switch-Large-128", "DeepSeek-MoE-16B", "Qwen1.5-MoE-A2.7B", "Switch-Base-128"]
    """Models that have a panel of their own."""
    traces: list[str] = ["small-12x128-top1", "small-6x8-top2"]
    """Recorded traces that are replayed for models of their own E and k; all other models are replayed on calibrated
    routing (resources/routing/). small-6x64-top8 lacks the locality of the models that it could stand for."""
    predictor: str = "gpt-oss-20b-decode"
    """Trace whose predictor's power to tell chosen experts from others is carried over to calibrated routing."""
    shares: list[Share] = Field(default=[0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.9375, 0.96875], min_length=1)
    """Shares of each layer's experts that are simulated, besides all of them; limits of slowdown are interpolated
    between them. A share of fewer than k experts or of all of them is left out."""
    samples: int = Field(default=4, gt=1, le=MOST_SAMPLES)
    """Samples of sequences that are replayed: intervals come from their spread."""
    sequences: int = Field(default=32, gt=0, le=MOST_SEQUENCES)
    """Sequences of each; larger batches take as many as they are."""
    largest_batch: int = Field(default=64, gt=0, le=1024)
    """The largest of `batch_sizes` that is replayed: time and memory of a replay grow with the batch."""
    tokens: int = Field(default=128, gt=0, le=MOST_TOKENS)
    """Decoded tokens of each sequence."""
    layers: int = Field(default=6, gt=0, le=LARGEST_LAYERS)
    """MoE layers of calibrated routing; a layer takes as long whatever their number."""
    slowdown_limits: list[Annotated[float, Field(ge=1, le=LARGEST_RATIO)]] = Field(
        default=[1.05, 1.2, 2.0], min_length=1
    )
    """Limits of slowdown, at least 1, for which the context gained is stated."""

    @model_validator(mode="after")
    def _samples_are_bounded(self) -> "FrontierSettings":
        bounded_replay(max(self.sequences, self.largest_batch), self.tokens, ("largest_batch",))
        return self


FRONTIER = Table(
    "frontier",
    (
        MODEL,
        GPU,
        integer("batch_size", "", "Sequences decoded together, B."),
        text("strategy", "on_demand (predicts nothing), prophet, or perfect_prefetch (the oracle)."),
        integer(
            "resident_experts", "experts", "Slots of each MoE layer of the decoder; with all E nothing is replayed."
        ),
        text("trace", "Recorded trace or calibrated routing that was replayed for the model."),
        number("resident_share", "", "Resident experts over all of a layer, a share of E."),
        number("slowdown", "", "Time of a decode step over that with all experts resident, mean over samples."),
        *interval("slowdown", "", "over sequences"),
        number("hit_rate", "", "Share of the experts of a layer-step that are in a slot."),
        flag("waves", "Whether a layer-step needed more experts than there are slots."),
        integer("max_context", "tokens", "Longest context per sequence with so many slots; 0: none fits."),
        integer(
            "baseline_max_context", "tokens", "Longest context per sequence with all experts resident; 0: none fits."
        ),
        number(
            "kv_extension_factor", "", "max_context over baseline_max_context; empty where the baseline does not fit."
        ),
        number("saved_gb", "GB", "Bytes of experts that are not on the GPU."),
    ),
)
FIGURE = Figure("frontier", 7.0, 3.0)

STUDY = Study(
    id="frontier",
    question="How much longer may a context be, if a decode step may take at most so many times as long?",
    settings=FrontierSettings,
    tables=(FRONTIER, CONTEXT_GAINED),
    figures=(FIGURE,),
    reports=("000:778",),
    minutes=1.5,
)
