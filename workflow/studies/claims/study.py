"""The declaration of the study of the claims."""

from prophet_moe.settings.fields import Share, StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import Table, text


class ClaimsSettings(StudySettings):
    """How the claims of the reports are judged."""

    estimated_tolerance: Share = 0.01
    """Relative difference up to which a value that is estimated, assumed or simulated agrees with a claim. Counted
    values agree to the printed precision."""


CLAIMS = Table(
    "claims",
    (
        text("id", "Identity of the claim, a key of config/claims.yaml."),
        text("family", "What the claim is about, in a few words."),
        text("document", "Report that states it first, 000 to 004."),
        text("lines", "Documents and lines of the reports (docs/reports.md)."),
        text("says", "The claim in one sentence of our own."),
        text("unit", "Unit of the values; empty for factors, counts and words."),
        text("claimed", "What is claimed, as printed."),
        text("reported", "What the report's own constants and formulas give."),
        text("calibrated", "What the default scenario gives."),
        text("observed", "What was recorded or measured, by us or by others."),
        text("observed_on", "On what it was recorded or measured."),
        text("tolerance", "By how much a value may differ from the claim: half a unit of the last digit, or relative."),
        text(
            "verdict",
            "reproduced, corrected, reproduced-by-fit, contradicted, self-contradictory, definition or not-evaluable "
            "(docs/claims.md).",
        ),
        text("reason", "What the verdict follows from: the value that decided, the correction, or what is missing."),
        text("rests_on", "What the calibrated value rests on: counted, assumed, estimated, simulated or arithmetic."),
        text(
            "evidence",
            "Where the constants behind the reported value come from: law (stated), arithmetic (of printed numbers), "
            "fitted to the claim, or forced so that it comes out.",
        ),
        text("model", "Models that it is about, separated by commas; empty where it is about none."),
        text("gpu", "The GPU that it is about."),
        text("batch", "The batch size, or sizes, that it is about."),
        text("read_from", "Tables that its values are read from."),
    ),
    on_top=True,
)
FIGURE = Figure("claims", 7.0, 3.4, table=CLAIMS.name)

STUDY = Study(
    id="claims",
    question="Which of the reports' claims hold?",
    settings=ClaimsSettings,
    tables=(CLAIMS,),
    figures=(FIGURE,),
    minutes=0.2,
)
