"""Numbers and lists as pages of models show them, and the form of a section."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

NONE = "–"
"""A cell without a value."""


def section(
    heading: str,
    text: list[str],
    columns: list[str] | None = None,
    rows: list[list[str]] | None = None,
    figure: str | None = None,
) -> dict[str, Any]:
    """Return a section of a page; without rows it has no table."""
    return {
        "heading": heading,
        "text": text,
        "table": {"columns": columns, "rows": rows} if rows else None,
        "figure": figure,
    }


def number(value: float) -> str:
    """A number of about four digits; a whole one as it is, with separators."""
    whole = value == round(value) or abs(value) >= 1000
    return f"{value:,.{0 if whole else 1 if abs(value) >= 100 else 2}f}"


def tokens(value: float) -> str:
    """Return a context in tokens; that of what does not fit, 0, is NONE."""
    return f"{value:,.0f}" if value else NONE


def factor(value: float) -> str:
    """Return a factor without its unit; one that is undefined is NONE."""
    return NONE if pd.isna(value) else f"{value:.2f}"


def counted(count: int, what: str) -> str:
    """Return a count with its noun, which has a plural in s."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def span(batches: Sequence[int]) -> str:
    """Batch sizes in words: `1`, `1 and 4`, or `4 to 64`."""
    return f"{batches[0]} to {batches[-1]}" if len(batches) > 2 else listed(map(str, batches))


def listed(parts: Iterable[str]) -> str:
    """Parts joined by commas and a last "and"."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
