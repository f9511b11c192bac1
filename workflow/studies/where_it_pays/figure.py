"""Where expert slots pay: the hit rate that a link needs, by its speed over that of the GPU's memory."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from prophet_moe.offload.break_even import misses_allowed
from prophet_moe.present.style import apart, legend_below, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.where_it_pays.study import FIGURE, SHIPPED

LEAST_RATIO, LARGEST_RATIO = 1.5e-3, 1.0
"""Ends of the horizontal axis."""
FEWEST_MISSES, MOST_MISSES = 5e-4, 0.62
"""Miss shares at the ends of the vertical axis."""
HIT_RATES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Hit rates with a tick."""
SPREAD = (0.1, 0.9)
"""Quantiles of the models that the bar of a machine spans."""
NAMED = ("DeepSeek-V3.2", "Qwen3-235B", "Qwen3-30B-A3B", "gpt-oss-120b")
"""Models whose points have names, on the fastest link."""
LINE_IN, TURN = 0.115, 40
"""Inches between the lines of labels, and degrees that the names of machines are turned."""
OVER_LINES = (1, 2, 5)
"""Numbers of the colours of the bands: on demand, with prefetch, never."""


class Mark(NamedTuple):
    """A machine: the models on it, by the hit rate that they need."""

    name: str
    ratio: float
    """Its link over its memory, for the model with the median expert."""
    hit_rate: float
    low: float
    high: float
    share: float
    """Share of the experts to keep, median over models."""
    prefetched: float
    """The same if a prefetch hid every copy."""


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that the figure shows: shipped formats, and machines whose experts come over a link."""
    return table[(table["format"] == SHIPPED) & ~table["unified_memory"].astype(bool)]


def marks(table: pd.DataFrame) -> list[Mark]:
    """Machines from slow links to fast ones."""
    found = []
    for (gpu, link), rows in shown(table).groupby(["gpu", "link"], sort=False):
        rate = rows["hit_rate_needed"]
        low, high = rate.quantile(SPREAD)
        machine = f"{_short(gpu)}, {link}"
        shares = (rows[name].median() for name in ("resident_share_needed", "resident_share_prefetched"))
        found.append(Mark(machine, rows["link_ratio"].median(), rate.median(), low, high, *shares))
    return sorted(found, key=lambda mark: mark.ratio)


def _short(gpu: str) -> str:
    """The name of a GPU without its memory."""
    return gpu.rsplit("-", 1)[0].replace("-", " ").replace("RTX", "RTX ")


def states(table: pd.DataFrame) -> pd.Series:
    """Pairs of model and machine by state."""
    return shown(table)["state"].value_counts()


def headline(table: pd.DataFrame, limit: float) -> str:
    """The figure's statement: what a usual link needs, what a fast one, and how often that fits."""
    found, by_state = shown(table), states(table)
    pcie = found[found["link"].str.startswith("PCIe") & (found["link_basis"] == "measured")]
    fast = found[found["link"] == "NVLink-C2C"]
    kinds = {"of the experts over PCIe": pcie, "over NVLink-C2C": fast}
    if not len(pcie) + len(fast):
        kinds = {"of the experts": found}
    spans = ", ".join(f"{_span(rows)} {name}" for name, rows in kinds.items() if len(rows))
    held = by_state.get("slots", 0)
    part = held + by_state.get("too_slow", 0)
    return (
        f"On demand within {limit:g}x, a GPU keeps {spans} (medians of models).\n"
        f"Of {part} pairs of model and machine with room for only a part of the experts, {held} have room for as many."
    )


def _span(rows: pd.DataFrame) -> str:
    """The least and the largest median share of a machine, in percent."""
    by_machine = 100 * rows.groupby("gpu")["resident_share_needed"].median()
    low, high = (f"{value:.0f}" for value in (by_machine.min(), by_machine.max()))
    return f"{low} %" if low == high else f"{low} to {high} %"


