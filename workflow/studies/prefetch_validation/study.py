"""What the validation of simulated prefetching declares of itself."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import Table


class PrefetchValidationSettings(StudySettings):
    """The validation of simulated prefetching; its plan is config/measurements/prefetch.yaml."""


VALIDATION = Table("prefetch_validation", ())
SUMMARY = Table("table12_simulated_and_measured", ())

STUDY = Study(
    id="prefetch_validation",
    question="Does the simulated decode loop with prefetches take as long as GPUs were measured to take?",
    settings=PrefetchValidationSettings,
    tables=(VALIDATION, SUMMARY),
    minutes=0.2,
)
