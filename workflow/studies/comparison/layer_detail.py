"""Where in a model an expert cache misses: hits and stalls of every layer, and whether layers differ.

All strategies are deduplicated, so that they access the same experts and their hits and stalls can be compared.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from prophet_moe.present.select import where
from prophet_moe.present.style import legend_in_rows, new_figure, settle, small_pt, strategy_look, styled
from prophet_moe.settings.style import Style
from studies.comparison.comparative_evaluation import name_of
from studies.comparison.compute import BASE
from studies.comparison.study import LAYER_FIGURE

QUANTITIES = {"hit_rate": "Hit rate", "stall_ms": "Stall (ms/step)"}
"""Columns in the order of the rows, and what they are called in the figure."""
TICKS = {"nbins": 6, "steps": [1, 2, 2.5, 5, 10]}
"""Round numbers, at most so many intervals: as many as fit would depend on the layout, which depends on them."""
SHOWN = (BASE, "prophet", "belady")
ROOM = 1.08
"""Factor by which the axis of stalls continues beyond the largest, so that no mark is cut."""
COLUMNS = [
    *("trace", "strategy", "role", "deduplicated", "batch", "layer", "sampled_share"),
    *(
        f"{name}{end}"
        for name in ("unique_experts", "hit_rate", "prefetched_share", "stall_ms", "wasted_prefetches")
        for end in ("", "_low", "_high")
    ),
]
"""Of the table of layers, as `offload.experiments.comparative_results` makes them."""


def selection(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the deduplicated runs of the strategies shown: a batch makes one access to each expert."""
    return layers[layers["deduplicated"] & layers["strategy"].isin(SHOWN)]


def findings(layers: pd.DataFrame, *, traces: list[str]) -> str:
    """Describe in Markdown what the layers show; every number is computed from them."""
    found = selection(layers)
    return "\n".join(f"* **{trace}**: {_of_trace(where(found, trace=trace))}" for trace in traces)


def _of_trace(layers: pd.DataFrame) -> str:
    sentences = []
    for batch in sorted({layers["batch"].min(), layers["batch"].max()}):
        rows = where(layers, batch=batch).set_index(["strategy", "layer"])
        shown = [name for name in SHOWN if name in rows.index.get_level_values("strategy")]
        hits = {name: rows["hit_rate"][name] for name in shown}
        spread = ", ".join(f"{name_of(name)} {hit.min():.2f} to {hit.max():.2f}" for name, hit in hits.items())
        stalls = ", ".join(f"{name_of(name)} {rows['stall_ms'][name].sum():.2f}" for name in shown)
        text = (
            f"At batch size {batch}, a step needs {rows['unique_experts'][BASE].mean():.1f} distinct experts per "
            f"layer. Hit rates by layer: {spread}. Stalls of all layers in ms per step: {stalls}"
        )
        if "prophet" in shown:
            low, high = rows["stall_ms_low"], rows["stall_ms_high"]
            fewer, more = int((high["prophet"] < low[BASE]).sum()), int((low["prophet"] > high[BASE]).sum())
            text += (
                f". Prophet stalls less than On-Demand in {fewer} of {len(hits[BASE])} layers and more in {more} "
                "(layers whose intervals do not overlap)"
            )
        sentences.append(text)
    return f"{'. '.join(sentences)}."


def spans(layers: pd.DataFrame, *, traces: list[str], batch: int) -> pd.DataFrame:
    """How much On-Demand's hit rate differs between layers: one row per trace with layers, low, high and span."""
    rows, found = [], selection(layers)
    for trace in traces:
        hits = where(found, trace=trace, batch=batch, strategy=BASE)["hit_rate"]
        rows.append({"trace": trace, "layers": len(hits), "low": hits.min(), "high": hits.max()})
    table = pd.DataFrame(rows)
    return table.assign(span=table["high"] - table["low"])


def headline(layers: pd.DataFrame, *, traces: list[str], batch: int) -> str:
    """The figure's statement: where layers differ least and most in On-Demand's hit rate."""
    found = spans(layers, traces=traces, batch=batch).sort_values("span", kind="stable")
    told = [f"{row.span:.2f} ({row.trace})" for row in found.iloc[sorted({0, len(found) - 1})].itertuples()]
    return f"On-Demand's hit rate at batch {batch} differs between layers by {' to '.join(told)}"


def draw(layers: pd.DataFrame, style: Style, *, traces: list[str]) -> Figure:
    """A column per trace; rows: hit rate by layer in the smallest batch, stall by layer in the largest."""
    found = selection(layers)
    found = found[found["trace"].isin(traces)]
    small, large = found["batch"].min(), found["batch"].max()
    shown = [name for name in SHOWN if name in set(found["strategy"])]
    with styled(style):
        figure = new_figure(style.size_of(LAYER_FIGURE))
        panels = figure.subplots(2, len(traces), sharex="col", squeeze=False)
        for column, row in zip(panels.T, spans(found, traces=traces, batch=small).itertuples(), strict=True):
            mine = where(found, trace=row.trace)
            for ax, name, batch in zip(column, QUANTITIES, (small, large), strict=True):
                for strategy in shown:
                    _draw_layers(ax, where(mine, batch=batch, strategy=strategy), name, _look(style, strategy))
                ax.yaxis.set_major_locator(MaxNLocator(**TICKS))
                ax.tick_params(labelsize=small_pt(style))
                ax.grid(axis="y")
            column[0].set_title(
                f"{row.trace}:\n{row.layers} layers, {row.low:.2f} to {row.high:.2f}", fontsize=small_pt(style)
            )
            column[0].set_ylim(0, 1.02)
            column[1].set_ylim(0, ROOM * column[1].dataLim.ymax)
            column[1].xaxis.set_major_locator(MaxNLocator(**TICKS, integer=True))
            column[1].set_xlabel("Layer")
        for ax, label, batch in zip(panels[:, 0], QUANTITIES.values(), (small, large), strict=True):
            ax.set_ylabel(f"{label},\nbatch {batch}")
        figure.align_ylabels(panels[:, 0])
        figure.suptitle(headline(found, traces=traces, batch=small), x=0.01, ha="left", fontsize=style.font_size_pt)
        legend_in_rows(figure, {name_of(name): Line2D([], [], **_look(style, name)) for name in shown}, len(shown))
        settle(figure)
    return figure


def _look(style: Style, name: str) -> dict[str, object]:
    """On-Demand is wide and pale, so that it shows below what equals it."""
    own = {"marker": "", "linewidth": 2.6, "alpha": 0.5} if name == BASE else {"markersize": 2.8, "linewidth": 0.9}
    return strategy_look(style, name) | own


def _draw_layers(ax: Axes, rows: pd.DataFrame, name: str, look: dict[str, object]) -> None:
    spread = np.array([rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]])
    ax.errorbar(rows["layer"], rows[name], yerr=spread, elinewidth=0.7, **look)
