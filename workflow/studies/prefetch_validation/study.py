"""The declaration of the study that validates simulated prefetching."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import Table


class PrefetchValidationSettings(StudySettings):
    """The validation of simulated prefetching; its plan is config/measurements/prefetch.yaml."""


VALIDATION = Table("prefetch_validation", ())
SUMMARY = Table("table12_simulated_and_measured", ())

STUDY = Study(
    id="prefetch_validation",
    question="Does a simulated decode loop with prefetching take as long as on a measured GPU?",
    settings=PrefetchValidationSettings,
    tables=(VALIDATION, SUMMARY),
)
