"""The declaration of the study that validates predicted memory."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import Table


class MemoryValidationSettings(StudySettings):
    """The validation of predicted memory; it has no settings."""


VALIDATION = Table("memory_validation", ())

STUDY = Study(
    id="memory_validation",
    question="Does the memory model predict what was measured on GPUs?",
    settings=MemoryValidationSettings,
    tables=(VALIDATION,),
)
