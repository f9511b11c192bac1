"""Which batches real arrivals make, and how full the cache is where Prophet would save experts."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from prophet_moe.present.style import BACKING, MARKERS, legend_in_rows, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.dynamic_batching.study import FIGURE

SHARES = (0.5, 1, 8)
"""Deployments that are drawn, by their instances over the fewest that keep up."""
TITLES = {
    "azure-conversation": "Azure, conversation",
    "azure-code": "Azure, code completion",
    "mooncake-conversation": "Mooncake, conversation",
}
"""Traces by the title of their panel."""
HEADROOM = 175
"""Upper end of the axis of shares, in %: above 100 are the labels."""
LEAST_USED = 0.02
"""Share of the pool, in %, at the left end of the axis: points below are left out, all of them with batches of one."""


def kind_of(rows: pd.DataFrame) -> str:
    """Return which arrivals are drawn: recorded ones where there are some."""
    kinds = set(rows["arrivals"])
    return "recorded" if "recorded" in kinds else "fitted"


def deployments(table: pd.DataFrame) -> Iterator[pd.Series]:
    """Yield the runs of one trace and model at SHARES of the fewest instances that keep up, where there are such."""
    able = table[table["keeps_up"]].sort_values("instances")
    if able.empty:
        yield table.sort_values("instances").iloc[-1]
        return
    enough = able["instances"].iloc[0]
    for wanted in sorted({min(share * enough, table["instances"].max()) for share in SHARES}):
        found = table[table["instances"] == wanted]
        if len(found):
            yield found.iloc[0]


def least_loaded(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that the figure shows: requests go to the least loaded instance."""
    return table[(table["dispatch"] == "least_loaded") & (table["arrivals"] == kind_of(table))]


def headline(table: pd.DataFrame) -> str:
    """The figure's statement: how full the cache is where much is saved, and what is saved where it is filled."""
    table = least_loaded(table)
    much, filled = table[table["savings_with_prompts_pct"] > 90], table[table["kv_mean_pct"] > 80]
    if much.empty:
        return "Nowhere would Prophet save over 90 % of the expert bytes."
    first = f"Where Prophet would save over 90 % of the expert bytes, at most {much['kv_mean_pct'].max():.2g} % of the "
    second = f"KV pool is in use, {much['kv_mean_pct'].median():.2g} % in the median"
    if filled.empty:
        return f"{first}{second}."
    least, most = filled["savings_with_prompts_pct"].min(), filled["savings_with_prompts_pct"].max()
    return f"{first}{second}; where it is over 80 % full, a step leaves out {least:.2g} to {most:.2g} % of them."


def findings(batches: pd.DataFrame, table: pd.DataFrame) -> str:
    """Say in Markdown what the figure shows: the statement, and the deployments of the model that is drawn."""
    lines = [f"**{headline(table)}**", ""]
    table = least_loaded(table)
    table = table[table["model"] == table["model"].iloc[0]]
    for trace, title in TITLES.items():
        for run in deployments(table[table["trace"] == trace]):
            lines.append(
                f"* {title}, {run['model']} on {_counted(run['instances'])}: half of the tokens are decoded at a batch "
                f"size of at most {run['batch_p50']:g}, 99 % at most {run['batch_p99']:g}. {run['kv_mean_pct']:.2g} % "
                f"of the KV pool is in use, {run['savings_with_prompts_pct']:.2g} % of the expert bytes are not needed."
            )
    return "\n".join(lines)


def _counted(instances: int) -> str:
    return f"{instances} GPU{'s' if instances > 1 else ''}"


def draw(batches: pd.DataFrame, table: pd.DataFrame, style: Style) -> Figure:
    """Draw the batches of each trace above, and savings against the use of the cache below."""
    batches, table = batches[batches["arrivals"] == kind_of(batches)], least_loaded(table)
    model, gpu = table[["model", "gpu"]].iloc[0]
    own, traces = table[table["model"] == model], [name for name in TITLES if name in set(table["trace"])]
    with styled(style):
        figure = new_figure(style.size_of(FIGURE))
        above, below = figure.subfigures(2, 1, height_ratios=[1.0, 1.2])
        panels = above.subplots(1, len(traces), sharey=True, squeeze=False)[0]
        for ax, trace in zip(panels, traces, strict=True):
            here = batches[(batches["model"] == model) & (batches["trace"] == trace)]
            _draw_batches(ax, here, list(deployments(own[own["trace"] == trace])), style)
            ax.set_title(TITLES[trace])
        panels[0].set_ylabel("decoded tokens (%)")
        above.supxlabel(f"batch size: sequences that decode together, {model} on {gpu}", fontsize=style.font_size_pt)
        _draw_use(below.subplots(), table, traces, style)
        legend_in_rows(below, _key(table, traces, style), 4)
        settle(figure)
    return figure


