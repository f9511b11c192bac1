"""The declaration of the study of prefill."""

from pydantic import Field

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import Table


class PrefillSettings(StudySettings):
    """The prefill of the longest contexts that fit in memory."""

    compute_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the GPU's peak that the matrix products of a prompt reach. It is an assumption, because no prefill was
    measured. PaLM 540B reached 76 % at best (arXiv 2211.05102, table 2)."""


PREFILL = Table("prefill", ())

STUDY = Study(
    id="prefill",
    question="How much longer does it take to prefill a prompt whose experts are streamed from host memory?",
    settings=PrefillSettings,
    tables=(PREFILL,),
)
