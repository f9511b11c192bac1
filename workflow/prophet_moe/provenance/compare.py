"""What differs between the outputs of a run by name and the committed ones: numbers by column, figures side by side."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from prophet_moe.errors import UserError
from prophet_moe.files import atomic_write, write_text
from prophet_moe.provenance.verify import committed, drawn
from prophet_moe.runs import BEGUN, RUNS, built_by, folder_of

KEYS = (
    *("name", "basis", "model", "quantity", "gpu", "profile", "workload", "policy", "batch_size", "batch", "context"),
    *("trace", "predictor", "strategy", "role", "routing", "mode", "deduplicated", "as_described", "capacity", "layer"),
    *("lookahead", "statistic", "x", "law", "parameter", "batching", "assumption", "resident", "num_experts", "domain"),
    *("limit", "capacity_share", "link_speedup", "resident_experts", "seed", "sample"),
)
"""Columns whose values say which row of a table is which; rows that are alike in them are paired in their order."""

HEAD = """<!doctype html><meta charset="utf-8"><title>{title}</title><style>
body {{font-family: sans-serif; margin: 2em}} td, th {{text-align: left; padding: 0 1em}}
img {{max-width: 48%; border: 1px solid #ccc}}</style>"""


@dataclass(frozen=True)
class Column:
    """A column whose numbers or words differ, in rows that both tables have."""

    name: str
    rows: int
    largest: float
    """Largest relative difference of a number; infinite where a word or an empty cell differs."""


@dataclass(frozen=True)
class Difference:
    """How one output of a run differs from the committed one: the same, other numbers, or drawn otherwise."""

    output: str
    verdict: str
    columns: tuple[Column, ...] = ()


def compare_run(name: str) -> list[Difference]:
    """Hold every figure and table that a run has built against the committed one; an unknown run is a UserError."""
    folder = folder_of(name)
    if not (folder / BEGUN).exists():
        known = ", ".join(sorted(path.parent.name for path in RUNS.glob(f"*/{BEGUN}"))) or "none"
        step = f"Build it with an overlay that holds `name: {name}`: snakemake --cores 8 --configfile OVERLAY"
        raise UserError(str(folder), f"no run of that name, there are: {known}", step)
    return [_difference(folder, output) for output in built_by(name)]


def _difference(folder: Path, output: Path) -> Difference:
    theirs, ours = committed(output), (folder / output).read_bytes()
    if theirs is None:
        return Difference(str(output), "only in this run")
    if theirs == ours:
        return Difference(str(output), "the same")
    if output.suffix == ".png":
        return Difference(str(output), drawn(folder / output, theirs))
    verdict, columns = differing(pd.read_csv(folder / output), pd.read_csv(io.BytesIO(theirs)))
    return Difference(str(output), verdict, columns)


def differing(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[str, tuple[Column, ...]]:
    """Say how two tables differ in rows and columns, and list the columns that differ in the rows that both have."""
    shared = [name for name in ours if name in theirs]
    keys = [name for name in KEYS if name in shared]
    ours, theirs = (_numbered(table, keys) for table in (ours, theirs))
    both = ours.index.intersection(theirs.index, sort=False)
    told = [
        f"{len(both)} rows in both",
        *([f"{len(ours) - len(both)} only here"] if len(ours) > len(both) else []),
        *([f"{len(theirs) - len(both)} only committed"] if len(theirs) > len(both) else []),
        *([f"other columns: {', '.join(sorted(set(ours) ^ set(theirs)))}"] if set(ours) != set(theirs) else []),
    ]
    found = (_column(name, ours.loc[both, name], theirs.loc[both, name]) for name in shared if name not in keys)
    columns = tuple(column for column in found if column.rows)
    return ", ".join(told), columns


def _numbered(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The table by its keys and, among rows that are alike in these, their number."""
    words = table[list(keys)].astype(str)
    number = words.groupby(list(keys)).cumcount() if keys else pd.Series(range(len(table)), table.index)
    return table.set_axis(pd.MultiIndex.from_frame(words.assign(_number=number)))


def _column(name: str, ours: pd.Series, theirs: pd.Series) -> Column:
    empty = ours.isna() & theirs.isna()
    if not all(pd.api.types.is_numeric_dtype(side) for side in (ours, theirs)):
        differ = (ours.astype(str) != theirs.astype(str)) & ~empty
        return Column(name, int(differ.sum()), np.inf)
    a, b = ours.to_numpy(float), theirs.to_numpy(float)
    scale = np.maximum(np.abs(a), np.abs(b))
    relative = np.nan_to_num(np.abs(a - b) / np.where(scale > 0, scale, 1), nan=np.inf)
    relative = np.where(empty | (a == b), 0.0, relative)
    return Column(name, int((relative > 0).sum()), float(relative.max(initial=0.0)))


def write_page(name: str, differences: Sequence[Difference]) -> Path:
    """Write an HTML page, for use without a network, of differences and figures side by side; return its path."""
    folder = folder_of(name) / "compare"
    parts = [f"<h1>Run {escape(name)} beside the committed outputs</h1>"]
    for difference in differences:
        parts.append(f"<h2>{escape(difference.output)}</h2><p>{escape(difference.verdict)}</p>")
        if difference.columns:
            rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells(c))}</tr>" for c in difference.columns)
            parts.append(f"<table><tr><th>column</th><th>rows</th><th>largest difference</th></tr>{rows}</table>")
        if difference.output.endswith(".png") and difference.verdict != "the same":
            parts.append(_side_by_side(folder, difference.output, name))
    page = folder / "index.html"
    write_text(page, "\n".join([HEAD.format(title=escape(name)), *parts, ""]))
    return page


def _side_by_side(folder: Path, output: str, name: str) -> str:
    pictures = [f'<img src="../{output}" alt="{escape(name)}">']
    theirs = committed(Path(output))
    if theirs is not None:
        with atomic_write(folder / "committed" / output) as partial:
            partial.write_bytes(theirs)
        pictures.insert(0, f'<img src="committed/{output}" alt="committed">')
    return f"<p>Left as committed, right this run.</p>{''.join(pictures)}" if len(pictures) == 2 else pictures[0]


def cells(column: Column) -> tuple[str, str, str]:
    """A column's line in a table: its name, how many rows differ, and by how much at most."""
    size = f"{column.largest:.2g}" if np.isfinite(column.largest) else "words or empty cells"
    return escape(column.name), str(column.rows), size
