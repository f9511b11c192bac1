"""How far every number of the reports' tables is from the corrected one, and whether the report's constants give it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prophet_moe.present.style import legend_below, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.report_tables.study import FIGURE

ROW_IN, AROUND_IN = 0.158, 1.25
"""Height in inches of a table's row, and of what stands around the rows."""
NEAR = 0.1
"""Relative difference up to which a corrected value counts as near the claimed one."""
SHOWN = (0.02, 50.0)
"""Ratios that have a place on the axis; what is smaller or larger stands at its end."""
LANES = {"under_own_constants": -0.17, "corrected": 0.17}
SPREAD = 0.1
"""Largest shift of a mark within its lane, in heights of a row, so that equal values do not hide one another."""
COLUMNS_AT = {"cells": 36, "reproduced": 66, "near": 98}
"""Right ends of the columns of counts, points beside the axes."""


def ratios(table: pd.DataFrame, column: str) -> pd.Series:
    """Return the values of a column over the claimed ones; where the report prints 0, only 0 has a ratio, 1."""
    claimed = table["claimed"]
    both_zero = (claimed == 0) & (table[column] == 0)
    return (table[column] / claimed.where(claimed != 0)).mask(both_zero, 1.0)


def by_table(table: pd.DataFrame) -> pd.DataFrame:
    """Count cells, reproduced ones and near ones of each table of the reports, in the order of the documents."""
    near = (ratios(table, "corrected") - 1).abs() <= NEAR
    counted = table.assign(cells=1, near=near, known=table["corrected"].notna(), own=table["reproduced"].notna())
    counted["reproduced"] = counted["reproduced"].fillna(False).astype(bool)
    columns = ["cells", "own", "reproduced", "known", "near"]
    return counted.groupby("report_table", sort=False)[columns].sum().astype(int)


def headline(table: pd.DataFrame) -> str:
    """The figure's statement: how many numbers the report's constants give, and how many are right."""
    found = by_table(table).sum()
    return (
        f"Their own constants give {found['reproduced']} of the {found['cells']} numbers in the reports' tables.\n"
        f"{found['near']} are within {NEAR:.0%} of the corrected value; {found['cells'] - found['known']} have none."
    )


def findings(table: pd.DataFrame, largest: int) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the table."""
    found = by_table(table)
    share = (found["near"] / found["cells"]).sort_values(kind="stable")
    lines = [headline(table).replace("\n", " ")]
    lines.append(f"Fewest numbers are near the corrected ones in {_some(share.head(3))}.")
    wrong = table[table["reproduced"].notna() & ~table["reproduced"].fillna(True).astype(bool)]
    for why, rows in table[table["why_empty"] != ""].groupby("why_empty"):
        lines.append(f"{len(rows)} numbers have no corrected value: {why}.")
    lines.append(f"{len(wrong)} numbers contradict the constants of their own report.")
    away = np.log(ratios(table, "corrected").where(lambda ratio: ratio > 0)).abs()
    far = table.loc[away.sort_values(ascending=False, kind="stable").index[:largest]]
    lines.append(f"The {len(far)} numbers farthest from the corrected ones:")
    told = "\n".join(
        f"    * {row.line} ({row.report_table}), {row.row}, {row.column}: {row.claimed:g} printed, "
        f"{row.corrected:.4g} corrected{f' {row.unit}' if row.unit else ''}"
        for row in far.itertuples()
    )
    return "\n".join(f"* {line}" for line in lines) + "\n" + told


def _some(shares: pd.Series) -> str:
    return ", ".join(f"{name} ({share:.0%})" for name, share in shares.items())


def draw(table: pd.DataFrame, style: Style) -> Figure:
    """A row for each table of the reports, a mark for each number: found over claimed, on a logarithmic axis."""
    counts = by_table(table)
    with styled(style):
        figure = new_figure(style.size_of(FIGURE), AROUND_IN + ROW_IN * len(counts))
        ax = figure.subplots()
        for number in range(0, len(counts), 2):
            ax.axhspan(number - 0.5, number + 0.5, color=style.colours.grid, alpha=0.35, linewidth=0)
        ax.axvspan(1 - NEAR, 1 + NEAR, color=style.colours.series[1], alpha=0.25, linewidth=0)
        for column, lane in LANES.items():
            _draw_lane(ax, table, list(counts.index), column, lane, style)
        ax.set_xscale("log")
        ax.set_xlim(SHOWN[0] / 1.35, SHOWN[1] * 1.35)
        ticks = (0.02, 0.1, 0.5, 1, 2, 10, 50)
        ax.set_xticks(ticks, ["≤ 1/50", "1/10", "1/2", "1", "2", "10", "≥ 50"])
        ax.minorticks_off()
        ax.grid(axis="x")
        ax.set_xlabel("Value found / value printed in the report")
        ax.set_ylim(len(counts) - 0.4, -0.6)
        ax.set_yticks(range(len(counts)), counts.index, fontsize=small_pt(style))
        ax.tick_params(axis="y", length=0)
        _print_counts(ax, counts, style)
        figure.suptitle(headline(table), x=0.01, ha="left", fontsize=style.font_size_pt, linespacing=1.15)
        looks = {
            "under the report's own constants": _look("under_own_constants", style),
            "corrected": _look("corrected", style),
        }
        legend_below(figure, {name: Line2D([], [], linestyle="", **look) for name, look in looks.items()}, 2)
        settle(figure)
    return figure


def _draw_lane(ax: Axes, table: pd.DataFrame, names: list[str], column: str, lane: float, style: Style) -> None:
    shown = ratios(table, column)
    low, high = SHOWN
    rows = table["report_table"].map({name: place for place, name in enumerate(names)})
    # Equal values of a table stand beside each other: the k-th of them is shifted by a step of its own.
    place = shown.round(3).groupby([rows, shown.round(3)]).cumcount()
    shift = SPREAD * np.sin(1.3 * place)
    known = shown.notna()
    ax.plot(
        shown[known].clip(low, high),
        (rows + lane + shift)[known],
        linestyle="",
        alpha=0.75,
        zorder=3,
        clip_on=False,
        **_look(column, style),
    )


def _look(column: str, style: Style) -> dict[str, object]:
    if column == "corrected":
        return {"marker": "o", "color": style.colours.prophet, "markersize": 3.2, "markeredgewidth": 0}
    return {"marker": "|", "color": style.colours.text, "markersize": 3.4, "markeredgewidth": 0.9}


def _print_counts(ax: Axes, counts: pd.DataFrame, style: Style) -> None:
    """Numbers of cells at the right: all, those that the own constants give, those near the corrected value."""
    heads = {"cells": "numbers", "reproduced": "repro-\nduced", "near": f"within\n{NEAR:.0%}"}
    look = {"textcoords": "offset points", "ha": "right", "fontsize": small_pt(style)}
    for column, at in COLUMNS_AT.items():
        ax.annotate(heads[column], (1, 1), (at, 3), xycoords="axes fraction", va="bottom", linespacing=1.0, **look)
        for place, number in enumerate(counts[column]):
            middle = {"xycoords": ("axes fraction", "data"), "va": "center_baseline"}
            ax.annotate(str(number), (1, place), (at, 0), **middle, **look)
