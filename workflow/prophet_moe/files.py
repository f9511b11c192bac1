"""Write files whole or not at all, and hash them."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prophet_moe.errors import from_os_error

if TYPE_CHECKING:
    import pandas as pd

SIGNIFICANT_DIGITS = 6
"""Digits of a number in a data file: more than any input carries, few enough to be the same on every machine."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; rename it into place at the end, remove it when anything fails.

    A full disk or a missing permission becomes a UserError that names `path`.
    """
    partial = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise from_os_error(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return the path under which `path` is written before it is whole."""
    return path.with_name(f".partial.{path.name}")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all, in UTF-8."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON with a final newline."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, frame: "pd.DataFrame") -> None:
    """Write `frame` as CSV without its index; numbers at SIGNIFICANT_DIGITS, missing values empty."""
    with atomic_write(path) as partial:
        frame.to_csv(partial, index=False, float_format=f"%.{SIGNIFICANT_DIGITS}g", lineterminator="\n")


def write_parquet(path: Path, frame: "pd.DataFrame", digits: int | None = None) -> None:
    """Write a frame as Parquet without its index, numbers exact or, with `digits`, at so many significant digits.

    Numbers that go through matrix products differ in their last bits from one CPU to the next. At 12 digits they do
    not: the file has the same bytes, and its hash in sidecars is the same.
    """
    exact = frame.select_dtypes("float").columns if digits else []
    with atomic_write(path) as partial:
        frame.assign(**{name: _rounded(frame[name], digits) for name in exact}).to_parquet(partial, index=False)


def _rounded(values: "pd.Series", digits: int) -> "pd.Series":
    return values.map(lambda value: float(f"{value:.{digits - 1}e}"), na_action="ignore")


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the bytes of a file."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise from_os_error(path, error) from error


def canonical_hash(content: Any) -> str:
    """Return the hexadecimal SHA-256 of a JSON-like value, independent of the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
