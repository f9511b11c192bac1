"""Predicted against measured: weights, tokens of KV cache, times of a step and hit rates that others published."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullFormatter

from prophet_moe.present.style import BACKING, MARKERS, legend_in_rows, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.observed.study import FIGURE

ENGINES = {
    "vLLM": ("vllm",),
    "SGLang": ("sglang",),
    "TensorRT-LLM": ("trtllm", "TensorRT-LLM"),
    "llama.cpp and forks": ("llama.cpp", "ik_llama.cpp", "club-3090 llama.cpp", "Crow (llama.cpp, SSD streaming)"),
    "imp": ("imp",),
    "others": (),
}
"""Engines by their title, each with a colour and a marker of its own; `others` are all that are not named."""
HOLLOW, FILLED = "a constant was fitted to it or checked by it", "held out"
MARKER_PT = 3.6


@dataclass(frozen=True)
class Panel:
    """One panel: what it compares, how it is named, and within which error a prediction counts as right."""

    title: str
    unit: str
    quantities: dict[str, str]
    """What is drawn, and how the printed errors name it where there are several."""
    band: float
    """Half of the band as a share of what was measured; of a rate, in units of the axis."""
    linear: bool = False

    @property
    def band_text(self) -> str:
        """Return the band in words, in units of the error."""
        return f"±{100 * self.band:g} {'points' if self.linear else '%'}"


PANELS = (
    Panel("Weights", "GiB per GPU", {"weights": ""}, 0.001),
    Panel("KV cache", "tokens", {"kv_tokens_given_pool": "pool known", "kv_tokens": "all predicted"}, 0.03),
    Panel("Decode step", "ms", {"step_time": ""}, 0.20),
    Panel("Expert cache", "hit rate", {"hit_rate": ""}, 0.05, linear=True),
)


def engine_of(name: str) -> str:
    """Return the title in ENGINES of an engine; a fork of llama.cpp is one of its."""
    found = next((title for title, names in ENGINES.items() if name in names), None)
    return found or ("llama.cpp and forks" if "llama.cpp" in name else "others")


def drawn(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that the figure shows: clean predictions of the panels' quantities, with their engine's title."""
    shown = [quantity for panel in PANELS for quantity in panel.quantities]
    rows = rows[rows["clean"] & rows["predicted"].notna() & rows["quantity"].isin(shown)]
    return rows.assign(title=rows["engine"].map(engine_of))


def errors_of(panel: Panel, rows: pd.DataFrame) -> list[str]:
    """Return the number of points and their median error, two lines for each quantity of a panel."""
    lines = []
    for quantity, name in panel.quantities.items():
        found = rows[rows["quantity"] == quantity]
        if len(found):
            median = f"{found['error'].abs().median():.2g} {found['error_unit'].iloc[0]}"
            held_out = "" if found["held_out"].all() else f"{int(found['held_out'].sum())} held out"
            lines += [f"n = {len(found)}, {name or held_out}".rstrip(", "), f"median {median}"]
    return lines


def headline(rows: pd.DataFrame) -> str:
    """The figure's statement: how near predictions are in the median."""
    rows = drawn(rows)
    medians = {name: rows.loc[rows["quantity"] == name, "error"].abs().median() for name in rows["quantity"].unique()}
    known = {
        "weights": "weights {:.2g} %",
        "kv_tokens": "tokens of KV cache {:.2g} %",
        "step_time": "the time of a decode step {:.2g} %",
        "hit_rate": "hit rates {:.2g} points",
    }
    told = [text.format(medians[name]) for name, text in known.items() if name in medians]
    return f"Median errors over {rows['id'].nunique()} public observations: {', '.join(told)}."


def findings(rows: pd.DataFrame) -> str:
    """Say in Markdown what the figure shows: the median, and the row that is furthest off in each panel."""
    lines = [f"**{headline(rows)}**", ""]
    shown = drawn(rows)
    for panel in PANELS:
        for quantity in panel.quantities:
            found = shown[shown["quantity"] == quantity]
            if found.empty:
                continue
            worst = found.loc[found["error"].abs().idxmax()]
            far = f"{worst['error']:+.3g} {worst['error_unit']}"
            lines.append(
                f"* `{quantity}`: {len(found)} rows, {int(found['held_out'].sum())} of them held out. The worst is "
                f"{worst['id']} ({worst['engine']}, {worst['model']}), {far}."
            )
    return "\n".join(lines)


