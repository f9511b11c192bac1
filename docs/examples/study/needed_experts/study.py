"""What the example study declares of itself."""

from pydantic import Field

from prophet_moe.settings.fields import LARGEST_BATCH, StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import Table, integer, number, text


class NeededExpertsSettings(StudySettings):
    """The number of experts that a batch needs, by law."""

    batch_size: int = Field(default=16, gt=0, le=LARGEST_BATCH)
    """Sequences that decode together."""


NEEDED = Table(
    "needed_experts",
    (
        text("model", "Name of the model, that of its file in config/models/."),
        text("law", "Law for the distinct experts of a batch, as `routing.law` of a scenario names it."),
        integer("experts", "", "Routed experts of a layer, E."),
        integer("batch_size", "sequences", "Sequences that decode together, B."),
        number("needed", "experts", "Distinct experts that the batch needs in a layer, u(B)."),
    ),
)
FIGURE = Figure("needed_experts", 3.33, 2.8, table=NEEDED.name)

STUDY = Study(
    id="needed_experts",
    question="How many experts does a batch need by each law?",
    settings=NeededExpertsSettings,
    tables=(NEEDED,),
    figures=(FIGURE,),
)
