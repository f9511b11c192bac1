"""The declaration of the study of laws for u(B)."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import Table


class RoutingLawSettings(StudySettings):
    """The laws for the distinct experts of a batch, u(B)."""

    reported_exponents: dict[str, float] = {
        "Switch-Base-128": 0.934,
        "Qwen1.5-MoE-A2.7B": 0.928,
        "DeepSeek-V3-671B": 0.935,
        "Mixtral-8x7B": 0.931,
    }
    """Exponents of u(B) = k B^a by model that the report states as fitted (000:871-874)."""


FITS = Table("routing_law_fits", ())
RESIDUALS = Table("routing_law_residuals", ())
TRANSFER = Table("routing_law_transfer", ())
VARIATION = Table("routing_variation", ())
EXPONENTS = Table("table5_routing_exponents", ())
FIGURE = Figure("routing_law", 7.0, 2.6)

STUDY = Study(
    id="routing_law",
    question="How many distinct experts does a batch need, and which law predicts it for a model without a trace?",
    settings=RoutingLawSettings,
    tables=(FITS, RESIDUALS, TRANSFER, VARIATION, EXPONENTS),
    figures=(FIGURE,),
    reports=("000:73", "000:871-874"),
)
