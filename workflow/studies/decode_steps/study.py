"""The declaration of the study of decode steps."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import GPU, MODEL, Table, flag, integer, number, text


class DecodeStepsSettings(StudySettings):
    """The times of decode steps; they have no settings of their own."""


DECODE_STEPS = Table(
    "table7_decode_steps",
    (
        MODEL,
        GPU,
        integer("batch_size", "", "Sequences decoded together, B."),
        integer(
            "context", "tokens", "Context of every sequence: decode_step.context_tokens, or the native one if shorter."
        ),
        flag(
            "baseline_fits",
            "Whether the GPU holds all experts and that context: where it does not, times with all experts resident "
            "are hypothetical; empty for a model that the scenario does not cover.",
        ),
        number("unique_experts", "", "Distinct experts per layer that the batch activates, u(B), not rounded."),
        number("expert_mb", "MB", "Bytes of one routed expert, MB of 10^6 bytes."),
        number("fetch_ms_per_expert", "ms", "Time to copy one expert from host memory."),
        number("all_resident_ms", "ms", "Time of a decode step with all experts on the GPU."),
        number(
            "cold_on_demand_ms",
            "ms",
            "Time of a step that copies every expert of the batch when the router asks for it.",
        ),
        number(
            "cold_prefetch_bound_ms",
            "ms",
            "Least time of a step that copies every expert of the batch, whatever prefetches them: all compute, or the "
            "link always busy.",
        ),
        number("cold_on_demand_slowdown", "", "cold_on_demand_ms over all_resident_ms, a ratio of times."),
        number("cold_prefetch_slowdown_bound", "", "cold_prefetch_bound_ms over all_resident_ms, a ratio of times."),
        number(
            "hit_rate_needed_on_demand",
            "",
            "Hit rate from which a step on demand keeps within the slowdown that the report claims.",
        ),
        number(
            "hit_rate_needed_prefetch",
            "",
            "Hit rate below which no prefetch keeps a step within the slowdown that the report claims.",
        ),
        text("source", "What times rest on: measured (a profile of the GPU) or datasheet, then they are lower bounds."),
        text("experts_basis", "What the time of experts rests on: a measurement of that shape, or the datasheet."),
        text("attention_basis", "What the time of attention rests on, likewise."),
        text("weights_basis", "What the time of all other weights rests on, likewise."),
        text("transfers_basis", "What the time of copies rests on, likewise."),
        number(
            "all_resident_estimate_ms",
            "ms",
            "Estimated time of a step with all experts on the GPU; all_resident_ms bounds it.",
        ),
        number(
            "all_resident_estimate_low_ms", "ms", "Low end of its interval, which nine of ten servers of others are in."
        ),
        number("all_resident_estimate_high_ms", "ms", "High end of that interval."),
        number(
            "cold_on_demand_estimate_ms",
            "ms",
            "Estimated time of a step that copies every expert of the batch on demand, by decode_step.link.",
        ),
        number(
            "cold_on_demand_estimated_slowdown",
            "",
            "cold_on_demand_estimate_ms over all_resident_estimate_ms, a ratio of times.",
        ),
        number(
            "hit_rate_needed_estimated",
            "",
            "Hit rate from which a step on demand keeps within the slowdown that the report claims, by estimates.",
        ),
        text(
            "estimate_basis",
            "What estimates rest on: operators that others measured on that GPU, or a share of its bandwidth.",
        ),
    ),
)

STUDY = Study(
    id="decode_steps",
    question="How long does a decode step take if every expert is resident, and if every expert must be fetched?",
    settings=DecodeStepsSettings,
    tables=(DECODE_STEPS,),
    reports=("000:778",),
    minutes=0.6,
)
