"""Studies: the declaration in each folder of workflow/studies/, its README, and how the workflow finds both."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from os.path import relpath
from pathlib import Path

from prophet_moe.errors import UserError
from prophet_moe.settings.fields import StudySettings
from prophet_moe.tables import Table

STUDIES = Path(find_spec("studies").origin).parent
"""The folder of the studies."""
PARTS = ("study.py", "study.smk", "README.md", "__init__.py")
"""Files that every study has: what it declares, its rules, its question with captions and limits, and what makes it a
package, without which no edit of its modules would be noticed."""


@dataclass(frozen=True)
class Figure:
    """A figure: `name` is that of its files and of its notebook; its size is as printed, in inches."""

    name: str
    width_in: float
    height_in: float
    by_scenario: bool = False
    """Whether every scenario has one."""
    table: str = ""
    """Name of the table that it shows, where the study's rules say nothing else of it."""

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
    extended: tuple[Table, ...] = ()
    """Tables that explain those of the same name, without a caption of their own."""
    figures: tuple[Figure, ...] = ()
    reports: tuple[str, ...] = ()
    """Lines of the reports that it informs, as docs/reports.md names them."""
    minutes: float | None = None
    """Minutes that a cold build of its outputs alone takes on two cores; None where nobody has timed it."""

    @property
    def declared(self) -> tuple[Table, ...]:
        """All tables that it writes."""
        return (*self.tables, *self.extended)


def load_studies(folder: Path = STUDIES) -> dict[str, Study]:
    """Return every study by its id, in alphabetical order: STUDY of each `<folder>/<id>/study.py`.

    A study that lacks one of its PARTS or has another id than its folder, and an output that two studies declare, are
    UserErrors.
    """
    names = sorted({path.parent.name for part in PARTS for path in folder.glob(f"*/{part}")})
    for path in (folder / name / part for name in names for part in PARTS):
        if not path.exists():
            advice = f"A study has {', '.join(PARTS)}: add it, or move the folder away."
            raise UserError(relpath(path), "no such file", advice)
    studies = {name: import_module(f"studies.{name}.study").STUDY for name in names}
    for name, study in studies.items():
        if study.id != name:
            where = relpath(folder / name / "study.py")
            raise UserError(where, f"id: got {study.id!r}, expected the name of the folder, {name!r}", "Correct it.")
    _declared_once(studies, folder)
    return studies


def _declared_once(studies: Mapping[str, Study], folder: Path) -> None:
    owners: dict[str, str] = {}
    for name, study in studies.items():
        for path in (output.path for output in (*study.tables, *study.figures)):
            if path in owners:
                problem = f"declares {path}, which study {owners[path]} declares too"
                raise UserError(relpath(folder / name / "study.py"), problem, "Choose another name.")
            owners[path] = name


def check_drawn(studies: Mapping[str, Study], targets: Collection[str], drawn: Collection[str]) -> None:
    """Refuse a figure among the `targets` of a build that has no entry in `drawn`, or no notebook."""
    for study in studies.values():
        for figure in study.figures:
            notebook = Path("notebooks") / f"{figure.name}.ipynb"
            if f"{figure.path.format(scenario_dir='')}.png" not in targets:
                continue
            if figure.name not in drawn and not figure.table:
                where, problem = STUDIES / study.id / "study.smk", f"does not say what figure {figure.name} shows"
                raise UserError(
                    relpath(where),
                    problem,
                    f'Add DRAWN["{figure.name}"] = Drawing(...) to it, or name its table in study.py.',
                )
            if not notebook.exists():
                raise UserError(str(notebook), "no such file", f"Add it: it draws a figure of study {study.id}.")


def shown(wanted: Sequence[str], default: Sequence[str], available: Sequence[str]) -> list[str]:
    """Return the models that a figure draws where only those `available` are there, in order.

    Those `wanted`; where none of these is there, those of the `default` list; else as many of the first available ones.
    """
    for names in (wanted, default):
        if found := [name for name in names if name in available]:
            return found
    return list(available[: len(default)])
