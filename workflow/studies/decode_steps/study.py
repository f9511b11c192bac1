"""What the study of decode steps declares of itself."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import Table


class DecodeStepsSettings(StudySettings):
    """The times of decode steps; they have no settings of their own."""


DECODE_STEPS = Table("table7_decode_steps", ())

STUDY = Study(
    id="decode_steps",
    question="How long does a decode step take with every expert resident, and with every expert to be fetched?",
    settings=DecodeStepsSettings,
    tables=(DECODE_STEPS,),
    reports=("000:778",),
    minutes=0.6,
)
