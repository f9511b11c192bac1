"""What the memory of a model consists of, in GB: five components, with the end of one GPU's memory."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prophet_moe.present.style import gigabytes, legend_in_rows, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.memory_figures.study import COMPONENTS_FIGURE

SIDES = {"baseline": "baseline", "prophet": "Prophet"}
PARTS = {
    "non_expert": "other weights",
    "expert": "routed experts",
    "kv": "KV cache at context S",
    "activation": "activations",
    "reserve": "runtime reserve, predictor",
}
"""Components in the order in which they are stacked."""


def components(record: pd.DataFrame, *, models: list[str], gpu: str, batch_size: int) -> pd.DataFrame:
    """Return the GB of each of PARTS, one row per model and side, with the total of the record; parts sum to it.

    Columns beside PARTS: model, side, total, device, context.
    """
    rows = record[(record["gpu"] == gpu) & (record["batch_size"] == batch_size)].set_index("model").loc[models]
    told = []
    for model, row in rows.iterrows():
        for side in SIDES:
            parts = {
                "non_expert": row["non_expert_gb"],
                "expert": row[f"{side}_expert_gb"],
                "kv": row["kv_cache_gb"],
                "activation": row["activation_gb"],
            }
            total = row[f"{side}_total_gb"]
            parts["reserve"] = total - sum(parts.values())
            about = {"model": model, "side": side, "total": total}
            told.append(about | {"device": row["gpu_memory_gb"], "context": row["seq_len"]} | parts)
    return pd.DataFrame(told)


def headline(found: pd.DataFrame, gpu: str, batch_size: int) -> str:
    """The figure's statement: how many models fit on the GPU with either side, at the native context."""
    fits = (found["total"] <= found["device"]).groupby(found["side"]).sum()
    models = found["model"].nunique()
    return (
        f"At the native context and batch size {batch_size}, {fits['baseline']} of {models} models fit on one {gpu} "
        f"with all experts, {fits['prophet']} with Prophet's"
    )


def findings(record: pd.DataFrame, *, models: list[str], gpu: str, batch_size: int) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the record."""
    found = components(record, models=models, gpu=gpu, batch_size=batch_size)
    sides = found.set_index(["side", "model"])
    baseline, prophet = sides.loc["baseline"], sides.loc["prophet"]
    expert = baseline["expert"] / baseline["total"]
    cache = prophet["kv"] / prophet["total"]
    lines = [
        headline(found, gpu, batch_size) + ".",
        f"Routed experts are {expert.min():.0%} ({expert.idxmin()}) to {expert.max():.0%} ({expert.idxmax()}) of the "
        "baseline's memory.",
        f"With Prophet, the KV cache is {cache.min():.0%} ({cache.idxmin()}) to {cache.max():.0%} ({cache.idxmax()}).",
        f"Activations are at most {gigabytes(found['activation'].max())} GB; the report has a fifth of the active "
        "parameters.",
    ]
    return "\n".join(f"* {line}" for line in lines)


def draw(record: pd.DataFrame, style: Style, *, models: list[str], gpu: str, batch_size: int) -> Figure:
    """Two stacked bars per model, each model with its own scale, and the end of one GPU's memory across them."""
    found = components(record, models=models, gpu=gpu, batch_size=batch_size)
    with styled(style):
        figure = new_figure(style.size_of(COMPONENTS_FIGURE))
        axes = np.atleast_1d(figure.subplots(1, len(models)))
        for ax, model in zip(axes, models, strict=True):
            _draw_model(ax, found[found["model"] == model], style)
        axes[0].set_ylabel("Memory (GB)")
        figure.suptitle(headline(found, gpu, batch_size), x=0.01, ha="left", fontsize=style.font_size_pt)
        handles = {label: Patch(**_look(name, style)) for name, label in PARTS.items()}
        device = gigabytes(found["device"].iloc[0])
        handles[f"end of one {gpu}, {device} GB"] = Line2D([], [], **_device_look(style))
        legend_in_rows(figure, handles, 3)
        settle(figure)
    return figure


def _draw_model(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    for place, row in enumerate(rows.to_dict("records")):
        bottom = 0.0
        for name in PARTS:
            if not np.isnan(row[name]):
                ax.bar(place, row[name], 0.72, bottom, zorder=2, **_look(name, style))
                bottom += row[name]
        above = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "va": "bottom"}
        over = row["total"] > row["device"]
        colour = style.colours.does_not_fit if over else style.colours.text
        ax.annotate(gigabytes(bottom), (place, bottom), fontsize=small_pt(style), color=colour, **above)
    ax.axhline(rows["device"].iloc[0], zorder=3, **_device_look(style))
    ax.set_ylim(0, 1.12 * max(rows["total"].max(), rows["device"].iloc[0]))
    ax.set_xlim(-0.6, len(SIDES) - 0.4)
    ax.set_xticks(range(len(SIDES)), SIDES.values(), fontsize=small_pt(style))
    ax.tick_params(axis="x", length=0)
    ax.tick_params(axis="y", labelsize=small_pt(style))
    ax.grid(axis="y")
    name, _, rest = rows["model"].iloc[0].partition("-")
    ax.set_title(f"{name}\n{rest}\nS = {rows['context'].iloc[0]:,.0f}", fontsize=small_pt(style), linespacing=1.15)


def _look(name: str, style: Style) -> dict[str, object]:
    """The KV cache is hatched and experts are dark, so that components differ without colour."""
    faces = {
        "non_expert": style.colours.baseline,
        "expert": style.colours.prophet,
        "kv": style.colours.grid,
        "activation": style.colours.series[2],
        "reserve": style.colours.text,
    }
    look = {"facecolor": faces[name], "edgecolor": "white", "linewidth": 0.5}
    return look | ({"hatch": "//////", "edgecolor": style.colours.baseline} if name == "kv" else {})


def _device_look(style: Style) -> dict[str, object]:
    return {"color": style.colours.does_not_fit, "linewidth": 1.2, "linestyle": (0, (3, 1))}
