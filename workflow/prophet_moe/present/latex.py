"""LaTeX: tables with booktabs and siunitx, one macro per quoted number, and the figures with their captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from prophet_moe.present.price import STRATEGIES

SPECIAL = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}
SPECIAL |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
SPECIAL |= {"≥": r"$\ge$", "≤": r"$\le$", "→": r"$\to$", "−": "$-$"}


@dataclass(frozen=True)
class TexColumn:
    r"""A column of a printed table: the name in the data, the header with its unit, and how numbers are printed."""

    name: str
    header: str
    decimals: int | None = None
    """Digits after the point, for numbers; None for text."""
    digits: int = 1
    """Digits before the point that siunitx reserves."""


TABLES: dict[str, tuple[TexColumn, ...]] = {
    "table1": (
        TexColumn("model", "Model"),
        TexColumn("num_experts", "$E$", 0, 3),
        TexColumn("top_k", "$k$", 0, 1),
        TexColumn("fit_state", "Fits"),
        TexColumn("expert_savings_pct", r"Expert\\savings (\%)", 1, 2),
        TexColumn("memory_floor_factor", r"Memory\\floor ($\times$)", 2, 2),
        TexColumn("kv_increase_tokens", r"Gain\\(tokens)", 0, 6),
    ),
    "table2": (
        TexColumn("rank", "", 0, 2),
        TexColumn("model", "Model"),
        TexColumn("fitting_rows", r"Fitting\\rows", 0, 2),
        TexColumn("prophet_only_rows", r"Prophet\\only", 0, 2),
        TexColumn("rows", r"All\\rows", 0, 2),
        TexColumn("median_floor_fitting", r"Memory floor,\\median ($\times$)", 2, 2),
        TexColumn("mean_floor_fitting", r"Memory floor,\\mean ($\times$)", 2, 2),
        TexColumn("best_floor", r"Memory floor,\\best ($\times$)", 2, 2),
        TexColumn("mean_floor_zero_filled", r"Mean with\\zeros ($\times$)", 2, 2),
    ),
    "table3": (
        TexColumn("num_experts", "$E$", 0, 3),
        TexColumn("models", "Models", 0, 2),
        TexColumn("mean_expert_savings_pct", r"Expert\\savings (\%)", 1, 2),
        TexColumn("mean_dedup_factor", r"Dedup\\factor ($\times$)", 2, 2),
        TexColumn("mean_floor_fitting", r"Memory floor,\\mean ($\times$)", 2, 2),
        TexColumn("fitting_rows", r"Fitting\\rows", 0, 3),
        TexColumn("mean_floor_zero_filled", r"Mean with\\zeros ($\times$)", 2, 2),
        TexColumn("pattern", "Pattern"),
    ),
    "table4": (
        TexColumn("model", "Model"),
        TexColumn("fit_state", "Fits"),
        TexColumn("native_context", r"Native\\(tokens)", 0, 6),
        TexColumn("baseline_max_context", r"Baseline\\(tokens)", 0, 6),
        TexColumn("prophet_max_context", r"Prophet\\(tokens)", 0, 6),
        TexColumn("baseline_native_context", r"Baseline within\\native (tokens)", 0, 6),
        TexColumn("prophet_native_context", r"Prophet within\\native (tokens)", 0, 6),
        TexColumn("memory_floor_factor", r"Memory\\floor ($\times$)", 2, 2),
    ),
}

TABLE2_PRICED = (
    *TABLES["table2"][:4],
    TexColumn("median_floor_fitting", r"Memory floor,\\median ($\times$)", 2, 2),
    TexColumn("mean_floor_fitting", r"Memory floor,\\mean ($\times$)", 2, 2),
    TexColumn("native_gain_rows", r"Gain within\\native (rows)", 0, 2),
)
"""Table 2 where time was simulated, but for the columns of `price_columns`, which stand before the floor."""


def columns_of(name: str, frame: pd.DataFrame, claimed_slowdown: float) -> tuple[TexColumn, ...]:
    """What is printed of tables 1-4; of table 2 with the price in time, the means at the claimed slowdown."""
    prices = [column.name for column in price_columns(claimed_slowdown)]
    if name == "table2" and set(prices) <= set(frame.columns):
        return (*TABLE2_PRICED[:4], *price_columns(claimed_slowdown), *TABLE2_PRICED[4:])
    return TABLES[name]


def price_columns(slowdown: float) -> list[TexColumn]:
    """Means of the KV extension within a limit of slowdown, a column per strategy."""
    return [
        TexColumn(
            f"mean_{name}_at_{slowdown:g}x", rf"{title[0].upper()}{title[1:]}\\at {slowdown:g}$\times$ time", 2, 2
        )
        for name, title in STRATEGIES.items()
    ]


def table(frame: pd.DataFrame, columns: Sequence[TexColumn], caption: str, label: str) -> str:
    """A table* environment of `columns` of `frame`; missing numbers are dashes."""
    shown = frame[[column.name for column in columns]].copy()
    for column in columns:
        shown[column.name] = [_cell(value, column) for value in shown[column.name]]
    shown.columns = [rf"{{\shortstack{{{column.header}}}}}" for column in columns]
    layout = "".join("l" if c.decimals is None else f"S[table-format={c.digits}.{c.decimals}]" for c in columns)
    return shown.style.hide(axis="index").to_latex(
        column_format=layout,
        hrules=True,
        environment="table*",
        position="t",
        position_float="centering",
        caption=escape(caption),
        label=label,
    )


def macros(numbers: Mapping[str, str]) -> str:
    """One \\newcommand per number; names may hold letters only, as LaTeX asks."""
    return "".join(rf"\newcommand{{\{name}}}{{{value}}}" + "\n" for name, value in numbers.items())


def figure(name: str, path: str, caption: str, label: str, width_in: float) -> str:
    r"""A macro \Show<Name>[scale] that places a figure with its caption and the line that says what made it.

    The scale is 1 by default: the figure's own width, of which more than a column spans both. The line is the macro
    \Made<Name>, which the paper's numbers define.
    """
    environment = "figure*" if width_in > COLUMN_IN else "figure"
    return (
        rf"\newcommand{{\Show{in_letters(name)}}}[1][1]{{%" + "\n"
        rf"\begin{{{environment}}}[t]" + "\n"
        r"\centering" + "\n"
        rf"\includegraphics[width=#1\dimexpr{width_in}in\relax]{{{path}}}" + "\n"
        rf"\caption{{{escape(caption)}}}" + "\n"
        rf"\label{{{label}}}" + "\n"
        rf"\made{{{in_letters(name)}}}" + "\n"
        rf"\end{{{environment}}}}}" + "\n"
    )


COLUMN_IN = 3.33
"""Width of one column, inches."""


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def in_letters(name: str) -> str:
    """Return a name as LaTeX allows it in a macro: letters only, int8_weights becomes IntEightWeights."""
    spelt = "".join(f"_{DIGITS[int(each)]}_" if each.isdigit() else each for each in name)
    return "".join(part.capitalize() for part in spelt.split("_"))


def header(config_hash: str) -> str:
    """The comment that leads every generated file."""
    return f"% Made by the artifact's workflow, config {config_hash}. Do not edit: run `snakemake --cores 8`.\n"


def escape(text: str) -> str:
    """Return plain text with the characters escaped that LaTeX reads as commands."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _cell(value: object, column: TexColumn) -> str:
    if column.decimals is None:
        return escape(str(value).replace("_", " "))
    return "{--}" if pd.isna(value) else f"{value:.{column.decimals}f}"
