"""The figure of a model's page: what a longer context costs in time, a line per GPU.

Where a baseline fits, it is the KV extension of Prophet within each limit of slowdown. Where none does, it is the
longest context of each simulated point at which Prophet fits.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from prophet_moe.capacity.limits import CONFIGURATION
from prophet_moe.present.frontier_lines import AXIS, LIMITS, fitting, selection, slowdown_axis
from prophet_moe.present.latex import COLUMN_IN
from prophet_moe.present.select import where
from prophet_moe.present.style import new_figure, series_look, settle, small_pt, styled
from prophet_moe.settings.style import Size, Style

SIZE = Size(width_in=COLUMN_IN, height_in=2.1)
"""Size of the figure in print, the width of a column."""
NAMED = (1, 1.2, 2, 5, 20, 50)
"""Slowdowns named on the axes, which are narrow."""
DASHES = ("solid", (0, (5, 1.5)), (0, (2, 1.2)), (0, (5, 1.2, 1, 1.2)))
"""Lines of GPUs, in order: colours alone do not tell lines apart that nearly coincide."""


def drawable(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points of Prophet that a model's figure shows, in their order; none where it has no figure.

    Those of the configurations whose baseline fits; where there are none, those at which Prophet alone fits, if they
    make a line for some configuration: single points are in the table of the page.
    """
    prophet = where(points, strategy="prophet")
    extended = fitting(prophet)
    if len(extended):
        return extended
    alone = prophet[prophet["max_context"] > 0]
    return alone if alone.duplicated(CONFIGURATION).any() else alone.iloc[:0]


def draw(points: pd.DataFrame, gpus: list[str], batch_size: int, style: Style) -> Figure:
    """Draw the panels of one model: its smallest batch size, and `batch_size`, or the largest if that has no points.

    `points` are those of `drawable`; `gpus` are all GPUs in order, which gives each its look.
    """
    batches = sorted(set(points["batch_size"]))
    shown = sorted({batches[0], batch_size if batch_size in batches else batches[-1]})
    extended = points["kv_extension_factor"].notna().all()
    here = [gpu for gpu in gpus if gpu in set(where(points[points["batch_size"].isin(shown)])["gpu"])]
    looks = {gpu: _look(style, gpus.index(gpu)) for gpu in here}
    with styled(style):
        figure = new_figure(SIZE)
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for ax, batch in zip(axes, shown, strict=True):
            rows = where(points, batch_size=batch)
            (_draw_extension if extended else _draw_context)(ax, rows, looks)
            ax.set_title(f"batch {batch}", fontsize=small_pt(style))
            ax.tick_params(labelsize=small_pt(style))
            ax.grid(axis="both")
        axes[0].set_ylabel("KV extension" if extended else "Context (tokens)")
        figure.supxlabel(AXIS if extended else "Slowdown (log of time lost)", fontsize=style.font_size_pt)
        handles = [Line2D([], [], label=gpu, **look) for gpu, look in looks.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
        settle(figure)
    return figure


def _look(style: Style, number: int) -> dict[str, object]:
    look = series_look(style, number)
    return look | {"linestyle": DASHES[number % len(DASHES)], "markersize": 3}


def _draw_extension(ax: Axes, points: pd.DataFrame, looks: dict[str, dict[str, object]]) -> None:
    """A line per GPU over the limits; its markers are at the limits that the axis names."""
    lines = selection(points, LIMITS).droplevel(["model", "batch_size", "strategy"])
    at = [int(np.abs(LIMITS - tick).argmin()) for tick in NAMED if tick <= LIMITS[-1]]
    for gpu, look in looks.items():
        if gpu in lines.index:
            ax.plot(LIMITS, lines.loc[gpu].to_numpy(float), markevery=at, **look)
    slowdown_axis(ax, ticks=NAMED)
    low, high = ax.get_ylim()
    ax.set_ylim(min(1, low), high + 0.03 * (high - low))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter("{x:g}x")


def _draw_context(ax: Axes, points: pd.DataFrame, looks: dict[str, dict[str, object]]) -> None:
    """A line per GPU through its simulated points."""
    for gpu, look in looks.items():
        mine = where(points, gpu=gpu).sort_values("slowdown")
        if len(mine):
            ax.plot(mine["slowdown"], mine["max_context"], **look)
    slowdown_axis(ax, last=1.3 * points["slowdown"].max(), ticks=NAMED)
    ax.set_ylim(0, 1.08 * points["max_context"].max())
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
