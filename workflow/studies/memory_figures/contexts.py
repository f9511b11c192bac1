"""All memory against the context, and where one GPU ends."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prophet_moe.present.style import gigabytes, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.memory_figures.study import CONTEXT_FIGURE

SIDES = {"baseline": ("all experts resident", "s"), "prophet": ("Prophet", "o")}


def gap(rows: pd.DataFrame) -> float:
    """Return what Prophet saves of one model, GB: the same at every context, because the KV cache is the same."""
    differences = rows["baseline_total_gb"] - rows["prophet_total_gb"]
    return float(differences.mean())


def headline(table: pd.DataFrame) -> str:
    """The figure's statement: the lines do not diverge."""
    saved = [f"{gigabytes(gap(rows))} GB" for _, rows in table.groupby("model", sort=False)]
    return f"The saving does not grow with the context: {' and '.join(saved)} at every one"


def findings(table: pd.DataFrame) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the table."""
    lines = [headline(table) + "; the lines do not diverge, as report 003 has it."]
    for model, rows in table.groupby("model", sort=False):
        first, last = rows.iloc[0], rows.iloc[-1]
        grown = last["kv_cache_gb"] - first["kv_cache_gb"]
        lines.append(
            f"**{model}**, batch size {first['batch_size']}: from {first['context']:,} to {last['context']:,} tokens "
            f"the KV cache grows by {gigabytes(grown)} GB, on either side."
        )
        for side, (name, _) in SIDES.items():
            fits = rows[rows[f"{side}_total_gb"] <= rows["gpu_memory_gb"]]
            reach = f"up to {fits['context'].max():,} tokens of those shown" if len(fits) else "at none of those shown"
            lines.append(f"    * {name}: fits on one {first['gpu']} {reach}.")
    return "\n".join(line if line.startswith("    ") else f"* {line}" for line in lines)


def draw(table: pd.DataFrame, style: Style) -> Figure:
    """A panel for each model: all memory (y) against context (x, log2), two lines, and the end of one GPU."""
    models = list(dict.fromkeys(table["model"]))
    with styled(style):
        figure = new_figure(style.size_of(CONTEXT_FIGURE))
        axes = np.atleast_1d(figure.subplots(1, len(models)))
        for ax, model in zip(axes, models, strict=True):
            _draw_model(ax, table[table["model"] == model], style)
        axes[0].set_ylabel("All memory (GB)")
        figure.suptitle(headline(table), x=0.01, ha="left", fontsize=style.font_size_pt)
        settle(figure)
    return figure


def _draw_model(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    colours = {"baseline": style.colours.series[5 % len(style.colours.series)], "prophet": style.colours.prophet}
    top = 1.15 * max(rows["baseline_total_gb"].max(), rows["gpu_memory_gb"].iloc[0])
    for side, (name, marker) in SIDES.items():
        values = rows[f"{side}_total_gb"]
        ax.plot(rows["context"], values, marker=marker, color=colours[side], clip_on=False, zorder=3)
        last = values.iloc[-1]
        text = f"{name}\n{gigabytes(last)} GB"
        beside = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "linespacing": 1.05}
        ax.annotate(text, (rows["context"].iloc[-1], last), color=colours[side], fontsize=small_pt(style), **beside)
    device = rows["gpu_memory_gb"].iloc[0]
    ax.axhline(device, color=style.colours.does_not_fit, linewidth=1.2, linestyle=(0, (3, 1)), zorder=2)
    note = f"one {rows['gpu'].iloc[0]}, {gigabytes(device)} GB"
    at = {"xytext": (2, 2), "textcoords": "offset points", "va": "bottom", "fontsize": small_pt(style)}
    ax.annotate(note, (rows["context"].iloc[0], device), color=style.colours.does_not_fit, **at)
    ax.set_xscale("log", base=2)
    labels = [f"{context // 1024}K" if context >= 1024 else f"{context}" for context in rows["context"]]
    ax.set_xticks(rows["context"], labels)
    ax.minorticks_off()
    ax.set_xlim(rows["context"].iloc[0], rows["context"].iloc[-1])
    ax.set_ylim(0, top)
    ax.grid(axis="y")
    ax.set_xlabel("Context (tokens per sequence)")
    ax.set_title(f"{rows['model'].iloc[0]}, batch size {rows['batch_size'].iloc[0]}")
