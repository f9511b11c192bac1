"""The declaration of the study of routing traces."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import Table


class RoutingStatisticsSettings(StudySettings):
    """The statistics of routing traces; they have no settings."""


STATISTICS = Table("routing_statistics", ())
FIGURE = Figure("routing_statistics", 7.0, 2.6)

STUDY = Study(
    id="routing_statistics",
    question="Which experts do tokens choose, and how much do consecutive tokens, layers and batches share?",
    settings=RoutingStatisticsSettings,
    tables=(STATISTICS,),
    figures=(FIGURE,),
)
