"""What the reports print: one row of resources/reports/printed.csv for each number, and how it is to be computed."""

from pathlib import Path

import pandas as pd

from prophet_moe.errors import UserError
from prophet_moe.tables import Table, read_table, text

PRINTED_FILE = Path("resources/reports/printed.csv")
PRINTED = Table(
    "printed",
    (
        text("source", "Document and line of the reports, as docs/reports.md names them."),
        text("table", "Document, and name or number of the table there; `text` outside tables."),
        text("row", "Row of the report's table."),
        text("column", "Column of the report's table."),
        text("unit", "Unit of the number."),
        text("printed", "The number as it stands there; a tick or a cross is 1 or 0, and ~ says that it is rounded."),
        text("quantity", "What is computed for it."),
        text("of", "at (one configuration), or mean, max, min or count over configurations."),
        text("model", "Model or models; empty: all."),
        text("experts", "Expert counts that select models, E or from-to; empty: all."),
        text("gpu", "GPU; empty: all."),
        text("batch", "Batch size, or from-to; empty: all."),
        text("context", "Context per sequence in tokens, where a cell is of one."),
        text("slots", "Resident experts per layer, where a cell gives them."),
        text("evidence", "How the report's constants give it: law, fitted or forced; empty where nobody claims so."),
    ),
)
SCALES = {"thousand tokens": 1000.0}
"""What a unit counts by."""
SIGNS = {"✓": 1.0, "❌": 0.0}


def read_printed(path: Path = PRINTED_FILE) -> pd.DataFrame:
    """Return the printed numbers with two more columns: claimed (float), and half a unit of the last digit (half)."""
    cells = read_table(path, PRINTED)
    numbers = [_number(printed, f"{path}: line {line}") for line, printed in enumerate(cells["printed"], start=2)]
    return cells.assign(claimed=[value for value, _ in numbers], half=[half for _, half in numbers])


def _number(printed: str, where: str) -> tuple[float, float]:
    """Return a printed number and half a unit of its last digit; a sign of SIGNS has no digits."""
    if printed in SIGNS:
        return SIGNS[printed], 0.0
    try:
        return number_printed(printed)
    except ValueError:
        raise UserError(f"{where}: printed", f"got {printed!r}, expected a number, ✓ or ❌", "Correct it.") from None


def number_printed(printed: str) -> tuple[float, float]:
    """Return a printed number and half a unit of its last digit; of a number with `~` the last that is not 0."""
    digits = printed.removeprefix("~")
    value = float(digits)
    unsure = len(digits) - len(digits.rstrip("0")) if digits != printed and "." not in digits else 0
    return value, 0.5 * 10.0 ** (unsure - len(digits.partition(".")[2]))


def bounds(text: str) -> tuple[float, float]:
    """Return both ends of `8-16`, of `8` twice, and of nothing 0 and infinity."""
    low, _, high = text.partition("-")
    return (float(low), float(high or low)) if low else (0.0, float("inf"))
