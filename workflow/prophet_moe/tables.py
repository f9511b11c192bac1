"""Tables of the project, each declared once as its columns: name, unit, meaning and tolerance.

The writer, the typed reader, docs/data.md and the check of another machine's tables are made from the declaration.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prophet_moe.errors import UserError
from prophet_moe.files import write_csv
from prophet_moe.units import GB
from prophet_moe.validation import REBUILD, read_csv

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-5
"""Largest relative difference of a number on another machine: one unit of the sixth digit."""
LARGEST_INTEGER = 2**53
"""The largest whole number that is read: larger ones are not exact on their way through a float."""
DTYPES = {"text": "str", "boolean": "boolean", "integer": "Int64", "number": "float64"}
"""Types in memory by kind of column: an empty boolean or integer is missing."""
PLACEHOLDER = re.compile(r"<\w+>")
"""What stands in the name of a repeated column for a value that settings give: `kv_extension_at_<limit>x`."""


@dataclass(frozen=True)
class Column:
    """A column of a table. `source` is the column of the grid that it is taken from, divided by `per` to get `unit`."""

    name: str
    kind: str
    """text, integer, number or boolean."""
    unit: str
    description: str
    source: str
    per: float = 1
    tolerance: float = TOLERANCE
    """Largest relative difference that `snakemake verify` accepts on another machine; 0 means equal."""


@dataclass(frozen=True)
class Table:
    """A table of the project: `name` is that of its file, without `.csv`."""

    name: str
    columns: tuple[Column, ...]
    repeated: tuple[Column, ...] = ()
    """Columns after these, once for each value that stands for the `<word>` in their names, a file's own values; their
    tolerance is TOLERANCE."""
    by_scenario: bool = False
    """Whether every scenario has one."""
    extended: bool = False
    """Whether it lies in `extended/`, where it explains the table of the same name."""
    on_top: bool = False
    """Whether it lies in tables/ itself although it has no number."""

    @property
    def path(self) -> str:
        """Path from the project's root; {scenario_dir} is the folder of a scenario."""
        place = "tables/{scenario_dir}" if self.by_scenario else "tables/"
        numbered = self.on_top or self.name.startswith("table")
        folder = "extended/" if self.extended else "" if numbered else "data/"
        return f"{place}{folder}{self.name}.csv"

    def columns_among(self, names: Sequence[str]) -> tuple[Column, ...]:
        """Return the columns of a file, in order: `names` are its own, which tell the values of repeated columns."""
        if not self.repeated:
            return self.columns
        before, after = PLACEHOLDER.split(self.repeated[0].name)
        found = (re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", name) for name in names)
        blocks = (
            replace(column, name=PLACEHOLDER.sub(match[1], column.name))
            for match in found
            if match
            for column in self.repeated
        )
        return (*self.columns, *blocks)


def text(name: str, description: str) -> Column:
    """Declare a column of words."""
    return Column(name, "text", "", description, name, tolerance=0)


def integer(name: str, unit: str, description: str, source: str = "") -> Column:
    """Declare a column of whole numbers, which are the same on every machine."""
    return Column(name, "integer", unit, description, source or name, tolerance=0)


def number(name: str, unit: str, description: str, source: str = "", per: float = 1) -> Column:
    """Declare a column of real numbers."""
    return Column(name, "number", unit, description, source or name, per)


def flag(name: str, description: str) -> Column:
    """Declare a column of True and False."""
    return Column(name, "boolean", "", description, name, tolerance=0)


def gigabytes(name: str, description: str, source: str) -> Column:
    """Declare a column in GB of 10^9 bytes whose source is in bytes."""
    return number(name, "GB", description, source, GB)


def interval(name: str, unit: str, of: str) -> tuple[Column, Column]:
    """Declare the two columns of a 95 % interval of `name`; `of` says what it is over."""
    ends = (("low", "Lower end"), ("high", "Upper end"))
    return tuple(number(f"{name}_{end}", unit, f"{which} of the 95 % interval of {name} {of}.") for end, which in ends)


def ends(of: str) -> tuple[Column, Column]:
    """Declare low and high, the interval of a table's one value; `of` says of what and over what it is."""
    return tuple(
        number(name, "", f"{end} end of the 95 % interval of {of}; empty where there is none.")
        for name, end in (("low", "Lower"), ("high", "Upper"))
    )


MODEL = text("model", "Model, a file of config/models/.")
GPU = text("gpu", "GPU, a key of config/gpus.yaml.")
TRACE = text("trace", "Routing trace, a folder of resources/traces/ or a dataset of config/datasets.yaml.")
"""Columns that many tables have."""


def from_sources(rows: "pd.DataFrame", table: Table) -> "pd.DataFrame":
    """Return the columns of a table from their sources, in their units; whole numbers are whole, and may be missing."""
    import pandas as pd

    columns = {}
    for column in table.columns:
        values = rows[column.source] if column.per == 1 else rows[column.source] / column.per
        columns[column.name] = values.astype("Int64") if column.kind == "integer" else values
    return pd.DataFrame(columns)


def write_table(path: Path, frame: "pd.DataFrame", table: Table) -> None:
    """Write a frame as CSV; one whose columns are not those declared, in their order, is a programmer's mistake."""
    names = list(frame.columns)
    declared = [column.name for column in table.columns_among(names)]
    if names != declared:
        raise ValueError(f"{table.name}: got columns {names}, declared are {declared}")
    write_csv(path, frame)


def joined(frames: "Iterable[pd.DataFrame]", path: Path) -> "pd.DataFrame":
    """Return the rows of all frames, of which the table at `path` is made; where there is none, a UserError."""
    import pandas as pd  # slow to import, and most that declares a table joins none

    if parts := list(frames):
        return pd.concat(parts)
    problem = "nothing that it could be made from is available"
    raise UserError(str(path), problem, "The notes at the beginning of the build say what is missing.")


def read_table(path: Path, table: Table) -> "pd.DataFrame":
    """Read a written table, typed as declared; an empty text is "", another empty cell is missing.

    A missing file, other columns, or a cell of another type is a UserError that names the file and the column.
    """
    import pandas as pd  # slow to import, and most that declares a table reads none

    if not path.exists():
        raise UserError(str(path), "no such file", "Build it: snakemake --cores 8")
    columns: list[Column] = []

    def declared(header: list[str]) -> list[str]:
        columns.extend(table.columns_among(header))
        return [column.name for column in columns]

    rows = read_csv(path, declared)
    cells = pd.DataFrame(rows, columns=[column.name for column in columns], dtype=object)
    return pd.DataFrame({column.name: parsed(cells[column.name], column, path) for column in columns})


def parsed(cells: "pd.Series", column: Column, path: Path, next_step: str = REBUILD) -> "pd.Series":
    """Convert the text of a column to its type; a cell of another type is a UserError that names its line."""
    import pandas as pd

    if column.kind == "text":
        return cells.astype("str")
    if column.kind == "boolean":
        values = cells.map({"True": True, "False": False})
    else:
        values = pd.to_numeric(cells, errors="coerce")
    wrong = values.isna() & (cells != "")
    if column.kind == "integer":
        wrong |= ((values % 1 != 0) | (values.abs() > LARGEST_INTEGER)) & (cells != "")
    if wrong.any():
        line, cell = int(wrong.idxmax()) + 2, cells[wrong.idxmax()]
        where = f"{path}: line {line}: {column.name}"
        raise UserError(where, f"got {cell!r}, expected a value of type {column.kind}", next_step)
    return values.astype(DTYPES[column.kind])


def tolerances(tables: Sequence[Table]) -> Mapping[str, Mapping[str, float]]:
    """Return the tolerance of each declared column, by the name of its table's file and its own."""
    found: dict[str, dict[str, float]] = {}
    for table in tables:
        found.setdefault(f"{table.name}.csv", {}).update({column.name: column.tolerance for column in table.columns})
    return found
