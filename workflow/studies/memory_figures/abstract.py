"""The graphical abstract: experts that leave the GPU, context that is gained, and what the number of experts does."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prophet_moe.present.style import gigabytes, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.memory_figures.study import ABSTRACT_FIGURE

TOP = 5
"""Models of the middle panel, those with the largest mean extension."""


def experts(record: pd.DataFrame, models: list[str], gpu: str, batch_size: int) -> pd.DataFrame:
    """Return baseline and Prophet's expert memory (GB) of the models (index), from the record."""
    rows = record[(record["gpu"] == gpu) & (record["batch_size"] == batch_size)].set_index("model").loc[models]
    return rows[["baseline_expert_gb", "prophet_expert_gb", "expert_savings_pct"]]


def extensions(averages: pd.DataFrame, limit: float) -> pd.DataFrame:
    """Return mean extension by memory alone, and within a limit of slowdown, of the TOP models of table 2 (index)."""
    column = f"mean_prophet_at_{limit:g}x"
    rows = averages[averages["mean_floor_fitting"].notna()].nlargest(TOP, "mean_floor_fitting")
    within = rows.get(column, np.nan)
    return pd.DataFrame({"floor": rows["mean_floor_fitting"], "within": within}).set_axis(rows["model"])


def headline(averages: pd.DataFrame, limit: float) -> str:
    """The figure's statement: by memory alone, and at the price in time."""
    found = extensions(averages, limit)
    best = found["floor"].iloc[0]
    text = f"Memory alone lengthens contexts up to {best:.2f}×"
    if found["within"].isna().all():
        return text
    return f"{text};\nwithin {limit:g}× the time, up to {found['within'].max():.2f}×"


def findings(record: pd.DataFrame, averages: pd.DataFrame, counts: pd.DataFrame, **shown) -> str:
    """Describe in Markdown what the figure shows; every number is computed from record and tables."""
    limit = shown["claimed_slowdown"]
    found = extensions(averages, limit)
    memory = experts(record, shown["models"], shown["gpu"], shown["batch_size"])
    most = memory["expert_savings_pct"]
    fitting = counts[counts["fitting_rows"] > 0]
    lines = [
        headline(averages, limit).replace("\n", " ") + ".",
        f"At batch size {shown['batch_size']}, {most.min():.0f} % ({most.idxmin()}) to {most.max():.0f} % "
        f"({most.idxmax()}) of the expert memory leaves the GPU.",
        "Means over the configurations whose baseline fits: "
        + "; ".join(f"{name} {row.floor:.2f}×, within the limit {row.within:.2f}×" for name, row in found.iterrows())
        + ".",
        f"Models whose baseline fits somewhere have {', '.join(str(each) for each in fitting['num_experts'])} experts; "
        f"the largest mean extension is that of {fitting.loc[fitting['mean_floor_fitting'].idxmax(), 'num_experts']}.",
    ]
    return "\n".join(f"* {line}" for line in lines)


def draw(record: pd.DataFrame, averages: pd.DataFrame, counts: pd.DataFrame, style: Style, **shown) -> Figure:
    """Three panels below each other, at the width of a column."""
    limit = shown["claimed_slowdown"]
    with styled(style):
        figure = new_figure(style.size_of(ABSTRACT_FIGURE))
        top, middle, bottom = figure.subplots(3, 1, height_ratios=(len(shown["models"]), TOP, len(counts)))
        _draw_experts(top, experts(record, shown["models"], shown["gpu"], shown["batch_size"]), style)
        top.set_title(f"(a) Expert memory at batch size {shown['batch_size']} (GB)")
        _draw_extensions(middle, extensions(averages, limit), limit, style)
        middle.set_title("(b) Mean KV extension, five largest")
        _draw_counts(bottom, counts, style)
        bottom.set_title("(c) Expert memory saved (%)")
        figure.suptitle(headline(averages, limit), x=0.01, ha="left", fontsize=style.font_size_pt, linespacing=1.15)
        settle(figure)
    return figure


def _rows(ax: Axes, names: list[str], style: Style) -> None:
    ax.set_yticks(range(len(names)), names, fontsize=small_pt(style))
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=small_pt(style))
    ax.grid(axis="x")


def _draw_experts(ax: Axes, memory: pd.DataFrame, style: Style) -> None:
    """From the baseline's expert memory (square) to Prophet's (dot), on a logarithmic axis."""
    for place, (_, row) in enumerate(memory.iterrows()):
        before, after = row["baseline_expert_gb"], row["prophet_expert_gb"]
        ax.plot([after, before], [place, place], color=style.colours.baseline, linewidth=1.4, zorder=2)
        ax.plot(before, place, "s", color=style.colours.baseline, zorder=3)
        ax.plot(after, place, "o", color=style.colours.prophet, zorder=4)
        text = f"{gigabytes(before)} → {gigabytes(after)}"
        beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center_baseline"}
        ax.annotate(text, (before, place), fontsize=small_pt(style), **beside)
    low, high = memory["prophet_expert_gb"].min(), memory["baseline_expert_gb"].max()
    ax.set_xscale("log")
    ax.set_xlim(low / 1.6, high * 7)
    ax.minorticks_off()
    ax.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
    _rows(ax, list(memory.index), style)
    marks = {
        "all": Line2D([], [], marker="s", linestyle="", color=style.colours.baseline),
        "Prophet": Line2D([], [], marker="o", linestyle="", color=style.colours.prophet),
    }
    ax.legend(list(marks.values()), list(marks), loc="upper right", fontsize=small_pt(style), handlelength=1)


def _draw_extensions(ax: Axes, found: pd.DataFrame, limit: float, style: Style) -> None:
    for place, (_, row) in enumerate(found.iterrows()):
        ax.barh(place, row["floor"] - 1, 0.62, 1, color=style.colours.prophet, alpha=0.35, zorder=2)
        if not np.isnan(row["within"]):
            ax.barh(place, row["within"] - 1, 0.62, 1, color=style.colours.prophet, zorder=3)
        beside = {"xytext": (3, 0), "textcoords": "offset points", "va": "center_baseline"}
        ax.annotate(f"{row['floor']:.2f}×", (row["floor"], place), fontsize=small_pt(style), **beside)
    ax.set_xlim(1, 1 + 1.18 * (found["floor"].max() - 1))
    _rows(ax, list(found.index), style)
    handles = {
        "by memory alone": Patch(facecolor=style.colours.prophet, alpha=0.35),
        f"within {limit:g}× the time": Patch(facecolor=style.colours.prophet),
    }
    ax.legend(list(handles.values()), list(handles), loc="lower right", fontsize=small_pt(style))


def _draw_counts(ax: Axes, counts: pd.DataFrame, style: Style) -> None:
    for place, row in enumerate(counts.itertuples()):
        ax.barh(place, row.mean_expert_savings_pct, 0.62, color=style.colours.series[1], alpha=0.7, zorder=2)
        fits = row.fitting_rows > 0
        text = f"KV {row.mean_floor_fitting:.2f}×" if fits else "never fits"
        colour = style.colours.text if fits else style.colours.does_not_fit
        beside = {"xytext": (3, 0), "textcoords": "offset points", "va": "center_baseline", "color": colour}
        ax.annotate(text, (row.mean_expert_savings_pct, place), fontsize=small_pt(style), **beside)
    ax.set_xlim(0, 100)
    _rows(ax, [f"E = {count}" for count in counts["num_experts"]], style)
