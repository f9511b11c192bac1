"""The rows in which statistics of routing traces are kept, and how they are read again."""

from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from prophet_moe.errors import UserError
from prophet_moe.validation import REBUILD


@dataclass(frozen=True)
class Row:
    """One statistic of a trace, over all layers or of one layer."""

    trace: str
    statistic: str
    layer: int | None
    """Number of the layer in the model; None: the mean over MoE layers."""
    x: float | None
    """Batch size, or capacity as a share of the experts, where the statistic has one."""
    value: float
    low: float | None = None
    """95 % interval over sequences (bootstrap), where there is one."""
    high: float | None = None
    control: float | None = None
    """The value on the shuffled trace: each layer's choices permuted over all tokens."""
    uniform: float | None = None
    """What independent uniform choices would give."""


COLUMNS = [field.name for field in fields(Row)]


def read_summary(path: Path) -> pd.DataFrame:
    """Read the rows of a written summary, every cell as the text it is."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def read_statistics(path: Path) -> pd.DataFrame:
    """Read the rows of a written summary, or of the table of all traces, typed."""
    return read_rows(path, COLUMNS)


def read_rows(path: Path, columns: list[str], *, others: bool = False) -> pd.DataFrame:
    """Read a table about traces, typed: numbers as float, empty cells as NaN; other columns are a UserError.

    With `others`, the table may have more columns, in any order.
    """
    if not path.exists():
        raise UserError(str(path), "no such file", "Build it: snakemake --cores 8")
    try:
        table = pd.read_csv(path)
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise UserError(str(path), f"is no table: {error}", REBUILD) from None
    if not (set(columns) <= set(table.columns) if others else list(table.columns) == columns):
        raise UserError(str(path), f"has columns {', '.join(table.columns)}, expected {', '.join(columns)}", REBUILD)
    return table
