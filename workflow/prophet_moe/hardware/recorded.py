"""Folders that `python -m prophet_moe.collect` records: a CSV, metadata that names the machine, checksums of both."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.routing.store import METADATA, check_sums
from prophet_moe.validation import read_json


@dataclass(frozen=True)
class Recording:
    """A complete measurement of a GPU as it lies on disk."""

    folder: Path
    kind: str
    """hardware, memory or prefetch: the name of its CSV and of the command that records it."""
    metadata: dict[str, Any]
    rows: pd.DataFrame
    """Every cell as the text it is, "" where empty; the index counts from the first row below the header."""

    def require(self, columns: Iterable[str]) -> None:
        """Refuse a measurement whose CSV lacks one of `columns`."""
        missing = next((name for name in columns if name not in self.rows), None)
        if missing is not None:
            raise self.mistake(self.path, f"has no column {missing!r}")

    def where(self, **cells: str) -> pd.DataFrame:
        """Return the rows with these cells; that there are none is a UserError."""
        chosen = self.rows[np.logical_and.reduce([self.rows[name] == cell for name, cell in cells.items()])]
        if chosen.empty:
            wanted = ", ".join(f"{name} {cell}" for name, cell in cells.items())
            raise self.mistake(self.path, f"holds no row of {wanted}")
        return chosen

    def numbers(self, rows: pd.DataFrame, *columns: str, zero: bool = False) -> pd.DataFrame:
        """`columns` of some rows as float64: finite and above 0, or at least 0 with `zero`; else a UserError."""
        return pd.DataFrame({name: self._column(rows[name], zero) for name in columns}, index=rows.index)

    def flags(self, rows: pd.DataFrame, column: str) -> pd.Series:
        """Read a column of True and False as bool; anything else is a UserError."""
        values = rows[column].map({"True": True, "False": False})
        if values.isna().any():
            raise self._wrong(rows[column], values.isna().to_numpy(), "True or False")
        return values.astype(bool)

    def mistake(self, where: object, problem: str) -> UserError:
        """Return the UserError about a file that cannot be used, with the command that measures again."""
        return UserError(str(where), problem, again(self.folder, self.kind))

    @property
    def path(self) -> Path:
        """Return the path of the CSV."""
        return self.folder / f"{self.kind}.csv"

    def _column(self, cells: pd.Series, zero: bool) -> NDArray[np.float64]:
        values = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
        wrong = ~(np.isfinite(values) & ((values >= 0) if zero else (values > 0)))
        if wrong.any():
            raise self._wrong(cells, wrong, "a number of at least 0" if zero else "a number above 0")
        return values

    def _wrong(self, cells: pd.Series, wrong: NDArray[np.bool_], expected: str) -> UserError:
        """Return the line for the first of the `wrong` cells of a column."""
        line, cell = cells.index[wrong][0] + 2, cells[wrong].iloc[0]
        return self.mistake(f"{self.path}: line {line}", f"{cells.name}: got {cell!r}, expected {expected}")


def read_recording(folder: Path, kind: str) -> Recording:
    """Read the measurement in `folder`; an unfinished, changed or other folder is a UserError."""
    unfinished = f"Go on with it: {_command(folder, kind)}"
    check_sums(folder, (f"{kind}.csv", METADATA), unfinished=unfinished, damaged=again(folder, kind))
    path, metadata = folder / f"{kind}.csv", read_json(folder / METADATA)
    found = metadata.get("kind") if isinstance(metadata, dict) else None
    if found != kind:
        raise UserError(str(folder / METADATA), f"kind: got {found!r}, expected {kind!r}", again(folder, kind))
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False).fillna("")
    except ValueError as error:
        problem = f"malformed CSV: {' '.join(str(error).split())}"
        raise UserError(str(path), problem, again(folder, kind)) from None
    return Recording(folder, kind, metadata, rows)


def again(folder: Path, kind: str) -> str:
    """Return the next step for a measurement that cannot be used."""
    return f"Measure it again: rm -r {folder}, then {_command(folder, kind)}"


def _command(folder: Path, kind: str) -> str:
    return f"python -m prophet_moe.collect {kind} --out {folder}"