def draw(rows: pd.DataFrame, style: Style) -> Figure:
    """Draw predicted against measured, one panel for each quantity."""
    rows = drawn(rows)
    with styled(style):
        figure = new_figure(style.size_of(FIGURE))
        for panel, ax in zip(PANELS, figure.subplots(1, len(PANELS)), strict=True):
            _draw_panel(ax, panel, rows[rows["quantity"].isin(panel.quantities)], style)
        figure.axes[0].set_ylabel("predicted")
        legend_in_rows(figure, _key(rows, style), 4)
        settle(figure)
    return figure


def _look(title: str, style: Style) -> dict[str, object]:
    number = list(ENGINES).index(title)
    return {"color": style.colours.series[number % len(style.colours.series)], "marker": MARKERS[number]}


def _draw_panel(ax: Axes, panel: Panel, rows: pd.DataFrame, style: Style) -> None:
    ax.set_box_aspect(1)
    ax.set_title(panel.title)
    ax.set_xlabel(f"measured ({panel.unit})" if not panel.linear else f"measured {panel.unit}")
    values = pd.concat([rows["measured"], rows["predicted"]])
    low, high = (-0.04, 1.04) if panel.linear else (values.min() / 1.6, values.max() * 1.6)
    if panel.linear:
        ends, lower, upper = [low, high], [low - panel.band, high - panel.band], [low + panel.band, high + panel.band]
    else:
        ax.set_xscale("log")
        ax.set_yscale("log")
        ends = [low, high]
        lower, upper = ([end * (1 + sign * panel.band) for end in ends] for sign in (-1, 1))
    ax.fill_between(ends, lower, upper, color=style.colours.grid, linewidth=0)
    ax.plot(ends, ends, color=style.colours.baseline, linewidth=0.6)
    for title, of_engine in rows.groupby("title"):
        look = _look(title, style)
        for held_out, part in of_engine.groupby("held_out"):
            face = look["color"] if held_out else "white"
            ax.plot(
                *(part["measured"], part["predicted"]),
                linestyle="none",
                **look,
                markersize=MARKER_PT,
                markerfacecolor=face,
                markeredgewidth=0.7,
                alpha=0.85,
            )
    ax.set(xlim=(low, high), ylim=(low, high))
    _tick(ax, panel)
    told = {"fontsize": small_pt(style), "color": style.colours.text, "linespacing": 1.15}
    lines = errors_of(panel, rows)
    ax.text(0.04, 0.97, "\n".join(lines[:2]), transform=ax.transAxes, va="top", **told, bbox=BACKING)
    below = "\n".join([*lines[2:], f"band {panel.band_text}"])
    ax.text(0.97, 0.04, below, transform=ax.transAxes, ha="right", **told, bbox=BACKING)


def _tick(ax: Axes, panel: Panel) -> None:
    for axis in (ax.xaxis, ax.yaxis):
        if panel.linear:
            axis.set_major_locator(MultipleLocator(0.5))
            axis.set_minor_locator(MultipleLocator(0.1))
        else:
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1, 3) if high / low < 100 else (1,), numticks=4))
            axis.set_major_formatter(FuncFormatter(_short))
        axis.set_minor_formatter(NullFormatter())


def _short(value: float, _: object) -> str:
    """Return a tick of a logarithmic axis: 100, 10k, 1M."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _key(rows: pd.DataFrame, style: Style) -> dict[str, Line2D]:
    plain = {"linestyle": "none", "markersize": MARKER_PT, "markeredgewidth": 0.7}
    key = {
        title: Line2D([], [], **plain, **_look(title, style), markerfacecolor=_look(title, style)["color"])
        for title in ENGINES
        if title in set(rows["title"])
    }
    grey = {"marker": "o", "color": style.colours.text}
    key[FILLED] = Line2D([], [], **plain, **grey, markerfacecolor=style.colours.text)
    if not rows["held_out"].all():
        key[HOLLOW] = Line2D([], [], **plain, **grey, markerfacecolor="white")
    return key
