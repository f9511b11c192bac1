"""Predicted against measured tokens per second, and the slowdown that planned splits pay at every context."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from prophet_moe.present.style import BACKING, MARKERS, legend_in_rows, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.planner.study import FIGURE, PLAN, RATE, RATE_FACTOR, SLOTS, SLOTS_PCT

KINDS = {
    "in_graph_gather": "gathered in the decode graph",
    "host_managed": "copied by the host",
    "storage": "read from storage",
}
"""Who brings a missing expert, with the words of the legend."""
MARKER_PT = 4.0
LEAST_SLOWDOWN, CLAIMED = 1.0, 1.2
"""Left end of the axis of slowdowns, and the slowdown that the report claims (000:778)."""


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of measured speeds, with the kind of their engine."""
    rows = table[table["part"] == RATE]
    return rows.assign(kind=rows["engine"].str.extract(r"\((\w+)\)$")[0])


def plans(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of plans."""
    return table[table["part"] == PLAN]


def headline(table: pd.DataFrame) -> str:
    """The figure's statement: how many speeds are predicted within the goal, and how many pairs in the right order."""
    found = rates(table)
    within, pairs, right = int(found["within_goal"].sum()), found["pairs"].sum() // 2, found["pairs_right"].sum() // 2
    return (
        f"{within} of {len(found)} measured speeds are predicted within a factor of {RATE_FACTOR:g}, "
        f"and {right} of {pairs} pairs in the right order."
    )


def findings(table: pd.DataFrame) -> str:
    """Say in Markdown what the table holds: the goals, and every row that misses one."""
    found, slots = rates(table), table[table["part"] == SLOTS]
    counted = int((~slots["note"].str.contains("one model on one card|two cards")).sum())
    without = int(found["left_out_within_goal"].sum())
    lines = [
        f"**{headline(table)}**",
        "",
        f"* Without what a row itself fixed, {without} of {len(found)} speeds are within that factor.",
        f"* {int(slots['within_goal'].sum())} of {len(slots)} numbers of slots are within "
        f"{SLOTS_PCT:g} %; {counted} of them follow from the bytes of an expert, "
        "the others from another row of their run.",
    ]
    for row in found[~found["within_goal"].astype(bool)].itertuples():
        hits = f"hit rate {row.hit_rate:.2f} predicted"
        if row.hit_rate_measured == row.hit_rate_measured:
            hits += f", {row.hit_rate_measured:.2f} measured"
        lines.append(
            f"* {row.id} ({row.engine}, {row.model}): {row.predicted:.3g} predicted, {row.measured:.3g} measured "
            f"({row.factor:.3g} times); {hits}."
        )
    for (model, gpu), of in plans(table).groupby(["model", "gpu"], sort=False):
        last = of.loc[of["context"].idxmax()]
        lines.append(
            f"* {model} on {gpu} at {last['context']:,} tokens: {last['resident_share_pct']:.0f} % of the experts have "
            f"a slot, a step takes {last['predicted']:.3g} times as long ({last['low']:.3g} to {last['high']:.3g})."
        )
    return "\n".join(lines)


def draw(table: pd.DataFrame, style: Style) -> Figure:
    """Draw speeds predicted against measured (left), and slowdown against context of the plans (right)."""
    with styled(style):
        figure = new_figure(style.size_of(FIGURE))
        left, right = figure.subplots(1, 2)
        key = _draw_rates(left, rates(table), style)
        _draw_plans(right, plans(table), style)
        legend_in_rows(figure, key, len(key))
        settle(figure)
    return figure


def _draw_rates(ax: Axes, rows: pd.DataFrame, style: Style) -> dict[str, Line2D]:
    values = pd.concat([rows["measured"], rows["predicted"]])
    ends = [values.min() / 1.7, values.max() * 1.7]
    ax.fill_between(
        ends,
        [end / RATE_FACTOR for end in ends],
        [end * RATE_FACTOR for end in ends],
        color=style.colours.grid,
        linewidth=0,
    )
    ax.plot(ends, ends, color=style.colours.baseline, linewidth=0.6)
    key = {}
    for number, (kind, title) in enumerate(KINDS.items()):
        of = rows[rows["kind"] == kind]
        if of.empty:
            continue
        colour = style.colours.series[number % len(style.colours.series)]
        look = {"color": colour, "marker": MARKERS[number], "linestyle": "none", "markersize": MARKER_PT}
        spread = [of["predicted"] - of["low"], of["high"] - of["predicted"]]
        ax.errorbar(of["measured"], of["predicted"], yerr=spread, elinewidth=0.6, alpha=0.9, **look)
        key[title] = Line2D([], [], **look)
    missed = rows[~rows["within_goal"].astype(bool)]
    named = missed.assign(name=missed["engine"].str.split().str[0])
    # Below a point that is too low, above one that is too high; the leftmost below, so that its neighbour has room.
    furthest = named.sort_values("measured").drop_duplicates("name")
    for number, row in enumerate(furthest.to_dict("records")):
        below = row["factor"] < 1 or number == 0
        ax.annotate(
            row["name"],
            (row["measured"], row["low"] if below else row["high"]),
            (0, -3 if below else 3),
            textcoords="offset points",
            ha="center",
            va="top" if below else "bottom",
            fontsize=small_pt(style),
            color=style.colours.text,
        )
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="measured (tok/s)", ylabel="predicted (tok/s)")
    ax.set_box_aspect(1)
    ax.set_title("Against what people measured")
    within, pairs, right = int(rows["within_goal"].sum()), rows["pairs"].sum() // 2, rows["pairs_right"].sum() // 2
    text = f"{within} of {len(rows)} within {RATE_FACTOR:g}x\n{right} of {pairs} pairs in order"
    ax.text(0.04, 0.96, text, transform=ax.transAxes, va="top", fontsize=small_pt(style), bbox=BACKING)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(numticks=5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    return key


def _draw_plans(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    ax.set_box_aspect(1)
    ax.set_title("What planned splits pay")
    names = []
    for place, ((model, gpu), of) in enumerate(rows.groupby(["model", "gpu"], sort=False)):
        first, last = of.loc[of["context"].idxmin()], of.loc[of["context"].idxmax()]
        colour = style.colours.text
        ax.plot([last["low"], last["high"]], [place, place], color=colour, linewidth=1.0)
        ax.plot(first["predicted"], place, marker="o", markersize=7, markerfacecolor="none", color=colour)
        ax.plot(last["predicted"], place, marker="o", markersize=MARKER_PT, color=colour)
        ax.annotate(
            f"{last['predicted']:.2g}",
            (last["predicted"], place),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=small_pt(style),
            color=colour,
            bbox=BACKING,
        )
        names.append(f"{model}\n{gpu}\n{last['resident_share_pct']:.0f} % in slots")
    ax.axvline(CLAIMED, color=style.colours.does_not_fit, linewidth=0.9, linestyle=(0, (4, 2)))
    ax.annotate(
        f"{CLAIMED:g}, claimed",
        (CLAIMED, len(names) - 0.5),
        (3, 3),
        textcoords="offset points",
        va="bottom",
        fontsize=small_pt(style),
        color=style.colours.does_not_fit,
    )
    ax.set(xscale="log", xlabel="slowdown (times all resident)", xlim=(LEAST_SLOWDOWN, rows["high"].max() * 1.2))
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_yticks(range(len(names)), names, fontsize=small_pt(style), linespacing=1.15)
    ax.tick_params(axis="y", length=0)
    ax.set_xticks(ticks := [1, 2, 5, 10, 20], [f"{tick}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
