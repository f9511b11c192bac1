"""Hits and slowdown as the cache grows and as the link gets faster: where prefetching begins to pay."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prophet_moe.present.comparison import BASE
from prophet_moe.present.figures.comparative_evaluation import name_of, strategy_look
from prophet_moe.present.select import where
from prophet_moe.present.style import new_figure, settle, small_pt, styled
from prophet_moe.settings import Style

BY_CAPACITY = ("on_demand", "static_popular", "intelligent", "prophet", "belady", "perfect_prefetch")
BY_LINK = ("on_demand", "pre_gated", "prophet", "perfect_prefetch")
"""Strategies in the order in which they are drawn."""
COLUMNS = [
    *("trace", "strategy", "role", "batch", "capacity_share", "capacity", "link_speedup", "sampled_share"),
    *(
        f"{name}{end}"
        for name in ("hit_rate", "slowdown", "step_ms_mean", "link_busy_share")
        for end in ("", "_low", "_high")
    ),
]
"""Of the table of sweeps, as `cachesim.experiments.sweep` makes them."""


def findings(sweeps: pd.DataFrame, *, traces: list[str], batch: int, claimed_slowdown: float) -> str:
    """Say in Markdown what the sweeps show; every number is computed from them."""
    return "\n".join(
        f"* **{trace}**, batch {batch}: {_of_trace(where(sweeps, trace=trace, batch=batch), claimed_slowdown)}"
        for trace in traces
    )


def _of_trace(sweeps: pd.DataFrame, claimed_slowdown: float) -> str:
    shares, links = by_capacity(sweeps), by_link(sweeps)
    share = _share_of_links(sweeps)
    text = f"with {100 * share:.0f} % of the experts on the GPU a step takes "
    reached = where(links, link_speedup=links["link_speedup"].min()).set_index("strategy")["slowdown"]
    text += ", ".join(f"{reached[name]:.1f} ({name_of(name)})" for name in BY_LINK if name in reached)
    text += " times as long as with all. At most the report's "
    told = []
    for name in ("prophet", "perfect_prefetch"):
        if name in set(sweeps["strategy"]):
            enough = _first(where(shares, strategy=name), "capacity_share", claimed_slowdown, "{:.1%} of the experts")
            fast = _first(where(links, strategy=name), "link_speedup", claimed_slowdown, "a link {:g}x as fast")
            told.append(f"{name_of(name)} needs {enough}, or {fast}")
    return f"{text}{claimed_slowdown:g}: {'; '.join(told)}. {_gains(links)}"


def _gains(links: pd.DataFrame) -> str:
    """How much faster than On-Demand strategies are on each link."""
    slowdown = links.pivot_table(index="link_speedup", columns="strategy", values="slowdown")
    told = []
    for name in ("prophet", "perfect_prefetch"):
        if name in slowdown:
            gain = slowdown[BASE] / slowdown[name]
            told.append(f"{name_of(name)} {', '.join(f'{gain[link]:.2f} at {link:g}x' for link in gain.index)}")
    return f"Speedup over On-Demand by the speed of the link: {'; '.join(told)}."


def _first(rows: pd.DataFrame, column: str, most: float, form: str) -> str:
    """The smallest value of `column` at which the mean slowdown is at most `most`, in words."""
    enough = rows.loc[rows["slowdown"] <= most, column]
    return form.format(enough.min()) if len(enough) else f"more than {form.format(rows[column].max())}"


def by_capacity(sweeps: pd.DataFrame) -> pd.DataFrame:
    """The rows on the GPU's own link."""
    return where(sweeps, link_speedup=1).sort_values("capacity_share")


def by_link(sweeps: pd.DataFrame) -> pd.DataFrame:
    """The rows at the capacity for which links were varied."""
    return where(sweeps, capacity_share=_share_of_links(sweeps)).sort_values("link_speedup")


def _share_of_links(sweeps: pd.DataFrame) -> float:
    """The capacity at which most links were tried."""
    return sweeps.groupby("capacity_share")["link_speedup"].nunique().idxmax()


