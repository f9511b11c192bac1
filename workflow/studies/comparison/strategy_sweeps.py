"""Speedup over On-Demand as the cache grows and as the link gets faster: when prefetching helps."""

from collections.abc import Callable, Sequence
from fractions import Fraction

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from prophet_moe.present.select import where
from prophet_moe.present.style import legend_in_rows, new_figure, settle, small_pt, strategy_look, styled
from prophet_moe.settings.style import Style
from studies.comparison.comparative_evaluation import name_of
from studies.comparison.compute import BASE
from studies.comparison.study import SWEEP_FIGURE

SHOWN = ("on_demand", "static_popular", "prophet", "belady", "perfect_prefetch")
"""Strategies in the order in which they are drawn, the same in every panel."""
TOLD = ("prophet", "static_popular", "perfect_prefetch")
"""Strategies that the text and the titles name."""
SPEEDUPS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8)
"""Speedups that may be named on an axis."""
COLUMNS = [
    *("trace", "strategy", "role", "batch", "capacity_share", "capacity", "link_speedup", "sampled_share"),
    *(
        f"{name}{end}"
        for name in ("hit_rate", "slowdown", "step_ms_mean", "link_busy_share")
        for end in ("", "_low", "_high")
    ),
]
"""Of the table of sweeps, as `offload.experiments.sweep` makes them."""


def selection(rows: pd.DataFrame, x: str) -> pd.DataFrame:
    """Speedup over On-Demand of the strategies shown: one row per trace, strategy and value of `x`.

    Columns: trace, strategy, x, slowdown, base (On-Demand's slowdown), speedup, low, high. The interval is that of the
    strategy's own slowdown, which is cut at 1, where nothing waits; On-Demand's is fixed at its mean.
    """
    base = where(rows, strategy=BASE).set_index(["trace", x])["slowdown"]
    found = rows[rows["strategy"].isin(SHOWN)].rename(columns={x: "x"}).sort_values("x", kind="stable")
    own = base.reindex(pd.MultiIndex.from_frame(found[["trace", "x"]])).to_numpy()
    return found[["trace", "strategy", "x", "slowdown"]].assign(
        base=own,
        speedup=own / found["slowdown"],
        low=own / found["slowdown_high"],
        high=own / found["slowdown_low"].clip(lower=1),
    )


def by_capacity(sweeps: pd.DataFrame) -> pd.DataFrame:
    """The rows on the GPU's own link."""
    return where(sweeps, link_speedup=1).sort_values("capacity_share")


def by_link(sweeps: pd.DataFrame) -> pd.DataFrame:
    """The rows at the capacity for which links were varied."""
    return where(sweeps, capacity_share=share_of_links(sweeps)).sort_values("link_speedup")


def share_of_links(sweeps: pd.DataFrame) -> float:
    """The capacity at which most links were tried."""
    return sweeps.groupby("capacity_share")["link_speedup"].nunique().idxmax()


def findings(sweeps: pd.DataFrame, *, traces: list[str], batch: int, claimed_slowdown: float) -> str:
    """Describe in Markdown what the sweeps show; every number is computed from them."""
    return "\n".join(
        f"* **{trace}**, batch {batch}: {_of_trace(where(sweeps, trace=trace, batch=batch), claimed_slowdown)}"
        for trace in traces
    )


def _of_trace(sweeps: pd.DataFrame, claimed_slowdown: float) -> str:
    shares, links = by_capacity(sweeps), by_link(sweeps)
    text = f"with slots for {100 * share_of_links(sweeps):.0f} % of the experts, the slowdown is "
    reached = where(links, link_speedup=links["link_speedup"].min()).set_index("strategy")["slowdown"]
    text += ", ".join(f"{reached[name]:.1f} ({name_of(name)})" for name in SHOWN if name in reached)
    text += f". For the report's slowdown of {claimed_slowdown:g}, "
    needs = []
    for name in ("prophet", "perfect_prefetch"):
        if name in set(sweeps["strategy"]):
            experts = needed(where(shares, strategy=name), "capacity_share", claimed_slowdown, "{:.4g} %", 100)
            link = needed(where(links, strategy=name), "link_speedup", claimed_slowdown, "{:g}x")
            needs.append(f"{name_of(name)} needs {experts} of the experts, or {link} the link")
    text += f"{'; '.join(needs)}."
    for what, rows, x in (("share of the experts", shares, "capacity_share"), ("link", links, "link_speedup")):
        text += f" Speedup over On-Demand by the {what}: {_spans(selection(rows, x))}."
    return text


def _spans(speedups: pd.DataFrame) -> str:
    """Describe the least and largest speedup of the strategies in TOLD, each with where it is."""
    told = []
    for name in TOLD:
        mine = where(speedups, strategy=name).set_index("x")["speedup"]
        if len(mine):
            ends = (f"{mine[at]:.2f} at {at:g}" for at in (mine.idxmin(), mine.idxmax()))
            told.append(f"{name_of(name)} {' to '.join(ends)}")
    return "; ".join(told)


def needed(rows: pd.DataFrame, column: str, most: float, form: str, unit: float = 1) -> str:
    """Between which two values tried of `column` the mean slowdown of a strategy comes down to `most`, in words.

    Beyond the values tried: "at most" the smallest, "more than" the largest. `form` prints a value times `unit`.
    """
    tried = sorted(rows[column].unique())
    enough = rows.loc[rows["slowdown"] <= most, column]
    if enough.empty:
        return f"more than {form.format(unit * tried[-1])}"
    at = tried.index(enough.min())
    least = form.format(unit * tried[at])
    return f"between {form.format(unit * tried[at - 1])} and {least}" if at else f"at most {least}"


def headline(speedups: pd.DataFrame) -> str:
    """How far from On-Demand strategies get over all panels of a row, in one line."""
    told = []
    for name in TOLD:
        mine = where(speedups, strategy=name)["speedup"]
        if len(mine):
            told.append(f"{name_of(name)} {mine.min():.2f} to {mine.max():.2f}x")
    return ", ".join(told)


def draw(sweeps: pd.DataFrame, style: Style, *, traces: list[str], batch: int) -> Figure:
    """A column per trace; rows: speedup over On-Demand by capacity, and by the speed of the link."""
    found = where(sweeps, batch=batch)
    found = found[found["trace"].isin(traces)]
    kept = f"{100 * share_of_links(found):g} % of the experts on the GPU"
    rows = (
        ("(a) Experts on the GPU", "Share of the experts on the GPU", by_capacity(found), "capacity_share"),
        ("(b) Link", f"Speed of the link, {kept}", by_link(found), "link_speedup"),
    )
    with styled(style):
        figure = new_figure(style.size_of(SWEEP_FIGURE))
        for part, (what, label, swept, x) in zip(figure.subfigures(2, 1), rows, strict=True):
            speedups = selection(swept, x)
            _draw_row(part, speedups, traces, _share_name if x == "capacity_share" else _link_name, style)
            part.suptitle(f"{what}: {headline(speedups)}", x=0.01, ha="left", fontsize=style.font_size_pt)
            part.supxlabel(f"{label} (in brackets: On-Demand's slowdown there)", fontsize=small_pt(style))
        _share_limits(figure.axes)
        figure.supylabel(f"Speedup over On-Demand, batch {batch}", fontsize=style.font_size_pt)
        present = [name for name in SHOWN if name in set(found["strategy"])]
        legend_in_rows(figure, {name_of(name): Line2D([], [], **_look(style, name)) for name in present}, len(present))
        settle(figure)
    return figure


def _look(style: Style, name: str) -> dict[str, object]:
    """Draw On-Demand, the reference, as a wide line without marks."""
    own = {"marker": "", "linewidth": 2.4, "alpha": 0.5} if name == BASE else {"markersize": 3.2, "linewidth": 1.1}
    return strategy_look(style, name) | own


def _share_name(share: float) -> str:
    """A share of the experts as a fraction, which is short."""
    return str(Fraction(share).limit_denominator(64))


def _link_name(speed: float) -> str:
    """A speed of the link, times the GPU's own."""
    return f"{speed:g}x"


def _draw_row(
    figure: SubFigure, speedups: pd.DataFrame, traces: list[str], named: Callable[[float], str], style: Style
) -> None:
    """A panel per trace with one vertical axis; below each value of x stands how slow On-Demand is there."""
    panels = figure.subplots(1, len(traces), sharey=True, squeeze=False)[0]
    tried = sorted(speedups["x"].unique())
    places = {value: place for place, value in enumerate(tried)}
    for ax, trace in zip(panels, traces, strict=True):
        mine = where(speedups, trace=trace)
        for name in SHOWN:
            line = where(mine, strategy=name)
            spread = [line["speedup"] - line["low"], line["high"] - line["speedup"]]
            bars = None if name == BASE else spread
            ax.errorbar(line["x"].map(places), line["speedup"], yerr=bars, elinewidth=0.6, **_look(style, name))
        slow = where(mine, strategy=BASE).set_index("x")["base"]
        ax.set_xticks(range(len(tried)), [f"{named(value)}\n({_brief(slow[value])})" for value in tried])
        ax.tick_params(labelsize=small_pt(style), axis="x")
        ax.margins(x=0.08)
        ax.grid(axis="y")
        ax.set_title(trace, fontsize=small_pt(style))


def _brief(slowdown: float) -> str:
    """A slowdown to two figures."""
    return f"{slowdown:.0f}" if slowdown >= 9.95 else f"{slowdown:.1f}"


def _share_limits(panels: Sequence[Axes]) -> None:
    """One logarithmic axis for all panels: twice as fast lies as far from 1 as half as fast."""
    limits = [ax.get_ylim() for ax in panels]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    named = [speedup for speedup in SPEEDUPS if low <= speedup <= high]
    for ax in panels:
        ax.set_yscale("log")
        ax.set_ylim(low, high)
        ax.set_yticks(named, [f"{speedup:g}x" for speedup in named])
        ax.yaxis.set_minor_locator(NullLocator())
