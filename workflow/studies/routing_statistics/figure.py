"""Statistics of routing traces: experts that a batch needs, structure of routing, and hit rates of caches."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prophet_moe.present.style import trace_panels
from prophet_moe.settings.style import Style
from studies.routing_statistics.study import FIGURE

EVIDENCE = {
    "consecutive_overlap": "shared with the token before",
    "next_layer_recall_k_naive_bayes": "found from the layer before",
}
"""Statistics that a shuffled trace would lose, and what they are called in the figure."""

MARKED_SHARES = (0.25, 0.5, 0.75)
"""Capacities at which a cache's curve carries its trace's marker."""

BATCH_8 = 8
HALF = 0.5


def over_layers(statistics: pd.DataFrame, statistic: str) -> pd.DataFrame:
    """Rows of one statistic, means over layers."""
    return statistics[(statistics["statistic"] == statistic) & statistics["layer"].isna()]


def value_of(statistics: pd.DataFrame, trace: str, statistic: str, x: float | None = None) -> pd.Series:
    """The row of one statistic of one trace, mean over layers; NaN where the trace has too few sequences for it."""
    rows = over_layers(statistics, statistic)
    rows = rows[(rows["trace"] == trace) & (True if x is None else rows["x"] == x)]
    return rows.iloc[0] if len(rows) else pd.Series(np.nan, rows.columns)


def findings(statistics: pd.DataFrame, *, traces: list[str]) -> str:
    """Describe in Markdown what the traces show; every number is computed from their statistics."""
    lines = []
    for trace in traces:
        size = {name: int(value_of(statistics, trace, name).value) for name in ("tokens", "experts", "top_k")}
        overlap = value_of(statistics, trace, "consecutive_overlap")
        recall = value_of(statistics, trace, "next_layer_recall_k_naive_bayes")
        distinct = value_of(statistics, trace, "distinct_experts_decode_step", BATCH_8)
        lru, best = (value_of(statistics, trace, name, HALF) for name in ("lru_hit_rate", "belady_hit_rate"))
        text = (
            f"**{trace}** ({size['tokens']:,} tokens, {size['experts']} experts, top-{size['top_k']}): "
            f"consecutive tokens share {overlap.value:.3f} of their experts (shuffled: {overlap.control:.3f}). "
            f"The layer before predicts {recall.value:.3f} of them (shuffled: {recall.control:.3f}). "
            f"{_said(distinct)}. "
            f"A cache of half the experts has a hit rate of {lru.value:.3f} with LRU, and of {best.value:.3f} at best"
        )
        informed = over_layers(statistics, "token_information_bits")
        for row in informed[informed["trace"] == trace].itertuples():
            text += f". A token has {row.value:.2f} bits of information on its expert (shuffled: {row.control:.2f})"
        lines.append(f"* {text}.")
    return "\n".join(lines)


def _said(distinct: pd.Series) -> str:
    """What a batch needs, where the trace has as many sequences."""
    if np.isnan(distinct.value):
        return f"The trace has fewer than {BATCH_8} sequences"
    needed = f"{distinct.value:.1f} distinct experts [{distinct.low:.1f}, {distinct.high:.1f}]"
    return f"{BATCH_8} sequences need {needed} (uniform: {distinct.uniform:.1f})"


def draw(statistics: pd.DataFrame, style: Style, *, traces: list[str]) -> Figure:
    """Three panels: u(B)/E against B; overlap and next-layer recall with their controls; hit rate against capacity."""
    panels = [(1, drawn, statistics) for drawn in (_draw_batches, _draw_evidence, _draw_cache)]
    return trace_panels(style, FIGURE, traces, panels)


def _draw_batches(ax: Axes, statistics: pd.DataFrame, looks: dict[str, dict[str, str]], style: Style) -> None:
    for trace, look in looks.items():
        experts = value_of(statistics, trace, "experts").value
        rows = over_layers(statistics, "distinct_experts_decode_step")
        rows = rows[rows["trace"] == trace]
        ax.plot(rows["x"], rows["value"] / experts, markersize=3.5, **look)
        ax.plot(rows["x"], rows["uniform"] / experts, color=look["color"], linestyle=(0, (1, 1.5)), linewidth=0.9)
        ax.fill_between(
            rows["x"], rows["low"] / experts, rows["high"] / experts, color=look["color"], alpha=0.2, linewidth=0
        )
    ax.set_xscale("log", base=2)
    ticks = sorted(set(over_layers(statistics, "distinct_experts_decode_step")["x"].astype(int)))
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.xaxis.minorticks_off()
    ax.set_ylim(0, 1.02)
    ax.grid(axis="y")
    ax.set_xlabel("Batch size B")
    ax.set_ylabel("Share of experts needed, u(B)/E")
    ax.set_title("Experts that a batch needs\n(dotted: uniform routing)", fontsize=style.font_size_pt)


def _draw_evidence(ax: Axes, statistics: pd.DataFrame, looks: dict[str, dict[str, str]], style: Style) -> None:
    """Measured (filled) and shuffled (hollow) values: a row per statistic's name, then one per trace."""
    place, above = 0, []
    for statistic, label in EVIDENCE.items():
        ax.annotate(label, (0, place), (0, 0), ("axes fraction", "data"), "offset points", va="center")
        for trace, look in looks.items():
            place += 1
            row = value_of(statistics, trace, statistic)
            ax.plot([row.control, row.value], [place, place], color=look["color"], linewidth=1, zorder=1)
            ax.plot(row.control, place, **look, markerfacecolor="white", markersize=4)
            ax.plot(row.value, place, **look, markersize=4.5)
            above += [] if np.isnan(row.value) else [row.value > row.control]
        place += 1.3
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_ylim(place - 0.8, -0.7)
    ax.set_xlim(0, 1)
    ax.grid(axis="x")
    ax.set_xlabel("Share of a token's experts")
    ax.set_title(
        f"{sum(above)} of {len(above)} are above those of the\nshuffled trace (hollow)", fontsize=style.font_size_pt
    )


def _draw_cache(ax: Axes, statistics: pd.DataFrame, looks: dict[str, dict[str, str]], style: Style) -> None:
    for trace, look in looks.items():
        for statistic, line in (("lru_hit_rate", "solid"), ("belady_hit_rate", (0, (4, 1.5)))):
            rows = over_layers(statistics, statistic)
            rows = rows[rows["trace"] == trace]
            marked = np.flatnonzero(rows["x"].isin(MARKED_SHARES)).tolist()
            ax.plot(
                100 * rows["x"], rows["value"], linestyle=line, linewidth=1, markersize=3.5, markevery=marked, **look
            )
    ax.set_xlim(0, 100)
    ax.set_ylim(0, 1.02)
    ax.set_xticks(np.arange(0, 101, 25))
    ax.grid(axis="both")
    ax.set_xlabel("Cache per layer (% of its experts)")
    ax.set_ylabel("Hit rate at batch 1")
    ax.set_title("What a cache per layer serves\n(LRU; dashed: the optimum)", fontsize=style.font_size_pt)
