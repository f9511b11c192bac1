"""Expert savings against batch size by the number of experts, and the batch from which nothing is saved."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prophet_moe.present.style import legend_below, new_figure, settle, small_pt, styled
from prophet_moe.settings.scenario import Routing
from prophet_moe.settings.style import Style
from studies.memory_figures.study import SAVINGS_FIGURE

CLASSES = ((16, 3, "o"), (64, 2, "s"), (10**9, 0, "^"))
"""Largest expert count of a class, the number of its colour and its marker."""
GROUP = ["num_experts", "top_k"]


def curves(savings: pd.DataFrame) -> pd.DataFrame:
    """Return the mean savings (%) of the models of each expert count and top-k (index) by batch size (columns)."""
    return savings.pivot_table(index=GROUP, columns="batch_size", values="savings_pct")


def thresholds(saturation: pd.DataFrame) -> pd.DataFrame:
    """Return by expert count and top-k the saturating batch of the report's law, and the least and most of models."""
    groups = saturation.groupby(GROUP)
    law = groups["saturating_batch"]
    return pd.DataFrame(
        {
            "power_law": groups["power_law_batch"].first(),
            "least": law.min().astype("Float64").astype(float),
            "most": law.max().astype("Float64").astype(float),
        }
    )


def ratio(saturation: pd.DataFrame) -> pd.Series:
    """Return how many times later each model saturates than by the report's law; models that never do are left out."""
    later = saturation["saturating_batch"].astype("Float64").astype(float) / saturation["power_law_batch"]
    return later.set_axis(saturation["model"]).dropna()


def headline(saturation: pd.DataFrame) -> str:
    """The figure's statement: how much later all experts are needed than the report's law says."""
    later = ratio(saturation)
    return (
        f"All experts are needed from batches {later.min():.1f} to {later.max():.1f} times (median "
        f"{later.median():.1f}) as large as by the report's law"
    )


def findings(savings: pd.DataFrame, saturation: pd.DataFrame) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the tables."""
    found, cells = thresholds(saturation), curves(savings)
    lines = [headline(saturation) + "."]
    for (experts, top_k), row in found.iterrows():
        span = f"{row['least']:.0f}" if row["least"] == row["most"] else f"{row['least']:.0f} to {row['most']:.0f}"
        lines.append(f"E = {experts}, top-{top_k}: from {row['power_law']:.1f} by the report's law, from {span} here.")
    last = cells.columns[cells.columns <= 64][-1]
    left = cells[last][cells[last] >= 20]
    many = [f"E = {experts}, top-{top_k}: {value:.0f} %" for (experts, top_k), value in left.items()]
    lines.append(f"At B = {last}, at least 20 % are saved with {', '.join(many) if many else 'none'}.")
    return "\n".join(f"* {line}" for line in lines)


def draw(savings: pd.DataFrame, saturation: pd.DataFrame, style: Style) -> Figure:
    """Left: savings (y) against batch size (x, log2), a line per expert count and top-k. Right: saturating batches."""
    with styled(style):
        figure = new_figure(style.size_of(SAVINGS_FIGURE))
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _draw_thresholds(right, thresholds(saturation), style)
        _draw_curves(left, curves(savings), style)
        figure.suptitle(headline(saturation), x=0.01, ha="left", fontsize=style.font_size_pt)
        shape = {"color": style.colours.text, "linestyle": "", "markersize": 4.5}
        handles = {
            f"{least} to {most} experts": Line2D([], [], color=colour, marker=marker, markersize=3.2, linewidth=1)
            for (colour, marker), (least, most) in _classes(savings, style).items()
        } | {
            f"report's law, $(E/k)^{{1/{Routing().exponent:g}}}$": Line2D(
                [], [], marker="o", markerfacecolor="white", **shape
            ),
            "law of the scenario": Line2D([], [], marker="o", **shape),
        }
        legend_below(figure, handles, len(handles))
        settle(figure)
    return figure


def _closed_form() -> str:
    """What the saturating batch of the report's law is called."""
    return f"report's law, $(E/k)^{{1/{Routing().exponent:g}}}$"


def _colour(experts: int, style: Style) -> tuple[str, str]:
    """The colour and marker of an expert count's class."""
    number, marker = next((number, marker) for most, number, marker in CLASSES if experts <= most)
    return style.colours.series[number % len(style.colours.series)], marker


def _classes(savings: pd.DataFrame, style: Style) -> dict[tuple[str, str], tuple[int, int]]:
    """The fewest and the most experts of each class that there is, by its colour and marker."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for experts in sorted(savings["num_experts"].unique()):
        look = _colour(experts, style)
        found[look] = found.get(look, (experts, experts))[0], experts
    return found


def _draw_curves(ax: Axes, cells: pd.DataFrame, style: Style) -> None:
    for experts, top_k in cells.index:
        colour, marker = _colour(experts, style)
        values = cells.loc[(experts, top_k)]
        shown = values[: int((values.to_numpy() <= 0).argmax()) + 1] if (values <= 0).any() else values
        ax.plot(shown.index, shown, color=colour, marker=marker, markersize=3.2, linewidth=1, clip_on=False)
    ax.set_xscale("log", base=2)
    ax.set_xticks(cells.columns, [f"{batch}" for batch in cells.columns], fontsize=small_pt(style))
    ax.minorticks_off()
    ax.set_xlim(cells.columns[0], cells.columns[-1])
    ax.set_ylim(0, 100)
    ax.grid(axis="y")
    ax.set_xlabel("Batch size B")
    ax.set_ylabel("Experts of a layer not resident (%)")


def _draw_thresholds(ax: Axes, found: pd.DataFrame, style: Style) -> None:
    for place, ((experts, _), row) in enumerate(found.iterrows()):
        colour, _ = _colour(experts, style)
        ax.plot([row["power_law"], row["most"]], [place, place], color=colour, linewidth=1.2, zorder=2)
        for end in {row["least"], row["most"]}:
            ax.plot(end, place, "o", color=colour, markersize=4.5, zorder=3)
        ax.plot(row["power_law"], place, "o", color=colour, markerfacecolor="white", markersize=4.5, zorder=3)
    ax.set_xscale("log", base=2)
    ends = found.to_numpy(float)
    powers = np.arange(np.floor(np.log2(np.nanmin(ends))), np.ceil(np.log2(np.nanmax(ends))) + 1)
    ax.set_xticks(2**powers, [f"{2 ** int(power):,}" for power in powers], fontsize=small_pt(style))
    ax.minorticks_off()
    names = [f"E = {experts}, top-{top_k}" for experts, top_k in found.index]
    ax.set_yticks(range(len(found)), names, fontsize=small_pt(style))
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_xlabel("Batch from which all experts are needed")
