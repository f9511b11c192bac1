"""The declaration of the study of prefill."""

from pydantic import Field

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import GPU, MODEL, Table, integer, number, text


class PrefillSettings(StudySettings):
    """The prefill of the longest contexts that fit in memory."""

    compute_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the GPU's peak that the matrix products of a prompt reach. It is an assumption, because no prefill was
    measured. PaLM 540B reached 76 % at best (arXiv 2211.05102, table 2)."""


PREFILL = Table(
    "prefill",
    (
        MODEL,
        GPU,
        integer("batch_size", "", "Sequences whose prompts are prefilled together, B."),
        text(
            "limit",
            "Which context is prefilled: prophet (the longest that Prophet's memory allows), prophet_native (the same "
            "within the native context) or baseline (the longest of the baseline).",
        ),
        integer("context", "tokens", "That context, per sequence."),
        integer("chunk_tokens", "tokens", "Tokens of a chunk, into which the prompts of the batch are packed."),
        integer("chunks", "", "Chunks of the batch."),
        number("resident_experts", "experts", "Experts per MoE layer that Prophet keeps, as in the record."),
        number("streamed_gb_per_chunk", "GB", "Bytes of experts that a full chunk copies from host memory."),
        number("streaming_s", "s", "Time that the link is busy, at the bandwidth that copies reach."),
        number(
            "all_resident_s",
            "s",
            "Time with every expert resident; hypothetical where the baseline cannot hold that context.",
        ),
        number("prophet_s", "s", "Least time with experts streamed: the larger of streaming_s and all_resident_s."),
        number("slowdown", "", "prophet_s over all_resident_s, a ratio of times."),
        number("slowdown_bound", "", "The same where copies reach the datasheet's bandwidth."),
        text(
            "source",
            "What times rest on: measured (a profile of the GPU) or datasheet, with the shares of the peak and of the "
            "link that products and copies reach.",
        ),
    ),
)

STUDY = Study(
    id="prefill",
    question="How much longer does it take to prefill a prompt whose experts are streamed from host memory?",
    settings=PrefillSettings,
    tables=(PREFILL,),
    minutes=0.6,
)