def _draw_batches(ax: Axes, rows: pd.DataFrame, runs: list[pd.Series], style: Style) -> None:
    names = [_class(*each) for each in rows[["batch_from", "batch_to"]].drop_duplicates().to_numpy()]
    last = max(index for index, each in enumerate(rows.groupby("batch_from")["tokens_pct"].max()) if each >= 0.05)
    places, top = range(len(names))[1 : last + 1], 1.0
    colours = [style.colours.does_not_fit, style.colours.text, style.colours.prophet]
    for run, colour in zip(runs, colours[-len(runs) :], strict=True):
        shares = rows[rows["instances"] == run["instances"]].sort_values("batch_from")["tokens_pct"].to_numpy()
        values = shares[1 : last + 1]
        ax.fill_between(places, values, step="mid", color=colour, alpha=0.18, linewidth=0)
        ax.step(places, values, where="mid", color=colour)
        late = "" if run["keeps_up"] else ", too slow"
        told = f"{_counted(run['instances'])}{late}: KV pool {_percent(run['kv_mean_pct'])} full"
        ax.text(
            *(0.99, top, told),
            transform=ax.transAxes,
            ha="right",
            va="top",
            fontsize=small_pt(style),
            color=colour,
        )
        top -= 0.13
    ax.set(ylim=(0, HEADROOM), xlim=(0.5, last + 0.5), yticks=(0, 50, 100))
    ax.set_xticks(list(places), [names[place] for place in places], rotation=45, ha="right", rotation_mode="anchor")


def _class(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}–{high}"


def _percent(value: float) -> str:
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def _draw_use(ax: Axes, table: pd.DataFrame, traces: list[str], style: Style) -> None:
    ax.set_xscale("log")
    for model, look in _looks(table, style).items():
        for trace in traces:
            rows = table[(table["model"] == model) & (table["trace"] == trace)].sort_values("kv_mean_pct")
            rows = rows[rows["kv_mean_pct"] >= LEAST_USED]
            xs, ys = rows["kv_mean_pct"], rows["savings_with_prompts_pct"]
            ax.plot(xs, ys, color=look, linewidth=0.5, alpha=0.6)
            marker = MARKERS[traces.index(trace)]
            for able, part in rows.groupby("keeps_up"):
                ax.plot(
                    *(part["kv_mean_pct"], part["savings_with_prompts_pct"]),
                    linestyle="none",
                    marker=marker,
                    color=look,
                    markerfacecolor=look if able else "white",
                    markersize=4,
                    markeredgewidth=0.8,
                )
    ax.set(xlim=(LEAST_USED, 130), ylim=(0, 102))
    ax.set_xlabel("KV pool in use (%, mean over time)")
    ax.set_ylabel("expert bytes that\na step leaves out (%)")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    told = {"transform": ax.transAxes, "fontsize": style.font_size_pt, "color": style.colours.text, "style": "italic"}
    ax.text(0.015, 0.07, "pool empty: much to leave out, and little that needs the room", **told)
    ax.text(0.995, 1.0, "pool full: less to leave out", ha="right", va="top", **told, bbox=BACKING)


def _looks(table: pd.DataFrame, style: Style) -> dict[str, str]:
    models = list(dict.fromkeys(table["model"]))
    return {model: style.colours.series[number % len(style.colours.series)] for number, model in enumerate(models)}


def _key(table: pd.DataFrame, traces: list[str], style: Style) -> dict[str, Line2D]:
    plain = {"linestyle": "none", "markersize": 4, "markeredgewidth": 0.8}
    gpus = dict(zip(table["model"], table["gpu"], strict=True))
    key = {
        f"{model}, {gpus[model]}": Line2D([], [], color=colour, linewidth=2)
        for model, colour in _looks(table, style).items()
    }
    grey = style.colours.text
    key["too slow"] = Line2D([], [], marker="o", color=grey, markerfacecolor="white", **plain)
    for number, trace in enumerate(traces):
        key[TITLES[trace]] = Line2D([], [], marker=MARKERS[number], color=grey, **plain)
    return key
