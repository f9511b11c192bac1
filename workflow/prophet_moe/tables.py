"""Tables of the project, each declared once as its columns: name, unit, meaning and tolerance.

The writer, the typed reader, docs/data.md and the check of another machine's tables are made from the declaration.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prophet_moe.errors import UserError
from prophet_moe.files import write_csv
from prophet_moe.units import GB
from prophet_moe.validation import REBUILD

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-5
"""Largest relative difference of a number on another machine: one unit of the sixth digit."""
DTYPES = {"text": "str", "boolean": "bool", "integer": "Int64", "number": "float64"}
"""Types in memory by kind of column."""


@dataclass(frozen=True)
class Column:
    """A column of a table. `source` is the column of the grid that it is taken from, divided by `per` to get `unit`.

    `<word>` in its name stands for a value that settings give: `kv_extension_at_<limit>x`.
    """

    name: str
    kind: str
    """text, integer, number or boolean."""
    unit: str
    description: str
    source: str
    per: float = 1
    tolerance: float = TOLERANCE
    """Largest relative difference that `snakemake verify` accepts on another machine; 0 means equal."""

    def matches(self, name: str) -> bool:
        """Whether a column of a file is this one."""
        pattern = re.sub(r"<\w+>", "[^<>]+", re.escape(self.name).replace("\\<", "<").replace("\\>", ">"))
        return re.fullmatch(pattern, name) is not None


@dataclass(frozen=True)
class Table:
    """A table of the project: `name` is that of its file, without `.csv`."""

    name: str
    columns: tuple[Column, ...]
    by_scenario: bool = False
    """Whether every scenario has one."""

    @property
    def path(self) -> str:
        """Path from the project's root; {scenario_dir} is the folder of a scenario."""
        place = "tables/{scenario_dir}" if self.by_scenario else "tables/"
        return f"{place}{'' if self.name.startswith('table') else 'data/'}{self.name}.csv"


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


def write_table(path: Path, frame: "pd.DataFrame", table: Table) -> None:
    """Write a frame as CSV; one whose columns are not those declared, in their order, is a programmer's mistake."""
    strange = _strange(list(frame.columns), table.columns)
    if strange:
        raise ValueError(f"{table.name}: column {strange}")
    write_csv(path, frame)


def read_table(path: Path, table: Table) -> "pd.DataFrame":
    """Read a written table, typed as declared; an empty number is NaN, an empty text is "".

    A missing file, other columns, or a cell of another type is a UserError that names the file and the column.
    """
    import pandas as pd  # slow to import, and most that declares a table reads none

    if not path.exists():
        raise UserError(str(path), "no such file", "Build it: snakemake --cores 8")
    try:
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise UserError(str(path), f"is no table: {error}", REBUILD) from None
    strange = _strange(list(cells.columns), table.columns)
    if strange:
        raise UserError(str(path), f"column {strange}", REBUILD)
    return pd.DataFrame({name: parsed(cells[name], column_named(name, table.columns), path) for name in cells})


def column_named(name: str, columns: Sequence[Column]) -> Column:
    """Return the declaration of a column of a file."""
    return next(column for column in columns if column.matches(name))


def parsed(cells: "pd.Series", column: Column, path: Path) -> "pd.Series":
    """Convert the text of a column to its type; a cell of another type is a UserError that names its line."""
    import pandas as pd

    if column.kind == "text":
        return cells.astype("str")
    if column.kind == "boolean":
        values = cells.map({"True": True, "False": False})
    else:
        values = pd.to_numeric(cells, errors="coerce")
    wrong = values.isna() & (cells != "")
    if wrong.any():
        line, cell = int(wrong.idxmax()) + 2, cells[wrong.idxmax()]
        where = f"{path}: line {line}: {column.name}"
        raise UserError(where, f"got {cell!r}, expected a value of type {column.kind}", REBUILD)
    return values.astype(DTYPES[column.kind])


def _strange(names: Sequence[str], columns: Sequence[Column]) -> str:
    """Say which column of a file is not the one declared; a declared one may stand for several in turn."""
    left = list(columns)
    for name in names:
        while left and not left[0].matches(name) and "<" in left[0].name and len(left) > 1:
            left = left[1:]
        if not left or not left[0].matches(name):
            return f"{name!r} where {left[0].name!r} is expected" if left else f"{name!r} is not declared"
        left = left if "<" in left[0].name else left[1:]
    missing = [column.name for column in left if "<" not in column.name]
    return f"{missing[0]!r} is missing" if missing else ""


def tolerances(tables: Sequence[Table]) -> Mapping[str, Mapping[str, float]]:
    """Return the tolerance of each declared column, by the name of its table's file and its own."""
    return {f"{table.name}.csv": {column.name: column.tolerance for column in table.columns} for table in tables}
