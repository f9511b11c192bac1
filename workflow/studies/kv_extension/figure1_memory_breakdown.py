"""Figure 1: what the memory of a model consists of, and what of it Prophet needs."""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prophet_moe.present.style import gigabytes, legend_in_rows, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.kv_extension.study import FIGURE1

SIDES = ("baseline", "prophet")
ROW_NAMES = {"baseline": "baseline", "prophet": "Prophet"}
PARTS = {"rest": "other weights, activations, buffers", "kv": "KV cache at context S", "expert": "routed experts"}
"""Parts of the memory in the order in which they are stacked; experts last, so that the rest lines up."""
ROWS_PER_MODEL = 3.2
"""A heading, two bars and the space before the next model, in heights of a row."""
ROW_IN, AROUND_IN = 0.155, 0.75
"""Height of a row, and of what stands around the rows, inches."""
COLUMNS_AT = {"expert": 1.09, "total": 1.19}
"""Where the numbers stand, in shares of the panel's width."""


def selection(record: pd.DataFrame, *, models: list[str], gpu: str, batch_size: int) -> pd.DataFrame:
    """One row of the record per model, in the order of `models`."""
    rows = record[(record["gpu"] == gpu) & (record["batch_size"] == batch_size)]
    return rows.set_index("model").loc[models].reset_index()


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Parts of the memory as shares of the baseline's total: one row per model and side.

    Columns: model, side, rest, kv, expert, device (of one GPU). Where the total is unknown, experts are shares of the
    baseline's experts and the other parts are NaN.
    """
    told = []
    for row in rows.to_dict("records"):
        whole = row["baseline_total_gb"] if pd.notna(row["baseline_total_gb"]) else row["baseline_expert_gb"]
        for side in SIDES:
            expert, total = row[f"{side}_expert_gb"], row[f"{side}_total_gb"]
            parts = {"rest": total - expert - row["kv_cache_gb"], "kv": row["kv_cache_gb"], "expert": expert}
            parts["device"] = row["gpu_memory_gb"]
            told.append({"model": row["model"], "side": side} | {name: part / whole for name, part in parts.items()})
    return pd.DataFrame(told)


def headline(rows: pd.DataFrame, batch_size: int) -> str:
    """The figure's statement: which share of the baseline's memory Prophet needs."""
    ratio = (rows["prophet_total_gb"] / rows["baseline_total_gb"]).dropna()
    if ratio.empty:
        return f"Memory at batch size {batch_size}"
    low, high = f"{100 * ratio.min():.0f}", f"{100 * ratio.max():.0f}"
    span = low if low == high else f"{low} to {high}"
    return f"At batch size {batch_size}, Prophet needs {span} % of the baseline's memory"


def findings(record: pd.DataFrame, *, models: list[str], gpu: str, batch_size: int) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the record."""
    rows = selection(record, models=models, gpu=gpu, batch_size=batch_size)
    device = rows["gpu_memory_gb"].iloc[0]
    experts = rows.dropna(subset=["prophet_expert_gb"]).sort_values("expert_savings_pct", kind="stable")
    totals = rows.dropna(subset=["prophet_total_gb"])
    lines = []
    if len(experts):
        lines.append(f"At batch size {batch_size}, expert savings are largest for {_one_model(experts.iloc[-1])}.")
        lines.append(f"They are smallest for {_one_model(experts.iloc[0])}.")
    lines.append(
        f"One {gpu} has {gigabytes(device)} GB. The total memory is within it for "
        f"{(totals['baseline_total_gb'] <= device).sum()} of {len(totals)} models with the baseline, and for "
        f"{(totals['prophet_total_gb'] <= device).sum()} of {len(totals)} models with Prophet."
    )
    for side, name in (("baseline", "the baseline"), ("prophet", "Prophet")):
        shorter = totals[(totals[f"{side}_total_gb"] > device) & totals[f"{side}_fits"]]["model"]
        if len(shorter):
            lines.append(f"With a context shorter than S, {name} also fits for {', '.join(shorter)}.")
    unknown = rows[rows["prophet_total_gb"].isna()]["model"].tolist()
    if unknown:
        lines.append(
            f"The total memory of {', '.join(unknown)} is unknown in this scenario, so their bars show only experts."
        )
    return "\n".join(f"* {line}" for line in lines)


def _one_model(row: pd.Series) -> str:
    return (
        f"**{row['model']}**: {row['expert_savings_pct']:.1f} % of the memory of routed experts leaves the GPU, and "
        f"{gigabytes(row['prophet_expert_gb'])} of {gigabytes(row['baseline_expert_gb'])} GB stay"
    )


