"""Figure 1: expert memory and total memory, baseline and Prophet."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from prophet_moe.present.style import BACKING, gigabytes, new_figure, settle, small_pt, styled
from prophet_moe.settings import Style

SIDES = ("baseline", "prophet")
BAR_WIDTH = 0.42
PANEL_SHARE = 0.42
"""Of the figure's width, what the bars of one panel have."""
LEAST_NAME = 9
"""Characters below which a model's name is written upright instead of being broken into lines."""


def selection(record: pd.DataFrame, *, models: list[str], gpu: str, batch_size: int) -> pd.DataFrame:
    """One row of the record per model, in the order of `models`."""
    rows = record[(record["gpu"] == gpu) & (record["batch_size"] == batch_size)]
    return rows.set_index("model").loc[models].reset_index()


def findings(record: pd.DataFrame, *, models: list[str], gpu: str, batch_size: int) -> str:
    """Say in Markdown what the figure shows; every number is computed from the record."""
    rows = selection(record, models=models, gpu=gpu, batch_size=batch_size)
    device = rows["gpu_memory_gb"].iloc[0]
    experts = rows.dropna(subset=["prophet_expert_gb"]).sort_values("expert_savings_pct", kind="stable")
    totals = rows.dropna(subset=["prophet_total_gb"])
    lines = []
    if len(experts):
        lines.append(f"At batch size {batch_size}, the most leaves the GPU for {_one_model(experts.iloc[-1])}.")
        lines.append(f"The least leaves for {_one_model(experts.iloc[0])}.")
    lines.append(
        f"One {gpu} has {gigabytes(device)} GB. In panel (b), {(totals['baseline_total_gb'] <= device).sum()} of "
        f"{len(totals)} totals are within it with the baseline and {(totals['prophet_total_gb'] <= device).sum()} of "
        f"{len(totals)} with Prophet."
    )
    for side, name in (("baseline", "the baseline"), ("prophet", "Prophet")):
        shorter = totals[(totals[f"{side}_total_gb"] > device) & totals[f"{side}_fits"]]["model"]
        if len(shorter):
            lines.append(f"With a shorter context than S, {name} also fits {', '.join(shorter)}.")
    unknown = rows[rows["prophet_total_gb"].isna()]["model"].tolist()
    if unknown:
        lines.append(f"The total memory of {', '.join(unknown)} is unknown in this scenario; it has no bar.")
    return "\n".join(f"* {line}" for line in lines)


def _one_model(row: pd.Series) -> str:
    return (
        f"**{row['model']}**: {gigabytes(row['prophet_expert_gb'])} of {gigabytes(row['baseline_expert_gb'])} GB of "
        f"routed experts stay, {row['expert_savings_pct']:.1f} % leave"
    )


def draw(record: pd.DataFrame, style: Style, *, models: list[str], gpu: str, batch_size: int) -> Figure:
    """Two panels of grouped bars on one log axis (GB): expert memory, and total memory at the record's context."""
    rows = selection(record, models=models, gpu=gpu, batch_size=batch_size)
    device = rows["gpu_memory_gb"].iloc[0]
    with styled(style):
        figure = new_figure(style.figures.figure1_memory_breakdown, _least_height(rows["model"], style))
        experts, totals = figure.subplots(1, 2, sharey=True)
        _draw_bars(experts, rows, "expert", style)
        _draw_bars(totals, rows, "total", style)
        experts.set_title(f"(a) Routed experts (E per layer), batch size {batch_size}")
        totals.set_title(f"(b) Total memory at context S, batch size {batch_size}")
        experts.set_ylabel("GPU memory (GB, log scale)")
        _name_models(experts, rows["model"], [f"E = {count}" for count in rows["num_experts"]], style)
        _name_models(totals, rows["model"], [_context(tokens) for tokens in rows["seq_len"]], style)
        _limit_memory(experts, rows)
        totals.annotate(
            f"{gpu}\n{gigabytes(device)} GB",
            (1, device),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            color=style.colours.does_not_fit,
            fontsize=small_pt(style),
        )
        figure.legend(handles=_legend(style, gpu), loc="outside upper center", ncols=3)
        settle(figure)
    return figure


def _draw_bars(ax: Axes, rows: pd.DataFrame, what: str, style: Style) -> None:
    device = rows["gpu_memory_gb"].iloc[0]
    values = rows[[f"{side}_{what}_gb" for side in SIDES]].to_numpy(float)
    ax.set_yscale("log")
    ax.grid(axis="y")
    ax.axhline(device, color=style.colours.does_not_fit, linewidth=0.9, linestyle=(0, (4, 2)), zorder=3)
    for side, shift, column in zip(SIDES, (-BAR_WIDTH / 2, BAR_WIDTH / 2), values.T, strict=True):
        places = np.arange(len(rows)) + shift
        ax.bar(places, column, BAR_WIDTH, **_bar_look(side, style), zorder=2)
        for place, value in zip(places, column, strict=True):
            if not np.isnan(value):
                _label_bar(ax, place, value, value > device, _pitch_pt(style, len(rows)) * BAR_WIDTH, style)
    for place in np.flatnonzero(np.isnan(values).any(axis=1)):
        _say_unknown(ax, place, style)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.55, len(rows) - 0.45)


