"""Figure 3: how the KV extension factor falls as the batch grows, on one GPU."""

import textwrap

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prophet_moe.present.style import new_figure, series_look, settle, small_pt, styled, turn_crowded_ticks
from prophet_moe.settings.style import Style
from studies.kv_extension.study import FIGURE3

NAME_SPACING = 1.25
"""Between the names of lines, in font sizes."""


def selection(record: pd.DataFrame, *, models: list[str], gpu: str) -> pd.DataFrame:
    """KV extension factor: batch sizes (rows, ascending) by models (columns, in order).

    NaN where the baseline does not fit.
    """
    rows = record[(record["gpu"] == gpu) & record["model"].isin(models)]
    factors = rows.assign(factor=rows["kv_extension_factor"].where(rows["baseline_fits"]))
    return factors.pivot_table(index="batch_size", columns="model", values="factor", dropna=False)[models]


def findings(record: pd.DataFrame, *, models: list[str], gpu: str) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the record."""
    factors = selection(record, models=models, gpu=gpu)
    lines = []
    for model in factors:
        drawn = factors[model].dropna()
        if drawn.empty:
            lines.append(f"**{model}**: the baseline does not fit on one {gpu}, so there is no factor and no line.")
            continue
        text = (
            f"**{model}**: {drawn.iloc[0]:.2f}× at B = {drawn.index[0]}, {drawn.iloc[-1]:.2f}× at B = {drawn.index[-1]}"
        )
        losing = drawn[drawn < 1]
        if len(losing):
            text += f". It is below 1 at B = {', '.join(map(str, losing.index))}, with a minimum of {losing.min():.4f}×"
        lines.append(f"{text}.")
    return "\n".join(f"* {line}" for line in lines)


def spread(wanted: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Move ascending positions as little as possible so that neighbours are `gap` apart, inside [low, high].

    Least squares under an ordering: neighbours that are too close form a block and share its mean.
    """
    blocks: list[tuple[float, int]] = []
    for index, position in enumerate(wanted):
        mean, count = position - index * gap, 1
        while blocks and blocks[-1][0] > mean:
            left, members = blocks.pop()
            mean, count = (mean * count + left * members) / (count + members), count + members
        blocks.append((mean, count))
    means = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    return np.clip(means, low, high - (len(wanted) - 1) * gap) + np.arange(len(wanted)) * gap


def draw(record: pd.DataFrame, style: Style, *, models: list[str], gpu: str) -> Figure:
    """KV extension factor (y) against batch size (x, log2), one line per model, for one GPU."""
    factors = selection(record, models=models, gpu=gpu)
    looks = {model: series_look(style, index) for index, model in enumerate(models)}
    size = style.size_of(FIGURE3)
    with styled(style):
        figure = new_figure(size, 1 + NAME_SPACING * style.font_size_pt / 72 * len(models))
        ax = figure.subplots()
        _draw_lines(ax, factors, looks)
        ax.axhline(1, color=style.colours.text, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
        ax.annotate(
            "no gain", (0, 1), (2, -2), ("axes fraction", "data"), "offset points", va="top", fontsize=small_pt(style)
        )
        ax.margins(y=0.12)
        ax.set_xscale("log", base=2)
        ax.set_xticks(factors.index, [str(batch) for batch in factors.index])
        ax.xaxis.minorticks_off()
        ax.grid(axis="y")
        ax.set_title(f"One {gpu}")
        ax.set_xlabel("Batch size B")
        ax.set_ylabel("KV extension factor, memory floor\n(max context, Prophet / baseline)")
        never = [model for model in models if factors[model].isna().all()]
        if never:
            note = f"No line, baseline does not fit: {', '.join(never)}"
            characters = int(size.width_in * 72 / (0.58 * small_pt(style)))
            figure.supxlabel(textwrap.fill(note, characters, break_on_hyphens=False), fontsize=small_pt(style))
        _label_lines(figure, ax, factors, looks, style)
        turn_crowded_ticks(figure, ax)
        settle(figure)
    return figure


def _draw_lines(ax: Axes, factors: pd.DataFrame, looks: dict[str, dict[str, str]]) -> None:
    long = factors.melt(ignore_index=False, value_name="factor").dropna().reset_index()
    if long.empty:
        return
    seaborn.lineplot(
        data=long,
        x="batch_size",
        y="factor",
        hue="model",
        style="model",
        palette={model: look["color"] for model, look in looks.items()},
        markers={model: look["marker"] for model, look in looks.items()},
        dashes=False,
        errorbar=None,
        legend=False,
        clip_on=False,
        ax=ax,
    )


def _label_lines(
    figure: Figure, ax: Axes, factors: pd.DataFrame, looks: dict[str, dict[str, str]], style: Style
) -> None:
    """Name each line next to its last point, with the names spread so that none overlap."""
    figure.draw_without_rendering()
    height_pt = ax.get_window_extent().height * 72 / figure.dpi
    gap = NAME_SPACING * style.font_size_pt / height_pt
    ends = factors.ffill().iloc[-1].dropna()
    # Where lines end together, their names keep the order in which the lines came.
    order = pd.DataFrame({"end": ends.round(2), "mean": factors.mean()}).dropna().sort_values(["end", "mean"]).index
    axes_fraction = ax.transAxes.inverted()
    wanted = np.array([axes_fraction.transform(ax.transData.transform((1, ends[model])))[1] for model in order])
    for model, place in zip(order, spread(wanted, gap, gap / 2, 1 - gap / 2), strict=True):
        ax.annotate(
            model,
            (factors[model].last_valid_index(), ends[model]),
            xytext=(1.09, place),
            textcoords="axes fraction",
            va="center",
            color=looks[model]["color"],
            arrowprops={
                "arrowstyle": "-",
                "color": looks[model]["color"],
                "linewidth": 0.5,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )
