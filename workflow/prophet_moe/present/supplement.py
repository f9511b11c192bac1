r"""The supplement of the paper: pages of models in LaTeX, with the macros that paper/supplement.tex defines.

* `\modelpage{title}{label}` begins a page, `\modelpart{heading}` a section of it, and `\modelfigure{path}` is a figure.
* `modeltable` is a table in the place where it stands; `modellongtable` and `modelclaims` may break between columns.
* `\modelindex{columns}{headers}{rows}` is the index, which spans both columns of the first page.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from prophet_moe.present.latex import escape
from prophet_moe.present.model_pages.words import NONE

NUMBER = re.compile(r"-?(\d[\d,]*)(?:\.(\d+))?")
"""A number as pages show it, with separators of thousands."""
HEADER_LETTERS = 11
"""Letters of one line of a header."""
LONG_TABLE = 18
"""Rows from which a table may break between columns of the page."""
CLAIMS = {"id": 1.24, "claimed": 0.6, "found": 0.56, "verdict": 0.7}
"""What is printed of claims, and the widths, inches: the sentence of a claim is in the ledger."""


def supplement(index: Mapping[str, Any], pages: Sequence[Mapping[str, Any]], root: str) -> str:
    """Return the index of models and the text of every page in LaTeX.

    `root` leads from the folder of the paper to the project's root, where the paths of figures begin; of a figure the
    PDF beside the PNG is taken.
    """
    return "\n".join([_index(index, pages), *(_page(page, root) for page in pages)])


def plain(text: str) -> str:
    """Return text as LaTeX prints it: no character is a command, powers are raised, and ids may break at points."""
    escaped = escape(text.replace("\\", "/")).replace("<", r"\textless{}")
    raised = re.sub(r"\\textasciicircum\{\}(\d+)", r"\\textsuperscript{\1}", escaped.replace(NONE, "--"))
    return re.sub(r"(?<=\w)([./@])(?=[A-Za-z])", r"\1\\allowbreak{}", raised)


def _index(index: Mapping[str, Any], pages: Sequence[Mapping[str, Any]]) -> str:
    columns, rows = index["columns"], index["rows"]
    layout = _layout(rows)
    lines = [rf"{_row(row, layout)} & \pageref{{{_label(page)}}}" for row, page in zip(rows, pages, strict=True)]
    head, body = _content([*columns, "page"], lines)
    return rf"\modelindex{{{_tabular([*layout, 'r'])}}}{{{head}}}{{{body}}}" + "\n"


def _page(page: Mapping[str, Any], root: str) -> str:
    begin = rf"\modelpage{{{plain(page['title'])}}}{{{_label(page)}}}"
    *sections, claims = page["sections"]
    parts = [begin, _sentences(page["summary"]), *(_section(section, root) for section in sections)]
    return "\n".join([*parts, _heading(claims), *([_claims(claims["table"])] if claims["table"] else [])]) + "\n"


def _label(page: Mapping[str, Any]) -> str:
    return f"model:{page['model']}"


def _section(section: Mapping[str, Any], root: str) -> str:
    parts = [_heading(section)]
    if section["table"]:
        parts.append(_table(section["table"]))
    if section["figure"]:
        drawn = PurePosixPath(root) / PurePosixPath(section["figure"]).with_suffix(".pdf")
        parts.append(rf"\modelfigure{{{drawn}}}")
    return "\n".join(parts)


def _heading(section: Mapping[str, Any]) -> str:
    return rf"\modelpart{{{plain(section['heading'])}}}" + "\n" + _sentences(section["text"])


def _sentences(text: Sequence[str]) -> str:
    return plain(" ".join(text)) + "\n"


def _table(table: Mapping[str, Any]) -> str:
    layout = _layout(table["rows"])
    lines = [_row(row, layout) for row in table["rows"]]
    if len(lines) <= LONG_TABLE:
        return _environment("modeltable", layout, table["columns"], lines)
    # Without an empty last column, siunitx does not see where a row of supertabular ends.
    return _environment("modellongtable", [*layout, "@{}l"], [*table["columns"], ""], [f"{line} &" for line in lines])


def _claims(table: Mapping[str, Any]) -> str:
    """The claims by id, without their sentences, in columns of fixed width that break their text."""
    places = [table["columns"].index(name) for name in CLAIMS]
    layout = [rf">{{\raggedright\arraybackslash}}p{{{width}in}}" for width in CLAIMS.values()]
    lines = [_row([row[place] for place in places], layout) for row in table["rows"]]
    return _environment("modelclaims", layout, list(CLAIMS), lines)


def _environment(name: str, layout: Sequence[str], columns: Sequence[str], lines: Sequence[str]) -> str:
    head, body = _content(columns, lines)
    return rf"\begin{{{name}}}{{{_tabular(layout)}}}{{{head}}}" + f"\n{body}" + rf"\end{{{name}}}"


def _tabular(layout: Sequence[str]) -> str:
    return f"@{{}}{''.join(layout)}@{{}}"


def _content(columns: Sequence[str], lines: Sequence[str]) -> tuple[str, str]:
    """Return the line of headers, and the rows with their ends."""
    return " & ".join(map(_header, columns)), "".join(rf"{line} \\" + "\n" for line in lines)


def _layout(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the column of each place of the rows: siunitx's for numbers and dashes alone, else text.

    Text is to the right where most cells are numbers, and dashes alone are in the middle.
    """
    return [_column([row[place] for row in rows]) for place in range(len(rows[0]))]


def _column(cells: Sequence[str]) -> str:
    numbers = [NUMBER.fullmatch(cell) for cell in cells if cell != NONE]
    if not numbers:
        return "c"
    if not all(numbers):
        return "r" if sum(map(bool, numbers)) > len(numbers) / 2 else "l"
    digits = max(len(found[1].replace(",", "")) for found in numbers)
    return f"S[table-format={digits}.{max(len(found[2] or '') for found in numbers)}]"


def _row(row: Sequence[str], layout: Sequence[str]) -> str:
    return " & ".join(_cell(cell, column) for cell, column in zip(row, layout, strict=True))


def _cell(cell: str, column: str) -> str:
    if not column.startswith("S"):
        return plain(cell)
    return "{--}" if cell == NONE else cell.replace(",", "")


def _header(column: str) -> str:
    """The header of a column, broken at spaces into lines of HEADER_LETTERS letters."""
    lines = [""]
    for word in column.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if len(longer) <= HEADER_LETTERS or not lines[-1] else [*lines, word]
    stacked = r"\\".join(map(plain, lines))
    return rf"{{\shortstack{{{stacked}}}}}"
