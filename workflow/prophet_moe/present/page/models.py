"""Pages of models, `results/model_pages.json`: sentences, tables and figures by section, as their study writes them."""

from pathlib import Path

from pydantic import RootModel

from prophet_moe.validation import REBUILD, StrictModel, read_json, validate


class ModelTable(StrictModel):
    """A small table of a section, every cell as it is printed."""

    columns: list[str]
    """Names of the columns, units included."""
    rows: list[list[str | int | float | None]]
    """Cells, a list a row."""


class ModelSection(StrictModel):
    """A part of a model's page."""

    heading: str
    """Words of the heading."""
    text: list[str]
    """Sentences."""
    table: ModelTable | None = None
    """A table below the sentences."""
    figure: str | None = None
    """Path of a PNG from the project's root."""


class ModelPage(StrictModel):
    """All that the page says of one model."""

    model: str
    """The model, a file of config/models/."""
    title: str
    """Words of the heading."""
    summary: list[str]
    """Sentences that stand above the sections."""
    sections: list[ModelSection]
    """Parts, in order."""


class ModelPages(RootModel[list[ModelPage]]):
    """The whole file: a list of pages."""


def read_model_pages(path: Path) -> list[ModelPage]:
    """Return the pages of all models; another form is a UserError."""
    return validate(ModelPages, read_json(path), str(path), REBUILD).root
