r"""The supplement of the paper: pages of models in LaTeX, with the macros that paper/supplement.tex defines.

* `\modelpage{title}{label}` begins a page's text, and `\modelpart{heading}` a section of it.
* Tables have the columns of booktabs and siunitx. A table that is wider than a column stands below both.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from prophet_moe.present.latex import escape
from prophet_moe.present.model_pages.words import NONE

NUMBER = re.compile(r"-?\d[\d,]*(?:\.(\d+))?")
"""A number as pages show it, with separators of thousands."""
HEADER_WIDTH = 11
"""Letters of one line of a header."""
TOLD_CLAIMS = 45
"""Most claims that are told by a sentence each. More are listed in pairs without it, in half the lines."""
CLAIM = ("p{1.42in}", "p{2.75in}", "p{0.8in}", "p{0.62in}", "p{0.95in}")
"""Columns of the claims: id, sentence, claimed, found and verdict."""
PAIRED = ("p{1.32in}", "p{0.66in}", "p{0.5in}", "p{0.62in}")
"""Columns of one claim of a pair: the same without the sentence."""


def supplement(index: Mapping[str, Any], pages: Sequence[Mapping[str, Any]], root: str) -> str:
    """Return the index of models and a text of every page in LaTeX.

    `root` leads from the folder of the paper to the project's root, where the paths of figures begin; of a figure the
    PDF beside the PNG is taken.
    """
    return "\n".join([_index(index, pages), *(_page(page, root) for page in pages)])


def plain(text: str) -> str:
    """Return text as LaTeX prints it: every character that is a command is escaped, powers are raised."""
    escaped = escape(text.replace("\\", "/")).replace("~", r"\textasciitilde{}").replace("<", r"\textless{}")
    return re.sub(r"\^(\d+)", r"\\textsuperscript{\1}", escaped.replace(NONE, "--"))


def label(model: str) -> str:
    """Return the label of a model's page."""
    return f"model:{model}"


def _index(index: Mapping[str, Any], pages: Sequence[Mapping[str, Any]]) -> str:
    rows = [[*row, rf"\pageref{{{label(page['model'])}}}"] for row, page in zip(index["rows"], pages, strict=True)]
    columns = [_column([row[number] for row in index["rows"]]) for number in range(len(index["columns"]))]
    return _tabular([*columns, "r"], [*index["columns"], "page"], rows, kept=1)


def _page(page: Mapping[str, Any], root: str) -> str:
    parts = [rf"\modelpage{{{plain(page['title'])}}}{{{label(page['model'])}}}", _sentences(page["summary"])]
    *sections, claims = page["sections"]
    parts.append(r"\begin{multicols}{2}")
    parts += [_section(section, root) for section in sections]
    parts += [r"\end{multicols}", rf"\modelpart{{{plain(claims['heading'])}}}", _sentences(claims["text"])]
    if claims["table"]:
        parts.append(_claims(claims["table"]["rows"]))
    return "\n".join(parts) + "\n"


def _section(section: Mapping[str, Any], root: str) -> str:
    parts = [rf"\modelpart{{{plain(section['heading'])}}}", _sentences(section["text"])]
    if section["table"]:
        columns, rows = section["table"]["columns"], section["table"]["rows"]
        layout = [_column([row[number] for row in rows]) for number in range(len(columns))]
        parts.append(_tabular(layout, columns, rows))
    if section["figure"]:
        drawn = PurePosixPath(root) / PurePosixPath(section["figure"]).with_suffix(".pdf")
        parts.append(rf"\modelfigure{{{drawn}}}")
    return "\n".join(parts)


def _sentences(text: Sequence[str]) -> str:
    return plain(" ".join(text)) + "\n"


def _column(cells: Sequence[str]) -> str:
    """The column of a table: siunitx's for numbers and dashes alone, else text; text is right of the first column."""
    numbers = [NUMBER.fullmatch(cell) for cell in cells if cell != NONE]
    if not numbers or not all(numbers):
        return "l"
    digits = max(len(found[0].partition(".")[0].replace(",", "")) for found in numbers)
    return f"S[table-format={digits}.{max(len(found[1] or '') for found in numbers)}]"


def _tabular(layout: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]], kept: int = 0) -> str:
    """A table in the place where it stands; the last `kept` cells of a row are LaTeX already."""
    head = " & ".join(_header(column) for column in columns)
    body = "\n".join(rf"{_row(row, layout, kept)} \\" for row in rows)
    return (
        rf"\begin{{modeltable}}{{{''.join(layout)}}}" + "\n"
        r"\toprule" + f"\n{head} \\\\\n" + r"\midrule" + f"\n{body}\n" + r"\bottomrule" + "\n"
        r"\end{modeltable}"
    )


def _row(row: Sequence[str], layout: Sequence[str], kept: int) -> str:
    cells = [_cell(cell, column) for cell, column in zip(row[: len(row) - kept], layout, strict=False)]
    return " & ".join([*cells, *row[len(row) - kept :]])


def _cell(cell: str, column: str) -> str:
    if not column.startswith("S"):
        return plain(cell)
    return "{--}" if cell == NONE else cell.replace(",", "")


def _header(column: str) -> str:
    """The header of a column, broken at spaces into lines of HEADER_WIDTH letters."""
    lines = [""]
    for word in column.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if len(longer) <= HEADER_WIDTH or not lines[-1] else [*lines, word]
    stacked = r"\\".join(map(plain, lines))
    return rf"{{\shortstack{{{stacked}}}}}"


def _claims(rows: Sequence[Sequence[str]]) -> str:
    """The table of claims below both columns: one a line with its sentence, or pairs without it."""
    if len(rows) <= TOLD_CLAIMS:
        return _longtable(CLAIM, ["id", "claim", "claimed", "found", "verdict"], rows)
    short = [[row[0], *row[2:]] for row in rows]
    lines = (len(short) + 1) // 2
    pairs = [[*short[n], *(short[n + lines] if n + lines < len(short) else [""] * len(PAIRED))] for n in range(lines)]
    return _longtable([*PAIRED, *PAIRED], ["id", "claimed", "found", "verdict"] * 2, pairs)


def _longtable(layout: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = " & ".join(columns)
    body = "\n".join(rf"{' & '.join(map(_breakable, row))} \\" for row in rows)
    return (
        rf"\begin{{modelclaims}}{{{''.join(layout)}}}" + "\n"
        r"\toprule" + f"\n{head} \\\\\n" + r"\midrule\endhead" + "\n"
        r"\bottomrule\endfoot" + f"\n{body}\n" + r"\end{modelclaims}"
    )


def _breakable(text: str) -> str:
    """Text that may break after the points of an id."""
    return re.sub(r"(?<=[a-z0-9])\.(?=[a-z])", r".\\allowbreak{}", plain(text))
