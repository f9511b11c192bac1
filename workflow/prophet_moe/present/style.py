"""The looks that all figures share, made from settings.Style."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prophet_moe.settings import FigureStyle, Style

SMALLEST_PT = 6
"""No text is printed smaller."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "<", ">")
"""Markers tell series apart where colours cannot."""

BACKING = {"boxstyle": "square,pad=0.08", "facecolor": "white", "edgecolor": "none"}
"""Behind text that lines may cross. Not a path effect: that would turn the text of a PDF into outlines."""


def small_pt(style: Style) -> float:
    """Size of annotations, points: a little below the axis text."""
    return max(SMALLEST_PT, style.font_size_pt - 1.5)


def parameters(style: Style) -> dict[str, Any]:
    """Matplotlib's rcParams for `style`."""
    colours = style.colours
    return {
        "font.family": style.font,
        "font.size": style.font_size_pt,
        "axes.titlesize": style.font_size_pt,
        "axes.labelsize": style.font_size_pt,
        "xtick.labelsize": style.font_size_pt - 0.5,
        "ytick.labelsize": style.font_size_pt - 0.5,
        "legend.fontsize": style.font_size_pt - 0.5,
        "text.color": colours.text,
        "axes.labelcolor": colours.text,
        "axes.titlecolor": colours.text,
        "axes.edgecolor": colours.text,
        "xtick.color": colours.text,
        "ytick.color": colours.text,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "axes.titlepad": 5,
        "axes.labelpad": 3,
        "grid.color": colours.grid,
        "grid.linewidth": 0.5,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.pad": 2.5,
        "ytick.major.pad": 2.5,
        "lines.linewidth": style.line_width_pt,
        "lines.markersize": 4.5,
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "legend.handletextpad": 0.5,
        "legend.columnspacing": 1.6,
        # Thin pads: the figure's edge is where the paper's white space begins.
        "figure.constrained_layout.h_pad": 0.02,
        "figure.constrained_layout.w_pad": 0.02,
        "figure.dpi": style.png_dpi,
        "savefig.dpi": style.png_dpi,
        # TrueType, which publishers accept; Matplotlib's default, type 3, many refuse.
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
    }


@contextmanager
def styled(style: Style) -> Iterator[None]:
    """Draw or save under `style`, whatever the user's own matplotlibrc says."""
    with matplotlib.style.context(["default", parameters(style)]):
        yield


def new_figure(size: FigureStyle, least_height_in: float = 0) -> Figure:
    """An empty figure of its printed size; constrained layout keeps all text inside.

    `least_height_in` is what the rows of an unusually large selection need: then the figure grows downwards.
    """
    return Figure(figsize=(size.width_in, max(size.height_in, least_height_in)), layout="constrained")


def settle(figure: Figure) -> None:
    """Lay the figure out now and keep that layout: saving it lays nothing out again, and PDF and PNG agree."""
    figure.draw_without_rendering()
    # None: the placeholder that "none" leaves would have every figure drawn twice whenever it is saved.
    figure.set_layout_engine(None)


def turn_crowded_ticks(figure: Figure, ax: Axes) -> None:
    """Turn the x axis's labels upright where neighbours would touch."""
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    if any(left.padded(0.01 * figure.dpi).overlaps(right) for left, right in pairwise(boxes)):
        ax.tick_params(axis="x", rotation=90)


def series_look(style: Style, index: int) -> dict[str, str]:
    """Colour and marker of the series at `index`; both repeat, at different lengths, so that pairs stay distinct."""
    return {"color": style.colours.series[index % len(style.colours.series)], "marker": MARKERS[index % len(MARKERS)]}


def gigabytes(value: float) -> str:
    """Memory in GB for a label: about three digits, never an exponent."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
