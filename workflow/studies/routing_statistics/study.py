"""The declaration of the study of routing traces."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import TRACE, Table, ends, integer, number, text


class RoutingStatisticsSettings(StudySettings):
    """The statistics of routing traces; they have no settings."""


STATISTICS = Table(
    "routing_statistics",
    (
        TRACE,
        text("statistic", "Name of the statistic (docs/routing.md, Statistics)."),
        integer("layer", "", "Number of the layer in the model; empty: the mean over MoE layers."),
        number("x", "", "Batch size, or capacity as a share of the experts; empty where the statistic has neither."),
        number("value", "", "Value of the statistic."),
        *ends("the value, over sequences (bootstrap)"),
        number(
            "control",
            "",
            "The value on the shuffled trace: each layer's choices permuted over all tokens; empty where there "
            "is none.",
        ),
        number("uniform", "", "What independent uniform choices would give; empty where it is not known."),
    ),
)
FIGURE = Figure("routing_statistics", 7.0, 2.6)

STUDY = Study(
    id="routing_statistics",
    question="Which experts do tokens choose, and how much do consecutive tokens, layers and batches share?",
    settings=RoutingStatisticsSettings,
    tables=(STATISTICS,),
    figures=(FIGURE,),
    minutes=0.5,
)