def draw(record: pd.DataFrame, style: Style, *, models: list[str], gpu: str, batch_size: int) -> Figure:
    """Two stacked bars per model, as shares of the baseline's memory, with experts and totals printed in GB."""
    rows = selection(record, models=models, gpu=gpu, batch_size=batch_size)
    size = style.size_of(FIGURE1)
    with styled(style):
        figure = new_figure(size, ROW_IN * ROWS_PER_MODEL * len(rows) + AROUND_IN)
        ax = figure.subplots()
        parts = shares(rows)
        tops = ROWS_PER_MODEL * np.arange(len(rows))
        for top, row in zip(tops, rows.to_dict("records"), strict=True):
            mine = parts[parts["model"] == row["model"]].set_index("side")
            _draw_model(ax, top, row, mine, style)
        ticks = [top + below for top in tops for below in (1, 2)]
        ax.set_yticks(ticks, [ROW_NAMES[side] for _ in tops for side in SIDES], fontsize=small_pt(style))
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(tops[-1] + 2.6, -0.6)
        ax.set_xlim(0, max(1, parts[list(PARTS)].sum(axis=1).max()))
        ax.set_xticks(np.arange(0, 1.01, 0.25), [f"{share:.0%}" for share in np.arange(0, 1.01, 0.25)])
        ax.grid(axis="x")
        ax.set_xlabel("Share of the baseline's memory")
        ax.set_title(headline(rows, batch_size))
        _print_heads(ax, style)
        legend_in_rows(figure, _legend(style, gpu, rows["gpu_memory_gb"].iloc[0]), 3)
        settle(figure)
    return figure


def _draw_model(ax: Axes, top: float, row: dict[str, object], parts: pd.DataFrame, style: Style) -> None:
    """A heading, the baseline's bar and Prophet's, with the end of one GPU's memory where it cuts them."""
    context = "S unknown" if pd.isna(row["seq_len"]) else f"S = {row['seq_len']:,.0f}"
    unknown = "" if pd.notna(row["baseline_total_gb"]) else "; total unknown, experts alone"
    heading = f"{row['model']}: E = {row['num_experts']}, {context}{unknown}"
    ax.text(0.004, top, heading, va="center_baseline", fontsize=small_pt(style))
    for place, side in enumerate(SIDES, start=1):
        left = 0.0
        for name in PARTS:
            share = parts.loc[side, name]
            if not np.isnan(share):
                ax.barh(top + place, share, 0.86, left, **_part_look(name, style), zorder=2)
                left += share
        for name, at in COLUMNS_AT.items():
            _print_memory(ax, at, top + place, row[f"{side}_{name}_gb"], row["gpu_memory_gb"], style)
    device = parts["device"].iloc[0]
    if device <= 1 and not unknown:
        ends = [device, device], [top + 0.45, top + 2.55]
        ax.plot(*ends, color="white", linewidth=3.4, solid_capstyle="butt", zorder=3)
        ax.plot(*ends, zorder=4, **_device_look(style))


def _print_memory(ax: Axes, at: float, place: float, memory: float, device: float, style: Style) -> None:
    """A number of GB in its column, marked where it exceeds one GPU."""
    over = memory > device
    text = "-" if np.isnan(memory) else f"{gigabytes(memory)}{' ×' if over else '   '}"
    ax.text(
        *(at, place, text),
        transform=ax.get_yaxis_transform(),
        ha="right",
        va="center_baseline",
        fontsize=small_pt(style),
        color=style.colours.does_not_fit if over else style.colours.text,
    )


def _print_heads(ax: Axes, style: Style) -> None:
    for (_, at), text in zip(COLUMNS_AT.items(), ("experts  ", "total, GB  "), strict=True):
        ax.text(at, 1.01, text, transform=ax.transAxes, ha="right", va="bottom", fontsize=small_pt(style))


def _part_look(name: str, style: Style) -> dict[str, object]:
    """Draw experts dark, the KV cache hatched and the rest pale, so that they differ without colour."""
    look = {"edgecolor": "white", "linewidth": 0.6}
    faces = {"rest": style.colours.baseline, "kv": style.colours.grid, "expert": style.colours.prophet}
    hatched = {"hatch": "//////", "edgecolor": style.colours.baseline} if name == "kv" else {}
    return {"facecolor": faces[name]} | look | hatched


def _device_look(style: Style) -> dict[str, object]:
    return {"color": style.colours.does_not_fit, "linewidth": 1.4, "linestyle": (0, (3, 1))}


def _legend(style: Style, gpu: str, device_gb: float) -> dict[str, Artist]:
    handles: dict[str, Artist] = {label: Patch(**_part_look(name, style)) for name, label in PARTS.items()}
    handles[f"end of one {gpu}, {gigabytes(device_gb)} GB"] = Line2D([], [], **_device_look(style))
    exceeds = {"marker": "x", "linestyle": "", "color": style.colours.does_not_fit}
    return handles | {f"exceeds one {gpu}": Line2D([], [], **exceeds)}
