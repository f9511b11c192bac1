"""The looks that all figures share, made from settings.Style."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import lcm
from typing import Any
from zlib import crc32

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple

from prophet_moe.routing.store import PREFILL_TITLE
from prophet_moe.settings.style import Size, Style

Panel = Callable[[Axes, Any, dict[str, dict[str, str]], Style], None]
"""Draws data on axes, with the looks of traces by name."""

SMALLEST_PT = 6
"""No text is printed smaller."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "<", ">")
"""Markers tell series apart where colours cannot."""
STRATEGY_LOOKS = {
    "on_demand": (5, "s", "solid"),
    "prophet": (0, "o", "solid"),
    "static_popular": (2, "^", (0, (1, 1))),
    "belady": (1, "v", (0, (4, 1.2, 1, 1.2))),
    "perfect_prefetch": (3, "D", (0, (3, 1.5))),
}
"""Number of the colour, marker and line of the strategies that figures tell apart; no two share a colour or marker."""
OTHER_STRATEGY = (4, "P", "solid")
"""The same of all other strategies: figures draw one of them, or all as one group."""

BACKING = {"boxstyle": "square,pad=0.08", "facecolor": "white", "edgecolor": "none"}
"""Behind text that lines may cross. Not a path effect: that would turn the text of a PDF into outlines."""


def small_pt(style: Style) -> float:
    """Size of annotations, points: a little below the axis text."""
    return max(SMALLEST_PT, style.font_size_pt - 1.5)


def parameters(style: Style) -> dict[str, Any]:
    """Return Matplotlib's rcParams for a style."""
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


def new_figure(size: Size, least_height_in: float = 0) -> Figure:
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


LEGEND_COLUMNS = 4
"""Names of traces that stand beside each other in the width of a page."""


def legend_in_rows(figure: Figure, handles: dict[str, Artist], columns: int) -> None:
    """A legend below the figure, filled row by row as text is read; Matplotlib fills its columns first."""
    names = list(handles)
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    # Only the last row may be short, and then Matplotlib's last columns are.
    blanks = [None] * (rows * columns - len(names))
    grid = [(names + blanks)[row * columns : (row + 1) * columns] for row in range(rows)]
    ordered = [name for column in zip(*grid, strict=True) for name in column if name is not None]
    figure.legend([handles[name] for name in ordered], ordered, loc="outside lower center", ncols=columns)


def legend_below(figure: Figure, handles: Mapping[str, Any], columns: int, **looks: Any) -> None:
    """A legend below the figure, filled column by column; artists of a tuple stand beside each other."""
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=columns,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
        **looks,
    )


def trace_panels(
    style: Style, name: str, traces: Sequence[str], panels: Sequence[tuple[float, Panel, Any]], named_by: int = 0
) -> Figure:
    """Draw a figure of panels side by side, in which each trace has its look, and name the traces below them.

    Each of `panels` is its relative width, the function that draws it, and the data that it draws. The panel
    `named_by` draws two lines for each trace before all others; the legend shows the first of both.
    """
    looks = {trace: trace_look(style, trace) for trace in traces}
    with styled(style):
        figure = new_figure(style.size_of(name))
        axes = figure.subplots(1, len(panels), width_ratios=[width for width, _, _ in panels])
        for ax, (_, drawn, data) in zip(axes, panels, strict=True):
            drawn(ax, data, looks, style)
        lines = axes[named_by].lines
        legend_in_rows(figure, {trace: lines[2 * number] for number, trace in enumerate(traces)}, LEGEND_COLUMNS)
        settle(figure)
    return figure


def luminance(colour: Any) -> float:
    """Relative luminance of a Matplotlib colour, from 0 (black) to 1 (white), as WCAG 2 defines it."""
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def contrast(one: Any, other: Any) -> float:
    """Contrast ratio of two Matplotlib colours, from 1 (alike) to 21 (black and white), as WCAG 2 defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def text_on(style: Style, background: Any) -> str:
    """The colour of text on a coloured ground: the text's own or white, whichever stands out more."""
    return max((style.colours.text, "white"), key=lambda colour: contrast(colour, background))


def series_look(style: Style, index: int) -> dict[str, str]:
    """Colour and marker of the series at `index`; both repeat, at different lengths, so that pairs stay distinct."""
    return {"color": style.colours.series[index % len(style.colours.series)], "marker": MARKERS[index % len(MARKERS)]}


def trace_look(style: Style, trace: str) -> dict[str, str]:
    """Colour and marker of a routing trace, the same in every figure, whichever others are drawn beside it.

    The place in `style.traces` decides. A trace that is not in that list draws its place, beyond the list's, by a
    checksum of its name: adding one changes the look of no other.
    """
    known, trace = style.traces, trace.removesuffix(PREFILL_TITLE)
    if trace in known:
        return series_look(style, known.index(trace))
    free = max(1, lcm(len(MARKERS), len(style.colours.series)) - len(known))
    return series_look(style, len(known) + crc32(trace.encode()) % free)


def strategy_look(style: Style, strategy: str) -> dict[str, Any]:
    """Colour, marker and line of a caching strategy, the same in every figure; those without their own look alike."""
    number, marker, line = STRATEGY_LOOKS.get(strategy, OTHER_STRATEGY)
    return {"color": style.colours.series[number % len(style.colours.series)], "marker": marker, "linestyle": line}


def apart(wanted: list[float], least: float) -> list[float]:
    """Places as near to the `wanted` ones, in the same order, as labels that are `least` high allow: none overlap.

    Labels that would touch form a group around the mean of what they want (pool adjacent violators).
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    groups: list[list[int]] = []

    def start(group: list[int]) -> float:
        return sum(wanted[one] for one in group) / len(group) - least * (len(group) - 1) / 2

    for one in order:
        groups.append([one])
        while len(groups) > 1 and start(groups[-2]) + least * len(groups[-2]) > start(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    places = [0.0] * len(wanted)
    for group in groups:
        for number, one in enumerate(group):
            places[one] = start(group) + least * number
    return places


def gigabytes(value: float) -> str:
    """Memory in GB for a label: about three digits, never an exponent."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