def _bar_look(side: str, style: Style) -> dict[str, object]:
    # White edges part the two bars of a pair; the hatch is the cue beside colour.
    look = {"facecolor": getattr(style.colours, side), "edgecolor": "white", "linewidth": 0.6}
    return look | ({"hatch": "//////"} if side == "prophet" else {})


def _pitch_pt(style: Style, models: int) -> float:
    """Width that one model has in a panel, points."""
    return 72 * PANEL_SHARE * style.figures.figure1_memory_breakdown.width_in / models


def _label_bar(ax: Axes, place: float, value: float, over: bool, width_pt: float, style: Style) -> None:
    """Write the value over a bar `width_pt` wide: upright if that is narrow, the mark alone if it is too narrow."""
    upright = width_pt < 2.4 * small_pt(style)
    number = gigabytes(value) if width_pt > 0.9 * small_pt(style) else ""
    mark = "×" if over else ""
    ax.annotate(
        (" " if upright else "\n").join(part for part in (mark, number) if part),
        (place, value),
        xytext=(0, 1.5),
        textcoords="offset points",
        ha="center",
        va="bottom",
        rotation=90 if upright else 0,
        linespacing=0.95,
        fontsize=small_pt(style),
        color=style.colours.does_not_fit if over else style.colours.text,
        # Upright text stands close to the next bar, which a white ground would cut.
        bbox=None if upright else BACKING,
        zorder=4,
    )


def _say_unknown(ax: Axes, place: int, style: Style) -> None:
    ax.annotate(
        "unknown",
        (place, 0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        va="bottom",
        rotation=90,
        fontsize=small_pt(style),
        fontstyle="italic",
    )


def _limit_memory(ax: Axes, rows: pd.DataFrame) -> None:
    values = rows[[f"{side}_{what}_gb" for side in SIDES for what in ("expert", "total")]].to_numpy(float)
    low, high = np.nanmin(values), max(np.nanmax(values), rows["gpu_memory_gb"].iloc[0])
    # Room below the shortest bar so that it is seen as a bar, and above the tallest for its label.
    ax.set_ylim(10 ** np.floor(np.log10(low / 1.5)), high * (high / low) ** 0.2)
    ax.yaxis.set_major_formatter(FuncFormatter(_plain_number))
    ax.yaxis.minorticks_off()


def _plain_number(value: float, _position: int) -> str:
    return f"{value:,.10g}"


def _context(tokens: object) -> str:
    return "S unknown" if pd.isna(tokens) else f"S = {tokens:,}"


def _name_models(ax: Axes, models: pd.Series, details: list[str], style: Style) -> None:
    """Write names and one detail each below the bars; names break at hyphens, or turn upright when there are many."""
    characters = _name_characters(style, len(models))
    if characters < LEAST_NAME:
        labels = [f"{model}, {detail}" for model, detail in zip(models, details, strict=True)]
    else:
        wrapped = [textwrap.wrap(model, characters) for model in models]
        depth = max(map(len, wrapped))
        padded = [lines + [""] * (depth - len(lines)) for lines in wrapped]
        labels = ["\n".join([detail, *lines]) for lines, detail in zip(padded, details, strict=True)]
    ax.set_xticks(range(len(models)), labels, rotation=90 if characters < LEAST_NAME else 0, fontsize=small_pt(style))


def _name_characters(style: Style, models: int) -> int:
    return int(_pitch_pt(style, models) / (0.6 * small_pt(style)))


def _least_height(models: pd.Series, style: Style) -> float:
    """Inches that upright names and bars above them need; 0 where names are written in lines."""
    if _name_characters(style, len(models)) >= LEAST_NAME:
        return 0
    return 2.2 + (models.str.len().max() + len(", S = 000,000")) * 0.57 * small_pt(style) / 72


def _legend(style: Style, gpu: str) -> list[Patch | Line2D]:
    return [
        Patch(label="Baseline: every expert resident", **_bar_look("baseline", style)),
        Patch(label="Prophet: predicted-active experts resident", **_bar_look("prophet", style)),
        Line2D([], [], marker="x", linestyle="", color=style.colours.does_not_fit, label=f"exceeds one {gpu}"),
    ]
