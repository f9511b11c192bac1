"""The declaration of the study that holds predictions against what others measured."""

from prophet_moe.observed.schema import RESULT_COLUMNS
from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import Table, flag, integer, number, text


class ObservedSettings(StudySettings):
    """It has none: observations, engines and fits are files of resources/ and config/."""


ROWS = Table(
    "observed_rows",
    (
        *RESULT_COLUMNS,
        number("error", "", "Error in `error_unit`."),
        text("error_unit", "% of what was measured, or points of a hit rate."),
        flag("held_out", "Whether no constant of the prediction was fitted to this row."),
        text("source", "Where it was published."),
        text("notes", "What is inferred and what a reader should know."),
    ),
)
OBSERVED = Table(
    "table14_observed",
    (
        text("kind", "Kind of the observations: memory, times, hit_rates or routing."),
        text("quantity", "What was measured (docs/observations.md)."),
        text("engine", "Engine; empty: all engines."),
        text("gpu", "GPU as the source names it; empty: all GPUs."),
        integer("n", "", "Rows that can be predicted and compared."),
        integer("held_out", "", "Those of them to which no constant of the prediction was fitted."),
        text("error_unit", "Unit of the errors: % of what was measured, or points of a hit rate."),
        number("median_error", "", "Median of the error without its sign."),
        number("median_error_held_out", "", "The same of the rows held out; empty where there are none."),
        number("p90_error", "", "Its 0.9 quantile."),
        number("worst_error", "", "The largest one, with its sign."),
        text("worst_id", "Id of that row."),
        text("worst_notes", "What is said of that row besides, in words of resources/observations/."),
        text("goal", "Largest error that counts as right; empty: the quantity has no goal."),
        integer("within_goal", "", "Rows within the goal."),
        number("share_within_goal_pct", "%", "Those over n."),
    ),
)
FIGURE = Figure("observed", 7.0, 2.5, table=ROWS.name)

STUDY = Study(
    id="observed",
    question="How far are predictions from what others measured?",
    settings=ObservedSettings,
    tables=(OBSERVED, ROWS),
    figures=(FIGURE,),
    minutes=0.3,
)
