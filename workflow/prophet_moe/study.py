"""Studies: the declaration in each folder of workflow/studies/, its README, and how the workflow finds both."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from prophet_moe.errors import UserError
from prophet_moe.settings.fields import StudySettings
from prophet_moe.tables import Table
from prophet_moe.validation import read_text

STUDIES = Path("workflow/studies")


@dataclass(frozen=True)
class Figure:
    """A figure: `name` is that of its files and of its notebook; its size is as printed, in inches."""

    name: str
    width_in: float
    height_in: float
    by_scenario: bool = False
    """Whether every scenario has one."""

    @property
    def path(self) -> str:
        """Path from the project's root without extension; {scenario_dir} is the folder of a scenario."""
        return f"figures/{'{scenario_dir}' if self.by_scenario else ''}{self.name}"


@dataclass(frozen=True)
class Study:
    """A question, and what answers it. `id` is the name of the folder."""

    id: str
    question: str
    """One sentence."""
    settings: type[StudySettings]
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    reports: tuple[str, ...] = ()
    """Lines of the reports that it informs, as docs/reports.md names them."""


def load_studies(folder: Path = STUDIES) -> dict[str, Study]:
    """Return every study by its id, in alphabetical order: STUDY of each `<folder>/<id>/study.py`."""
    names = sorted(path.parent.name for path in folder.glob("*/study.py"))
    return {name: import_module(f"studies.{name}.study").STUDY for name in names}


def captions(study: str, folder: Path = STUDIES) -> Mapping[str, str]:
    """Return the captions of a study's outputs by their paths: the paragraph below each `### <path>` of its README."""
    path = folder / study / "README.md"
    found = re.findall(r"^### (\S+)\n\n(.+?)(?=\n\n|\Z)", read_text(path), re.MULTILINE | re.DOTALL)
    return {output: " ".join(text.split()) for output, text in found}


def section(study: str, heading: str, folder: Path = STUDIES) -> str:
    """Return the text below a heading of a study's README, up to the next heading; none is a UserError."""
    path = folder / study / "README.md"
    found = re.search(rf"^#+ {re.escape(heading)}\n\n(.+?)(?=\n+#|\s*\Z)", read_text(path), re.MULTILINE | re.DOTALL)
    if not found:
        raise UserError(str(path), f"has no text below a heading {heading!r}", "Add that section.")
    return found[1]


def caption(study: Study, output: str) -> str:
    """Return the caption of one output of a study; a README without it is a UserError."""
    known = captions(study.id)
    if output not in known:
        where = str(STUDIES / study.id / "README.md")
        raise UserError(where, f"has no caption of {output}", f"Add a paragraph below a heading ### {output}.")
    return known[output]


def shown(wanted: Sequence[str], default: Sequence[str], available: Sequence[str]) -> list[str]:
    """Return the models that a figure draws where only those `available` are there, in order.

    Those `wanted`; where none of these is there, those of the `default` list; else as many of the first available ones.
    """
    for names in (wanted, default):
        if found := [name for name in names if name in available]:
            return found
    return list(available[: len(default)])
