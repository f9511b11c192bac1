"""The declaration of the study of the report's serving scenarios: a chatbot, batch inference, high throughput."""

from typing import Annotated

from pydantic import Field, model_validator

from prophet_moe.settings.fields import LARGEST_CONTEXT, LARGEST_RATIO, Batch, StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import GPU, MODEL, Table, integer, number, text
from prophet_moe.validation import StrictModel, inconsistent

Tokens = Annotated[int, Field(gt=0, le=LARGEST_CONTEXT)]


class UseCase(StrictModel):
    """A serving scenario of the report, and what it prints of it."""

    model: str
    """Model, a file of config/models/."""
    gpu: str
    """GPU, a key of config/gpus.yaml. The report names none: the one whose printed extension it is nearest to."""
    batch_sizes: Annotated[list[Batch], Field(min_length=2, max_length=2)]
    """Least and largest batch of the scenario."""
    printed_batch: Batch
    """Batch that the printed numbers are of."""
    printed_baseline: Tokens
    """Context of the baseline, tokens."""
    printed_prophet: Tokens
    """Context with Prophet, tokens."""
    printed_extension: Annotated[float, Field(ge=1, le=LARGEST_RATIO)]
    """KV extension."""

    @model_validator(mode="after")
    def _batches_agree(self) -> "UseCase":
        least, most = self.batch_sizes
        if not least <= self.printed_batch <= most:
            problem = f"got {self.printed_batch}, expected {least} to {most}, the batch_sizes"
            raise inconsistent(("printed_batch",), problem, [("batch_sizes",)])
        return self


class UseCasesSettings(StudySettings):
    """The serving scenarios of the report."""

    cases: dict[str, UseCase] = {
        "A chatbot": UseCase(
            model="Qwen1.5-MoE-A2.7B",
            gpu="V100-32GB",
            batch_sizes=[1, 4],
            printed_batch=1,
            printed_baseline=67_000,
            printed_prophet=268_000,
            printed_extension=4.0,
        ),
        "B batch inference": UseCase(
            model="DeepSeek-MoE-16B",
            gpu="A100-80GB",
            batch_sizes=[16, 32],
            printed_batch=16,
            printed_baseline=13_000,
            printed_prophet=19_500,
            printed_extension=1.5,
        ),
        "C high throughput": UseCase(
            model="Switch-Base-128",
            gpu="A100-80GB",
            batch_sizes=[64, 64],
            printed_batch=64,
            printed_baseline=32_000,
            printed_prophet=35_000,
            printed_extension=1.1,
        ),
    }
    """Scenarios by name, in the report's order (000:811-814, 000:816-819, 000:821-824)."""


USE_CASES = Table(
    "table19_use_cases",
    (
        text("case", "Serving scenario of the report."),
        MODEL,
        GPU,
        integer("batch_size", "", "Sequences decoded together, B: those of the grid within the scenario's range."),
        integer("native_context", "tokens", "Native context of the model."),
        integer("printed_baseline_context", "tokens", "Context of the baseline that the report prints; else empty."),
        integer("printed_prophet_context", "tokens", "Context with Prophet that the report prints; else empty."),
        number("printed_extension", "", "KV extension that the report prints; else empty."),
        integer("own_baseline_context", "tokens", "Baseline by the report's own constants: scenario reported."),
        integer("own_prophet_context", "tokens", "Prophet by the report's own constants."),
        number("own_extension", "", "KV extension by the report's own constants; 0: neither fits."),
        integer("baseline_max_context", "tokens", "Longest context with every expert resident, memory limit."),
        integer("prophet_max_context", "tokens", "Longest context with the resident set of the scenario's rule."),
        number("kv_extension_factor", "", "Prophet's over the baseline's; empty where the baseline does not fit."),
        number("kv_extension_native", "", "The same with both contexts at most the native one."),
        integer("resident_experts", "experts", "Slots per layer by the scenario's rule."),
        integer("priced_slots", "experts", "Fewest simulated slots per layer that are no fewer: what has a price."),
        number("priced_extension", "", "KV extension with these slots."),
        number("slowdown", "", "Simulated slowdown of a decode step with these slots and Prophet's prediction."),
        number("slowdown_low", "", "Lower end of its 95 % interval over sequences."),
        number("slowdown_high", "", "Upper end of that interval."),
        number("claimed_slowdown", "", "Slowdown that the report claims, decode_step.claimed_slowdown."),
        number("extension_within_claim", "", "Most KV extension whose simulated slowdown is within that."),
        text("routing", "Recorded trace or calibrated routing that was replayed; empty: none was."),
    ),
)

STUDY = Study(
    id="use_cases",
    question="What do a chatbot, batch inference and high throughput gain, and at what price?",
    settings=UseCasesSettings,
    tables=(USE_CASES,),
    reports=("000:811-814", "000:816-819", "000:821-824"),
    minutes=1.6,
)
