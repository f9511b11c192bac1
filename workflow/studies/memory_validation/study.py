"""The declaration of the study that validates predicted memory."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import GPU, MODEL, Table, number, text


class MemoryValidationSettings(StudySettings):
    """The validation of predicted memory; it has no settings."""


VALIDATION = Table(
    "memory_validation",
    (
        MODEL,
        text("measurement", "Quantity that was measured and is predicted, in bytes, or tokens for max_context_tokens."),
        text("phase", "Phase of the measurement: prefill or decode; empty where it has none."),
        text("method", "Method of the measurement, as `collect memory` names it."),
        number("batch", "", "Sequences of the batch; empty where the quantity does not depend on it."),
        number("tokens", "tokens", "Tokens of each sequence; empty where the quantity does not depend on them."),
        number("predicted", "", "What the capacity model predicts, in the unit of the measurement."),
        number("measured", "", "What was measured on the GPU, in the same unit."),
        number("error_pct", "%", "Error of the prediction, 100 (predicted / measured - 1); 0 where both are 0."),
        GPU,
    ),
)

STUDY = Study(
    id="memory_validation",
    question="Does the memory model predict what was measured on GPUs?",
    settings=MemoryValidationSettings,
    tables=(VALIDATION,),
)
