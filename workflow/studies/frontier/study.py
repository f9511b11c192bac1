"""The declaration of the study of KV extension against slowdown."""

from typing import Annotated

from pydantic import Field, model_validator

from prophet_moe.capacity.limits import CONTEXT_GAINED, TIMES
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
    """The simulation of every model with fewer and fewer resident experts."""

    named_models = ("models",)

    models: Names = ["Switch-Large-128", "DeepSeek-MoE-16B", "Qwen1.5-MoE-A2.7B", "Switch-Base-128"]
    """Models that have a panel of their own in the figure."""
    traces: list[str] = ["small-12x128-top1", "small-6x8-top2"]
    """Recorded traces that are proxies for models of the same E and k. All other models are simulated on calibrated
    routing (resources/routing/). small-6x64-top8 is not a proxy, because it lacks the locality of these models."""
    predictor: str = "gpt-oss-20b-decode"
    """Trace with a trained predictor. How well its scores separate chosen experts from others is measured, and
    predictions on calibrated routing separate them as well."""
    shares: list[Share] = Field(default=[0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.9375, 0.96875], min_length=1)
    """Shares of each layer's experts that are resident in the simulations. All experts resident is always simulated.
    Slowdowns between these shares are interpolated. A share of fewer than k experts, or of all, is left out."""
    samples: int = Field(default=4, gt=1, le=MOST_SAMPLES)
    """Number of samples of sequences. Intervals are computed from their spread."""
    sequences: int = Field(default=32, gt=0, le=MOST_SEQUENCES)
    """Sequences of one sample. A batch larger than this uses as many sequences as the batch."""
    largest_batch: int = Field(default=64, gt=0, le=1024)
    """Largest of `batch_sizes` that is simulated. Time and memory of a simulation grow with the batch."""
    tokens: int = Field(default=128, gt=0, le=MOST_TOKENS)
    """Decoded tokens of each sequence."""
    layers: int = Field(default=6, gt=0, le=LARGEST_LAYERS)
    """MoE layers of calibrated routing. The time of one layer does not depend on their number."""
    slowdown_limits: list[Annotated[float, Field(ge=1, le=LARGEST_RATIO)]] = Field(
        default=[1.05, 1.2, 2.0], min_length=1
    )
    """Limits of slowdown, at least 1, for which table 11 gives the context gained."""

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
        number("slowdown_bound", "", "The same with the times of the datasheet, of the first sample."),
        TIMES,
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
    question="How much longer can a context be within a limit of the slowdown of a decode step?",
    settings=FrontierSettings,
    tables=(FRONTIER, CONTEXT_GAINED),
    figures=(FIGURE,),
    reports=("000:778",),
    minutes=1.5,
)
