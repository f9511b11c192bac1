"""Figures and tables with their captions and with how they were made, as the page shows them."""

import re
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image

from prophet_moe.files import canonical_hash
from prophet_moe.tables import Column, Table
from prophet_moe.validation import read_csv, read_json

SHORT = 12
"""Digits of a hash that are shown."""
LONGEST_WORD = 40
"""Characters of a cell above which a column is broken into lines."""
EFFORT, METHOD = 50, 3
"""How hard WebP tries: larger numbers, of up to 100 and 6, take longer and save little."""


class Provenance(NamedTuple):
    """How an output was made, from its sidecar."""

    rule: str
    made_from: str
    """Short hash of parameters, inputs and code together."""
    code: str
    """Short hash of all code, and of how many files."""
    inputs: tuple[tuple[str, str], ...]
    """Path and short hash of every input."""


class Image(NamedTuple):
    """A picture that lies in the page itself: its address, and its size in pixels."""

    source: str
    width: int
    height: int


class FigureView(NamedTuple):
    """A figure as the page shows it."""

    id: str
    title: str
    image: Image
    caption: str
    provenance: Provenance


class TableView(NamedTuple):
    """A table as the page shows it; its cells are the text of the file."""

    id: str
    title: str
    path: str
    caption: str
    columns: tuple[Column, ...]
    rows: list[list[str]]
    provenance: Provenance


def provenance(sidecar: Path) -> Provenance:
    """Return what the sidecar of an output says."""
    told = read_json(sidecar)
    inputs = tuple((path, digest[:SHORT]) for path, digest in told["inputs"].items())
    code = f"{canonical_hash(told['code'])[:SHORT]} of {len(told['code'])} files"
    return Provenance(told["rule"], told["config_hash"], code, inputs)


def figure_view(path: Path, sidecar: Path, caption: str) -> FigureView:
    """Return a figure from its PNG."""
    return FigureView(identifier(path), title(path), embedded_image(path), caption, provenance(sidecar))


def table_view(path: Path, sidecar: Path, declared: Table, caption: str) -> TableView:
    """Return a table from its CSV file; columns other than those declared are a UserError."""
    columns: list[Column] = []

    def names(header: list[str]) -> list[str]:
        columns.extend(declared.columns_among(header))
        return [column.name for column in columns]

    rows = read_csv(path, names)
    return TableView(identifier(path), title(path), str(path), caption, tuple(columns), rows, provenance(sidecar))


def embedded_table(view: TableView) -> dict[str, Any]:
    """Return a table as DataTables takes it: headings with units, which columns are numbers or long texts, cells."""
    heads = [f"{column.name} [{column.unit}]" if column.unit else column.name for column in view.columns]
    numeric = [column.kind in ("integer", "number") for column in view.columns]
    wide = [max((len(row[place]) for row in view.rows), default=0) > LONGEST_WORD for place in range(len(heads))]
    return {"columns": heads, "numeric": numeric, "wide": wide, "rows": view.rows}


def embedded_image(path: Path) -> Image:
    """Return a picture as lossless WebP, a third of the size of a PNG with the same pixels."""
    with PIL.Image.open(path) as picture:
        packed = BytesIO()
        picture.save(packed, "WEBP", lossless=True, quality=EFFORT, method=METHOD)
        return Image(data_uri(packed.getvalue(), "image/webp"), *picture.size)


def data_uri(content: bytes, kind: str) -> str:
    """Return bytes as an address that holds them."""
    return f"data:{kind};base64,{b64encode(content).decode('ascii')}"


def identifier(path: Path) -> str:
    """Return what links name an output by: figures/reported/x.png is figures-reported-x."""
    return re.sub(r"[^a-z0-9]+", "-", str(path.with_suffix("")).lower())


def title(path: Path) -> str:
    """Return the title of an output from its name: tables/reported/table1_a_b.csv is Table 1: a b (reported)."""
    number = re.fullmatch(r"(figure|table)(\d+)_(.+)", path.stem)
    words = f"{number[1].capitalize()} {number[2]}: {number[3]}" if number else path.stem.capitalize()
    scenario = f" ({path.parent.name})" if len(path.parts) > 2 else ""
    return words.replace("_", " ") + scenario


def in_reading_order(paths: Sequence[Path]) -> list[Path]:
    """Return numbered outputs by number, then the others by name; those of other scenarios come last."""

    def key(path: Path) -> tuple[int, int, int, str]:
        number = re.match(r"(?:figure|table)(\d+)", path.stem)
        return len(path.parts), int(number[1]) if number else 10**6, len(path.stem) if number else 0, path.stem

    return sorted(paths, key=key)
