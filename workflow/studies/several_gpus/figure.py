"""The fewest GPUs of every model with and without expert slots, and the context that layouts hold."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from prophet_moe.present.style import MARKERS, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.several_gpus.study import FIGURE, MOST_GPUS

ROW_IN, AROUND_ROWS_IN = 0.25, 1.1
"""Height in inches of a model's row, and of what stands around the rows."""
LINE_PT = 5.0
"""Width of the lines of numbers of GPUs on which only expert slots fit."""
WITHIN = {"marker": "|", "linestyle": "none", "markersize": 6.5, "markeredgewidth": 1.8}
"""Mark of the fewest GPUs within the limit of slowdown."""
FAMILIES = {
    "tensor parallel": lambda rows: rows["tp"] == rows["gpus"],
    "data and expert parallel": lambda rows: (rows["dp"] == rows["gpus"]) & (rows["gpus"] > 1),
    "pipeline parallel": lambda rows: (rows["pp"] == rows["gpus"]) & (rows["gpus"] > 1),
}
"""Layouts of one kind, by their titles."""


def of_first_gpu(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that the figure shows: of the first GPU and models that need several; of all if none does."""
    rows = table[table["gpu"] == table["gpu"].iloc[0]]
    several = rows.groupby("model")["baseline_gpus"].transform(lambda found: (found.fillna(MOST_GPUS + 1) > 1).any())
    return rows[several] if several.any() else rows


def within_limit(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose slots save GPUs within the limit of slowdown."""
    return rows[rows["gpus_within_limit"].fillna(MOST_GPUS + 1) < rows["baseline_gpus"].fillna(MOST_GPUS + 1)]


def headline(table: pd.DataFrame) -> str:
    """The figure's statement: how many models need fewer GPUs with slots, and what that costs."""
    rows = of_first_gpu(table)
    batch = rows["batch_size"].max()
    at = rows[rows["batch_size"] == batch]
    saved = at[at["gpus_saved"].fillna(0) > 0]
    useful = within_limit(at)
    told = (
        f"At a batch of {batch}, {len(saved)} of {len(at)} models that need several {at['gpu'].iloc[0]} fit on fewer "
        f"with expert slots"
    )
    if len(saved):
        told += f", at a median slowdown of {saved['slowdown_on_demand'].median():.0f} on demand"
    return f"{told}; {len(useful) or 'none'} within {rows['slowdown_limit'].max():g} times the time."


def findings(table: pd.DataFrame) -> str:
    """Say in Markdown what the table shows, GPU by GPU and batch by batch."""
    lines = [f"**{headline(table)}**", ""]
    for (gpu, batch), rows in table.groupby(["gpu", "batch_size"], sort=False):
        only = rows[rows["prophet_only"] != ""]
        useful = within_limit(rows)
        text = f"* {gpu}, batch {batch}: {len(only)} of {len(rows)} models fit on some number of GPUs only with slots"
        if len(only):
            most = only.loc[only["gpus_saved"].fillna(0).idxmax()]
            text += (
                f"; the largest difference is {most['model']}, {most['prophet_gpus']} instead of "
                f"{most['baseline_gpus']}, at {most['slowdown_on_demand']:.0f} times the time of a step"
            )
        limit = f"{rows['slowdown_limit'].max():g} times the time"
        lines.append(f"{text}. Within {limit}, slots save GPUs for {len(useful) or 'none'} of them.")
    return "\n".join(lines)


def draw(table: pd.DataFrame, layouts: pd.DataFrame, curves: list[str], style: Style) -> Figure:
    """Draw the fewest GPUs by model (left), and the context per GPU by layout of some models (right)."""
    rows = of_first_gpu(table)
    with styled(style):
        figure = new_figure(style.size_of(FIGURE), AROUND_ROWS_IN + ROW_IN * rows["model"].nunique())
        grid = figure.add_gridspec(len(curves), 2, width_ratios=(1.55, 1))
        _draw_fewest(figure.add_subplot(grid[:, 0]), rows, style)
        for number, model in enumerate(curves):
            ax = figure.add_subplot(grid[number, 1])
            _draw_contexts(ax, layouts[layouts["model"] == model], style)
            if number == len(curves) - 1:
                ax.set_xlabel(f"GPUs ({layouts['gpu'].iloc[0]})")
        _add_key(figure, style, rows)
        settle(figure)
    return figure


def _gpu_axis(ax: Axes, least: float = 0.8) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xlim(least, MOST_GPUS * 1.25)
    ax.xaxis.set_major_locator(FixedLocator([1, 2, 4, 8, 16, 32, 64]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.grid(axis="x")


def _draw_fewest(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    batches = list(dict.fromkeys(rows["batch_size"]))
    order = rows.groupby("model")["baseline_gpus"].max().fillna(MOST_GPUS + 1).sort_values(kind="stable").index
    offsets = np.linspace(-0.2, 0.2, len(batches)) if len(batches) > 1 else [0.0]
    for batch, offset in zip(batches, offsets, strict=True):
        at = rows[rows["batch_size"] == batch].set_index("model")
        for place, model in enumerate(order):
            _draw_row(ax, at.loc[model], place - offset, batches.index(batch), style)
    ax.set_yticks(range(len(order)), order)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-0.6, len(order) - 0.4)
    ax.set_xlabel(f"GPUs ({rows['gpu'].iloc[0]})")
    ax.set_title(f"Fewest GPUs that hold {rows['context'].max():,} tokens per sequence")
    _gpu_axis(ax, 0.62)  # room for a slowdown beside one GPU


def _draw_row(ax: Axes, row: pd.Series, y: float, number: int, style: Style) -> None:
    colours, marker = style.colours, MARKERS[number]
    baseline, prophet = row["baseline_gpus"], row["prophet_gpus"]
    if pd.isna(prophet):
        return
    end = MOST_GPUS * 1.25 if pd.isna(baseline) else baseline
    if end > prophet:
        ax.plot([prophet, end], [y, y], color=colours.prophet, alpha=0.28, linewidth=LINE_PT, solid_capstyle="butt")
        ax.plot(prophet, y, marker=marker, color=colours.prophet, linestyle="none", markersize=4)
        if not pd.isna(row["gpus_within_limit"]) and row["gpus_within_limit"] < end:
            ax.plot(row["gpus_within_limit"], y, color=colours.does_not_fit, **WITHIN)
        told = f"{row['slowdown_on_demand']:.0f}×"
        ax.annotate(
            told,
            (prophet, y),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=small_pt(style),
        )
    if not pd.isna(baseline):
        ax.plot(baseline, y, marker=marker, color=colours.baseline, linestyle="none", markersize=4)


def _draw_contexts(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    for number, (_, chosen) in enumerate(FAMILIES.items()):
        colour = style.colours.series[number % len(style.colours.series)]
        found = rows[chosen(rows)].drop_duplicates(["gpus"]).sort_values("gpus")
        held = found["baseline_context_per_gpu"].where(found["fit_state"] == "both")
        slots = found["prophet_context_per_gpu"].where(found["fit_state"] != "neither")
        ax.plot(found["gpus"], slots, color=colour, linestyle=(0, (3, 1.5)), linewidth=0.9)
        ax.plot(found["gpus"], held, color=colour)
        for values, state, face in ((held, "both", colour), (slots, "prophet_only", "white")):
            at = found["fit_state"] == state
            ax.plot(
                found["gpus"][at],
                values[at],
                linestyle="none",
                marker=MARKERS[2 + number],
                color=colour,
                markerfacecolor=face,
                markersize=4,
            )
    _gpu_axis(ax)
    ax.set_yscale("log")
    ax.grid(axis="y")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tokens(value)))
    ax.set_title(rows["model"].iloc[0])
    ax.set_ylabel("context per GPU (tokens)")


def _tokens(number: float) -> str:
    return f"{number / 1e6:g}M" if number >= 1e6 else f"{number / 1e3:g}k" if number >= 1e3 else f"{number:g}"


def _add_key(figure: Figure, style: Style, rows: pd.DataFrame) -> None:
    colours = style.colours
    batches = list(dict.fromkeys(rows["batch_size"]))
    left = {
        "every expert resident": Line2D([], [], marker="o", linestyle="none", color=colours.baseline, markersize=4),
        "expert slots, and the slowdown": Line2D(
            [], [], marker="o", linestyle="none", color=colours.prophet, markersize=4
        ),
        "only expert slots fit": Line2D([], [], color=colours.prophet, alpha=0.28, linewidth=LINE_PT),
    }
    middle = {
        f"batch {batch}": Line2D(
            [], [], color=colours.text, markerfacecolor="white", marker=MARKERS[number], linestyle="none", markersize=4
        )
        for number, batch in enumerate(batches)
    }
    limit = f"within {rows['slowdown_limit'].max():g}× the time"
    middle[limit] = Line2D([], [], color=colours.does_not_fit, **WITHIN)
    right = {
        title: Line2D([], [], color=colours.series[number], marker=MARKERS[2 + number], markersize=4)
        for number, title in enumerate(FAMILIES)
    }
    right["with expert slots"] = Line2D([], [], color=colours.text, linestyle=(0, (3, 1.5)), linewidth=0.9)
    look = {"marker": "o", "linestyle": "none", "markerfacecolor": "white", "markersize": 4}
    right["only expert slots fit "] = Line2D([], [], color=colours.text, **look)
    columns = [*left.items()], [*middle.items()], [*right.items()]
    # Every column of the key is of one subject: short ones are filled up with entries that show nothing.
    filled = [
        entry for column in columns for entry in column + [(" ", Line2D([], [], linestyle="none"))] * (-len(column) % 3)
    ]
    titles, handles = zip(*filled, strict=True)
    figure.legend(handles, titles, loc="outside lower center", ncols=len(filled) // 3, fontsize=small_pt(style))
