"""The declaration of the study of the reports' tables, cell by cell."""

from pydantic import Field

from prophet_moe.settings.fields import Share, StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import Table, flag, number, text


class ReportTablesSettings(StudySettings):
    """Constants that report 003 leaves unsaid, recovered from its tables."""

    activation_share: Share = 0.05
    """Activations of Switch models over all their weights: what gives the 19.75 GB of table 2 of report 003."""
    qwen_activation_share: Share = 0.2
    """Activations of Qwen1.5-MoE-A2.7B over its active parameters, per sequence, at one byte a parameter (003:154)."""
    largest_differences: int = Field(default=10, ge=1, le=1000)
    """Cells that the notebook lists, those farthest from the report."""


REPORT_TABLES = Table(
    "table21_report_tables",
    (
        text("report_table", "Document, and name or number of its table; `text` outside tables."),
        text("row", "Row of the report's table."),
        text("column", "Column of the report's table."),
        text("unit", "Unit of the values; empty for factors and counts. 1 is yes, 0 is no."),
        text("line", "Document and line of the report (docs/reports.md)."),
        number("claimed", "", "What the report prints."),
        number("under_own_constants", "", "What the report's own constants give; empty where it has none."),
        flag("reproduced", "Whether that is the printed number, to its last digit; empty without such a value."),
        number("corrected", "", "The value of the default scenario; empty where there is none, see why_empty."),
        number("difference", "", "Corrected minus claimed."),
        number("ratio", "", "Corrected over claimed; empty where the report prints 0."),
        text(
            "rests_on",
            "What the corrected value rests on: counted (published architecture), assumed (that, and an assumed or "
            "measured reserve) or estimated (that, and the routing of published models).",
        ),
        text("why_empty", "Why there is no corrected value; empty where there is one."),
    ),
)
FIGURE = Figure("report_tables", 7.0, 4.6, table=REPORT_TABLES.name)

STUDY = Study(
    id="report_tables",
    question="What do the tables of the reports say, what do their own constants give, and what is right?",
    settings=ReportTablesSettings,
    tables=(REPORT_TABLES,),
    figures=(FIGURE,),
    minutes=0.2,
)
