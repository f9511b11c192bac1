"""Figure 4: expert savings over models and batch sizes, on one GPU."""

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon

from prophet_moe.present.style import new_figure, settle, small_pt, styled, text_on, turn_crowded_ticks
from prophet_moe.settings.style import Style
from studies.kv_extension.study import FIGURE4

CORNER = {"marker": [(-1, 1), (1, 1), (1, -1), (-1, 1)], "markersize": 5, "markeredgewidth": 0, "linestyle": ""}
"""The legend's mark for a cell whose corner is filled."""

ROW_IN = 0.16
"""Least height of a row."""


def selection(record: pd.DataFrame, *, models: list[str], gpu: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Expert savings (%) and whether Prophet fits, both indexed (model, E, k) by batch size, few experts first."""
    rows = record[(record["gpu"] == gpu) & record["model"].isin(models)]
    values = ["expert_savings_pct", "prophet_fits"]
    index = ["model", "num_experts", "top_k"]
    cells = rows.pivot_table(index=index, columns="batch_size", values=values, aggfunc="first")
    savings, fits = cells["expert_savings_pct"], cells["prophet_fits"]
    # Among models of one expert count, a smaller k saves longer and so stands lower.
    order = sorted(savings.index, key=_few_experts_first)
    return savings.loc[order], fits.loc[order]


def _few_experts_first(row: tuple[str, int, int]) -> tuple[int, int, str]:
    model, experts, top_k = row
    return experts, -top_k, model


def findings(record: pd.DataFrame, *, models: list[str], gpu: str) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the record."""
    savings, fits = selection(record, models=models, gpu=gpu)
    first, last = savings.columns[0], savings.columns[-1]
    best, worst = savings[last].idxmax(), savings[last].idxmin()
    saturated = sorted(model for model, _, _ in savings.index[savings[last] < 1])
    lines = [
        f"Prophet saves {_span(savings[first])} of expert memory at B = {first}, {_span(savings[last])} at B = {last}.",
        f"At B = {last}, savings are largest for {_described(best)}: {savings.loc[best, last]:.0f} %. "
        f"They are smallest for {_described(worst)}: {savings.loc[worst, last]:.0f} %.",
        f"{fits.to_numpy(bool).sum()} of {fits.size} cells fit on one {gpu} with Prophet. In the other cells, Prophet "
        "saves memory, but not enough to serve the model from this GPU.",
    ]
    if saturated:
        lines.append(f"Savings are below 1 % at B = {last} for {', '.join(saturated)}.")
    return "\n".join(f"* {line}" for line in lines)


def _described(row: tuple[str, int, int]) -> str:
    model, experts, top_k = row
    return f"**{model}** ({experts} experts, top-{top_k})"


def _span(percentages: pd.Series) -> str:
    low, high = f"{percentages.min():.0f}", f"{percentages.max():.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def draw(record: pd.DataFrame, style: Style, *, models: list[str], gpu: str) -> Figure:
    """Heatmap of expert savings (%): models (rows, few experts on top) by batch size (columns), for one GPU."""
    savings, fits = selection(record, models=models, gpu=gpu)
    with styled(style):
        figure = new_figure(style.size_of(FIGURE4), 1 + ROW_IN * len(savings))
        ax = figure.subplots()
        seaborn.heatmap(
            savings.to_numpy(float),
            annot=True,
            fmt=".0f",
            annot_kws={"fontsize": style.font_size_pt - 0.5},
            cmap=style.heatmap,
            vmin=0,
            vmax=100,
            linewidths=1,
            linecolor="white",
            cbar_kws={"location": "top", "aspect": 40, "pad": 0.01, "ticks": [0, 25, 50, 75, 100]},
            xticklabels=savings.columns.tolist(),
            yticklabels=[f"{model}  ({experts}, {top_k})" for model, experts, top_k in savings.index],
            ax=ax,
        )
        cells = ax.collections[0]
        for text, colour in zip(ax.texts, cells.get_facecolors(), strict=True):
            text.set_color(text_on(style, colour))
        bar = cells.colorbar
        bar.set_label("Expert savings (%)")
        bar.outline.set_visible(False)
        ax.tick_params(length=0)
        ax.tick_params(axis="y", rotation=0)
        ax.set_xlabel("Batch size B")
        ax.annotate(
            "model (E, top-k)", (0, 1), (-3, 3), "axes fraction", "offset points", ha="right", fontsize=small_pt(style)
        )
        _mark_misfits(ax, fits, style)
        if not fits.to_numpy(bool).all():
            mark = Line2D([], [], color=style.colours.does_not_fit, **CORNER)
            note = f"does not fit on one {gpu}, even with Prophet"
            figure.legend([mark], [note], loc="outside lower center", handlelength=0.8)
        turn_crowded_ticks(figure, ax)
        settle(figure)
    return figure


def _mark_misfits(ax: Axes, fits: pd.DataFrame, style: Style) -> None:
    """Fill a corner of every cell in which the model does not fit, even with Prophet."""
    for row, column in np.argwhere(~fits.to_numpy(bool)):
        corner = [(column + 1, row), (column + 1, row + 0.42), (column + 0.66, row)]
        ax.add_patch(Polygon(corner, facecolor=style.colours.does_not_fit, edgecolor="white", linewidth=0.8))
