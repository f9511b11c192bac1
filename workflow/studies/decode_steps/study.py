"""The declaration of the study of decode steps."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import Table


class DecodeStepsSettings(StudySettings):
    """The times of decode steps; they have no settings of their own."""


DECODE_STEPS = Table("table7_decode_steps", ())

STUDY = Study(
    id="decode_steps",
    question="How long does a decode step take if every expert is resident, and if every expert must be fetched?",
    settings=DecodeStepsSettings,
    tables=(DECODE_STEPS,),
    reports=("000:778",),
)
