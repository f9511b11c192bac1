"""The longest context by batch size and GPU, with all experts resident and with Prophet, on one colour scale."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from prophet_moe.present.style import new_figure, settle, small_pt, styled, text_on
from prophet_moe.settings.style import Style
from studies.memory_figures.study import MAPS_FIGURE

SIDES = {"baseline": "All experts resident", "prophet": "Prophet's experts resident"}


def longest(record: pd.DataFrame, model: str) -> dict[str, pd.DataFrame]:
    """Return the longest context of each side by GPU (rows, small memories first) and batch size; 0: does not fit."""
    rows = record[record["model"] == model].sort_values("gpu_memory_gb", kind="stable")
    return {
        side: rows.pivot_table(index="gpu", columns="batch_size", values=f"{side}_max_context", sort=False).astype(
            float
        )
        for side in SIDES
    }


def tokens(number: float) -> str:
    """A number of tokens in at most four characters: 860, 4.2k, 42k, 1.05M."""
    if number < 1000:
        return f"{number:.0f}"
    if number < 1e6:
        return f"{number / 1000:.1f}k" if number < 9950 else f"{number / 1000:.0f}k"
    return f"{number / 1e6:.3g}M"


def headline(record: pd.DataFrame, model: str) -> str:
    """The figure's statement: how many cells fit on either side, and the extension where both do."""
    cells = longest(record, model)
    fits = {side: int((found > 0).to_numpy().sum()) for side, found in cells.items()}
    both = (cells["prophet"] / cells["baseline"].where(cells["baseline"] > 0)).to_numpy()
    both = both[~np.isnan(both)]
    told = f"{model}: {fits['baseline']} of {cells['prophet'].size} cells fit with all experts, {fits['prophet']} with"
    told += " Prophet's"
    return told + (f"; where both fit, {both.min():.2f} to {both.max():.2f} times the context" if len(both) else "")


def findings(record: pd.DataFrame, model: str) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the record."""
    cells = longest(record, model)
    lines = [headline(record, model) + "."]
    anywhere = {side: (found > 0).any(axis=1) for side, found in cells.items()}
    only = list(anywhere["prophet"].index[anywhere["prophet"] & ~anywhere["baseline"]])
    if only:
        lines.append(f"Only Prophet fits on {', '.join(only)}.")
    native = record.loc[record["model"] == model, "seq_len"].iloc[0]
    beyond = int((cells["baseline"] >= native).to_numpy().sum())
    lines.append(
        f"{beyond} of {cells['baseline'].size} cells hold the native context of {native:,} tokens with all experts: "
        "there, a longer one is of no use to the model."
    )
    return "\n".join(f"* {line}" for line in lines)


def draw(record: pd.DataFrame, style: Style, model: str) -> Figure:
    """Two heatmaps beside each other: GPUs (rows) by batch size (columns), coloured by the longest context."""
    cells = longest(record, model)
    known = [value for found in cells.values() for value in found.to_numpy().ravel() if value > 0]
    norm = LogNorm(min(known, default=1), max([*known, 2]))
    with styled(style):
        figure = new_figure(style.size_of(MAPS_FIGURE))
        axes = figure.subplots(1, 2, sharey=True)
        for ax, (side, title) in zip(axes, SIDES.items(), strict=True):
            _draw_map(ax, cells[side], norm, style)
            ax.set_title(title)
        gpus = list(cells["baseline"].index)
        axes[0].set_yticks(range(len(gpus)), gpus)
        bar = figure.colorbar(ScalarMappable(norm, style.heatmap), ax=axes, pad=0.01, aspect=18)
        bar.set_label("Longest context\n(tokens per sequence)")
        bar.outline.set_visible(False)
        figure.suptitle(headline(record, model), x=0.01, ha="left", fontsize=style.font_size_pt)
        settle(figure)
    return figure


def _draw_map(ax: Axes, cells: pd.DataFrame, norm: LogNorm, style: Style) -> None:
    palette = colormaps[style.heatmap]
    for (row, column), value in np.ndenumerate(cells.to_numpy()):
        fits = value > 0
        face = palette(norm(value)) if fits else "white"
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=face, edgecolor="white", linewidth=1))
        if not fits:
            hatch = {"hatch": "////", "edgecolor": style.colours.grid, "linewidth": 0}
            ax.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor="white", **hatch))
        ink = text_on(style, face) if fits else style.colours.does_not_fit
        middle = {"ha": "center", "va": "center_baseline", "fontsize": small_pt(style)}
        ax.text(column, row, tokens(value) if fits else "×", color=ink, **middle)
    ax.set_xlim(-0.5, cells.shape[1] - 0.5)
    ax.set_ylim(cells.shape[0] - 0.5, -0.5)
    ax.set_xticks(range(cells.shape[1]), cells.columns)
    ax.set_xlabel("Batch size B   (×: does not fit)")
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