def draw(sweeps: pd.DataFrame, style: Style, *, traces: list[str], batch: int, claimed_slowdown: float) -> Figure:
    """A column per trace; rows: hit rate and slowdown by capacity, slowdown by the speed of the link."""
    found = where(sweeps, batch=batch)
    with styled(style):
        figure = new_figure(style.figures.strategy_sweeps)
        panels = figure.subplots(3, len(traces), sharey="row", squeeze=False, height_ratios=[0.8, 1, 1])
        for column, trace in zip(panels.T, traces, strict=True):
            rows = where(found, trace=trace)
            _draw_lines(column[0], by_capacity(rows), BY_CAPACITY, "capacity_share", "hit_rate", style)
            _draw_lines(column[1], by_capacity(rows), BY_CAPACITY, "capacity_share", "slowdown", style)
            _draw_lines(column[2], by_link(rows), BY_LINK, "link_speedup", "slowdown", style)
            _label(column, rows, trace, claimed_slowdown, style)
        panels[0, 0].set_ylabel("Hit rate")
        panels[0, 0].set_ylim(0, 1.04)
        for ax in panels[1:, 0]:
            ax.set_ylabel(f"Slowdown at\nbatch size {batch}")
        figure.align_ylabels(panels[:, 0])
        present = [name for name in dict.fromkeys((*BY_CAPACITY, *BY_LINK)) if name in set(found["strategy"])]
        handles = [Line2D([], [], **_look(style, name)) for name in present]
        handles.append(Line2D([], [], **_reference(style)))
        labels = [*(name_of(name) for name in present), f"the report's {claimed_slowdown:g}"]
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(handles)))
        settle(figure)
    return figure


def _look(style: Style, name: str) -> dict[str, object]:
    """Bounds are dashed; On-Demand, which is drawn first, is wide, so that it shows below what equals it."""
    dashed = (0, (3, 1.5)) if name not in ("on_demand", "pre_gated", "intelligent", "prophet") else "solid"
    wide = {"linewidth": 2.8, "markersize": 4.5, "alpha": 0.5} if name == BASE else {"linewidth": 1, "markersize": 2.8}
    return strategy_look(style, name) | {"linestyle": dashed} | wide


def _reference(style: Style) -> dict[str, object]:
    return {"color": style.colours.text, "linestyle": (0, (1, 1.5)), "linewidth": 0.8}


def _draw_lines(ax: Axes, rows: pd.DataFrame, names: tuple[str, ...], x: str, y: str, style: Style) -> None:
    for name in names:
        line = where(rows, strategy=name)
        spread = [line[y] - line[f"{y}_low"], line[f"{y}_high"] - line[y]]
        ax.errorbar(line[x], line[y], yerr=spread, elinewidth=0.7, **_look(style, name))


def _label(column: list[Axes], rows: pd.DataFrame, trace: str, claimed_slowdown: float, style: Style) -> None:
    hits, slowdown, links = column
    hits.set_title(trace, fontsize=style.font_size_pt)
    for ax in (slowdown, links):
        ax.set_yscale("log")
        ax.axhline(1, color=style.colours.text, linewidth=0.6, zorder=1)
        ax.axhline(claimed_slowdown, zorder=1, **_reference(style))
        ticks = [1, 3, 10, 30]
        ax.set_yticks(ticks, [str(tick) for tick in ticks])
        ax.yaxis.minorticks_off()
    for ax in (hits, slowdown):
        ax.set_xlim(0, 1.04)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    hits.tick_params(labelbottom=False)
    slowdown.set_xlabel("Share of experts on the GPU", fontsize=small_pt(style))
    tried = sorted(by_link(rows)["link_speedup"].unique())
    links.set_xscale("log", base=2)
    links.set_xticks(tried, [f"{speed:g}x" for speed in tried])
    links.xaxis.minorticks_off()
    links.margins(x=0.1)
    kept = f"Link speed, {100 * _share_of_links(rows):g} % on the GPU"
    links.set_xlabel(kept, fontsize=small_pt(style))
    for ax in column:
        ax.grid(axis="both")
        ax.tick_params(labelsize=small_pt(style))
