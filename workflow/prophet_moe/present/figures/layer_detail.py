"""Where in a model an expert cache misses: hits, requests and stalls of every layer."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from prophet_moe.present.comparison import BASE
from prophet_moe.present.figures.comparative_evaluation import name_of
from prophet_moe.present.select import where
from prophet_moe.present.style import new_figure, settle, strategy_look, styled
from prophet_moe.settings import Style

QUANTITIES = {"hit_rate": "Hit rate", "stall_ms": "Stall (ms/step)"}
"""Columns in the order of the rows, and what they are called in the figure."""
DISTINCT = "belady"
"""A strategy that asks for each expert of a batch once."""
TICKS = {"nbins": 6, "steps": [1, 2, 2.5, 5, 10]}
"""Round numbers, at most so many intervals: as many as fit would depend on the layout, which depends on them."""
SHOWN = ("on_demand", "pre_gated", "prophet", "belady")
COLUMNS = [
    *("trace", "strategy", "role", "deduplicated", "batch", "layer", "sampled_share"),
    *(
        f"{name}{end}"
        for name in ("unique_experts", "hit_rate", "prefetched_share", "stall_ms", "wasted_prefetches")
        for end in ("", "_low", "_high")
    ),
]
"""Of the table of layers, as `cachesim.experiments.comparative_results` makes them."""


def findings(layers: pd.DataFrame, *, traces: list[str]) -> str:
    """Say in Markdown what the layers show; every number is computed from them."""
    return "\n".join(f"* **{trace}**: {_of_trace(where(layers, trace=trace))}" for trace in traces)


def _of_trace(layers: pd.DataFrame) -> str:
    told = []
    for batch in sorted({layers["batch"].min(), layers["batch"].max()}):
        rows = where(layers, batch=batch).set_index(["strategy", "layer"])
        shown = [name for name in SHOWN if name in rows.index.get_level_values("strategy")]
        hits = {name: rows["hit_rate"][name] for name in shown}
        spread = ", ".join(f"{name_of(name)} {hit.min():.2f} to {hit.max():.2f}" for name, hit in hits.items())
        stalls = ", ".join(f"{name_of(name)} {rows['stall_ms'][name].sum():.2f}" for name in shown)
        asked = rows["unique_experts"]
        text = (
            f"at batch {batch} On-Demand asks for {asked[BASE].mean():.1f} experts per layer and step, of which "
            f"{asked[DISTINCT].mean():.1f} are distinct; hit rates of the layers: {spread}; stalls of all layers in "
            f"ms: {stalls}"
        )
        if "prophet" in shown:
            fewer = int((rows["stall_ms_high"]["prophet"] < rows["stall_ms_low"][BASE]).sum())
            text += f"; Prophet stalls less than On-Demand in {fewer} of {len(hits[BASE])} layers (intervals apart)"
        told.append(text)
    return f"{'. '.join(told)}."


def draw(layers: pd.DataFrame, style: Style, *, traces: list[str]) -> Figure:
    """A row per quantity, a column per batch size with the experts asked for in its title; the first trace."""
    found = where(layers, trace=traces[0])
    batches = sorted(found["batch"].unique())
    shown = [name for name in SHOWN if name in set(found["strategy"])]
    with styled(style):
        figure = new_figure(style.figures.layer_detail)
        panels = figure.subplots(len(QUANTITIES), len(batches), sharex=True, squeeze=False)
        for column, batch in zip(panels.T, batches, strict=True):
            rows = where(found, batch=batch)
            for ax, name in zip(column, QUANTITIES, strict=True):
                for strategy in shown:
                    _draw_layers(ax, where(rows, strategy=strategy), name, strategy_look(style, strategy))
                ax.yaxis.set_major_locator(MaxNLocator(**TICKS))
                ax.grid(axis="y")
            column[0].set_title(_asked(rows, batch), fontsize=style.font_size_pt)
            column[0].set_ylim(*_limits(found))
            column[1].set_ylim(bottom=0)
            column[1].xaxis.set_major_locator(MaxNLocator(**TICKS, integer=True))
            column[1].set_xlabel(f"Layer of {traces[0]}")
        for ax, label in zip(panels[:, 0], QUANTITIES.values(), strict=True):
            ax.set_ylabel(label)
        figure.align_ylabels(panels[:, 0])
        handles = [Line2D([], [], markersize=3.5, linewidth=0.9, **strategy_look(style, name)) for name in shown]
        labels = [name_of(name) for name in shown]
        figure.legend(handles, labels, loc="outside lower center", ncols=len(shown))
        settle(figure)
    return figure


def _asked(rows: pd.DataFrame, batch: int) -> str:
    """Batch size, requests of a token-by-token strategy and distinct experts, means over layers."""
    asked = rows.groupby("strategy")["unique_experts"].mean()
    return f"Batch {batch}: {asked[BASE]:.0f} requests\nper layer, {asked[DISTINCT]:.1f} distinct experts"


def _limits(found: pd.DataFrame) -> tuple[float, float]:
    """The same for the hit rates of all batch sizes, of the strategies shown."""
    hits = found.loc[found["strategy"].isin(SHOWN), ["hit_rate", "hit_rate_low", "hit_rate_high"]]
    return max(0, hits.min(axis=None) - 0.03), min(1.02, hits.max(axis=None) + 0.03)


def _draw_layers(ax: Axes, rows: pd.DataFrame, name: str, look: dict[str, str]) -> None:
    spread = np.array([rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]])
    ax.errorbar(rows["layer"], rows[name], yerr=spread, markersize=3, linewidth=0.9, elinewidth=0.7, **look)