def findings(table: pd.DataFrame, claimed_slowdown: float) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the table."""
    found = shown(table)
    pcie = found[found["link"].str.startswith("PCIe") & (found["link_basis"] == "measured")]
    rates = 100 * pcie.groupby("gpu")["hit_rate_needed"].median()
    gain = found[found["state"] == "all_fit"]
    gain = (gain["slots_max_context"] / gain["baseline_max_context"]).astype(float)
    law = found[found["simulated_slowdown"].notna()]
    error = 100 * (law["closed_form_slowdown"] / law["simulated_slowdown"] - 1)
    formats = table[~table["unified_memory"].astype(bool)].groupby("format", sort=False)["resident_share_needed"]
    formats = ", ".join(f"{name} {100 * share:.0f} %" for name, share in formats.median().items())
    lines = [headline(table, claimed_slowdown).replace("\n", " ")]
    if len(rates):
        lines.append(
            f"Over PCIe the median model needs a hit rate of {rates.min():.1f} to {rates.max():.1f} %, by GPU."
        )
    by_machine = ", ".join(
        f"{mark.name} {100 * mark.share:.0f} % ({100 * mark.prefetched:.0f} %)" for mark in marks(table)
    )
    lines.append(f"Share of experts to keep on demand, and in brackets if a prefetch hid every copy: {by_machine}.")
    if len(gain):
        lines.append(
            f"Of all {len(found)} pairs of model and machine, {len(gain)} hold every expert beside the context. Slots "
            f"for the share needed then make the longest context {gain.median():.2f} times as long in the median, and "
            f"more than twice as long in {(gain > 2).sum()} of them."
        )
    lines.append(f"Share of experts to keep by format, median over models and machines: {formats}.")
    overhead = table[~table["unified_memory"].astype(bool)].copy()
    overhead["lost"] = 1 - overhead["link_ratio"] / overhead.groupby(["gpu", "bus"])["link_ratio"].transform("max")
    most = overhead.loc[overhead["lost"].idxmax()]
    lines.append(
        f"The size of an expert matters by the overhead of a copy: {most['expert_mb']:.2g} MB ({most['model']} in "
        f"{most['format']}) are copied {100 * most['lost']:.0f} % slower than the largest experts of the table."
    )
    if len(law):
        lines.append(
            f"The closed form is {error.min():.1f} to {error.max():.1f} % above the simulated slowdown ({len(law)} "
            "runs): it does not count copies beside experts that are computed."
        )
    return "\n".join(f"* {line}" for line in lines)


def draw(table: pd.DataFrame, style: Style, claimed_slowdown: float) -> Figure:
    """Hit rate needed (upwards) against link over memory (to the right): bands of a median model, bars of all."""
    with styled(style):
        figure = new_figure(style.size_of(FIGURE))
        ax = figure.subplots()
        _axes(ax)
        _bands(ax, float(shown(table)["expert_share"].median()), claimed_slowdown, style)
        found = marks(table)
        _machines(ax, found, style)
        figure.suptitle(headline(table, claimed_slowdown), x=0.01, ha="left", fontsize=style.font_size_pt)
        _key(figure, table, style)
        settle(figure)
        _words(ax, table, claimed_slowdown, style)
        _names(ax, shown(table), style)
    return figure


def _axes(ax: Axes) -> None:
    ax.set(xscale="log", yscale="log", xlim=(LEAST_RATIO, LARGEST_RATIO), ylim=(MOST_MISSES, FEWEST_MISSES))
    ax.yaxis.set_major_locator(FixedLocator([1 - rate for rate in HIT_RATES]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda misses, _: f"{100 * (1 - misses):g} %"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    ax.set_xlabel("Speed of the link over the speed of the GPU's memory")
    ax.set_ylabel("Hit rate needed")


def _band_colours(style: Style) -> list[str]:
    return [style.colours.series[number % len(style.colours.series)] for number in OVER_LINES]


def _bands(ax: Axes, share: float, limit: float, style: Style) -> None:
    """What the median model can do at each ratio: on demand, only with prefetch, not at all."""
    ratios = np.geomspace(LEAST_RATIO, LARGEST_RATIO, 200)
    demand, prefetched = (misses_allowed(limit, share, ratios, way) for way in ("on_demand", "prefetched"))
    edges = ((FEWEST_MISSES, demand), (demand, prefetched), (prefetched, MOST_MISSES))
    for (upper, lower), colour in zip(edges, _band_colours(style), strict=True):
        ax.fill_between(ratios, lower, upper, where=lower >= upper, color=colour, alpha=0.2, linewidth=0, zorder=0)


def _words(ax: Axes, table: pd.DataFrame, limit: float, style: Style) -> None:
    """What the bands and the line say, along them."""
    share = float(shown(table)["expert_share"].median())
    bold = {"fontweight": "bold", "fontsize": style.font_size_pt}
    ax.text(0.3, 1.6e-3, f"within {limit:g}x\non demand", ha="center", va="center", **bold)
    ax.text(2e-3, 0.25, "no prefetch\nis fast enough", va="center", **bold)
    middle = np.sqrt(limit * (limit - 1)) / share
    _along(ax, 1.75e-3, 1.35 * middle, "only if prefetch\nhides the copies", {"va": "center", **bold})
    ratios = np.array([LEAST_RATIO, LARGEST_RATIO])
    ax.plot(ratios, (limit - 1) * ratios, color=style.colours.text, linewidth=0.6, zorder=1, dashes=(4, 2))
    _along(ax, 0.26, limit - 1, "if experts were all of the step", {"va": "bottom", "fontsize": small_pt(style)})
    unified = table.loc[table["unified_memory"].astype(bool), "gpu"].unique()
    if len(unified):
        words = f"unified memory\n({_short(unified[0])}):\nno copies"
        ax.text(0.95 * LARGEST_RATIO, 0.93 * MOST_MISSES, words, ha="right", va="bottom", fontsize=small_pt(style))


def _along(ax: Axes, ratio: float, slope: float, words: str, look: dict) -> None:
    """Words from a ratio on along the line of misses = slope x ratio."""
    (x0, y0), (x1, y1) = ax.transData.transform([(ratio, slope * ratio), (2 * ratio, 2 * slope * ratio)])
    turn = np.degrees(np.arctan2(y1 - y0, x1 - x0))
    ax.text(ratio, slope * ratio, words, rotation=turn, rotation_mode="anchor", **look)


def _machines(ax: Axes, found: list[Mark], style: Style) -> None:
    """A bar for each machine, and its name above with the share of experts to keep; names stand apart."""
    ax.figure.draw_without_rendering()
    width = ax.get_window_extent().width / ax.figure.dpi
    at = [_across(mark.ratio) for mark in found]
    places = apart(at, LINE_IN / np.sin(np.radians(TURN)) / width)
    for mark, place, tick in zip(found, places, at, strict=True):
        ax.plot([mark.ratio] * 2, [1 - mark.low, 1 - mark.high], color=style.colours.prophet, linewidth=2.2, zorder=3)
        ax.plot(mark.ratio, 1 - mark.hit_rate, "o", color=style.colours.prophet, markersize=4.5, zorder=4)
        ax.plot([mark.ratio] * 2, [1 - mark.high, FEWEST_MISSES], color=style.colours.baseline, linewidth=0.4, zorder=1)
        line = {"arrowstyle": "-", "linewidth": 0.4, "color": style.colours.baseline, "shrinkA": 0, "shrinkB": 0}
        ends = {"xycoords": "axes fraction", "textcoords": "axes fraction"}
        ax.annotate("", (tick, 1), (place, 1.045), arrowprops=line, **ends)
        ax.text(
            place,
            1.05,
            f"{mark.name}: {100 * mark.share:.0f} %",
            transform=ax.transAxes,
            rotation=TURN,
            rotation_mode="anchor",
            fontsize=small_pt(style),
        )


def _across(ratio: float) -> float:
    """Where a ratio stands on the horizontal axis, from 0 to 1."""
    return float(np.log(ratio / LEAST_RATIO) / np.log(LARGEST_RATIO / LEAST_RATIO))


def _names(ax: Axes, found: pd.DataFrame, style: Style) -> None:
    """Points of some models on the fastest link, named, with the share of experts to keep."""
    fastest = found[found["link_ratio"] == found["link_ratio"].max()].iloc[0]
    on_it = (found["gpu"] == fastest["gpu"]) & (found["bus"] == fastest["bus"])
    rows = found[on_it & found["model"].isin(NAMED)].sort_values("hit_rate_needed")
    height = ax.get_position().height * ax.figure.get_figheight()
    across = _across(fastest["link_ratio"]) + 0.035
    wanted = [
        float(np.log(MOST_MISSES / (1 - rate)) / np.log(MOST_MISSES / FEWEST_MISSES))
        for rate in rows["hit_rate_needed"]
    ]
    places = apart([at - LINE_IN / height for at in wanted], LINE_IN / height)
    for row, at, place in zip(rows.itertuples(), wanted, places, strict=True):
        point = {"color": "white", "markeredgecolor": style.colours.text, "markersize": 3, "zorder": 5}
        ax.plot(row.link_ratio, 1 - row.hit_rate_needed, "o", **point)
        ax.annotate(
            f"{row.model}: {100 * row.resident_share_needed:.0f} %",
            (_across(row.link_ratio), at),
            (across, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=small_pt(style),
            arrowprops={
                "arrowstyle": "-",
                "linewidth": 0.4,
                "color": style.colours.text,
                "relpos": (0, 0.5),
                "shrinkA": 0,
                "shrinkB": 1.5,
            },
        )


def _key(figure: Figure, table: pd.DataFrame, style: Style) -> None:
    """The legend: bars, points and bands."""
    bar = Line2D([], [], color=style.colours.prophet, linewidth=2.2, marker="o", markersize=4.5)
    point = Line2D(
        [], [], linestyle="none", marker="o", color="white", markeredgecolor=style.colours.text, markersize=3
    )
    bands = tuple(Patch(facecolor=colour, alpha=0.3) for colour in _band_colours(style))
    share = 100 * shown(table)["expert_share"].median()
    handles = {
        "machine: 10 to 90 % of models, median; named: share of experts to keep": bar,
        "models on the fastest link": point,
        f"bands: experts take {share:.0f} % of the step (median)": bands,
    }
    legend_below(figure, handles, 2, fontsize=small_pt(style))
