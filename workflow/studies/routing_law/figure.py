"""How many experts a batch needs: measured values and the laws that were proposed for them."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prophet_moe.present.select import where
from prophet_moe.present.style import small_pt, trace_panels
from prophet_moe.settings.style import Style
from studies.routing_law.study import FIGURE

LAW_NAMES = {
    "power_law_reported": "the report's power law",
    "power_law": "power law, fitted",
    "uniform_occupancy": "uniform occupancy",
    "skewed_occupancy": "skewed occupancy",
    "clustered_occupancy": "clustered occupancy",
    "dirichlet_occupancy": "Dirichlet occupancy",
    "empirical": "other sequences' own u(B)",
}
"""Laws in the order of the rows, and what they are called in the figure."""
SERVING, CONSECUTIVE = "staggered", "prefill"


def errors(residuals: pd.DataFrame) -> pd.DataFrame:
    """Root mean square residual over B > 1, percent, by trace, batching and law."""
    later = residuals[residuals["batch"] > 1]
    squares = later.assign(square=later["residual_pct"] ** 2)
    return np.sqrt(squares.groupby(["trace", "batching", "law"])["square"].mean()).rename("error_pct").reset_index()


def findings(residuals: pd.DataFrame, *, traces: list[str]) -> str:
    """Describe in Markdown what the fits show; every number is computed from the residuals."""
    error = errors(residuals).set_index(["trace", "batching", "law"])["error_pct"]
    lines = []
    for trace in traces:
        rows = where(residuals, trace=trace, batching=SERVING)
        largest = rows["batch"].max()
        reported = where(rows, law="power_law_reported", batch=largest).iloc[0]
        named = ", ".join(
            f"{label} {error[trace, SERVING, law]:.1f} %" for law, label in LAW_NAMES.items() if law != "empirical"
        )
        lines.append(
            f"* **{trace}**: {largest} sequences need {reported.held_out:.1f} of {reported.experts} experts. The "
            f"report's law predicts {reported.predicted:.1f} ({reported.residual_pct:+.0f} %). Errors of u(B) on "
            f"held-out sequences: {named}."
        )
    return "\n".join(lines)


def headline(error: pd.DataFrame) -> str:
    """The panel's statement: the largest error, over traces, of a power law that was fitted to the trace."""
    return f"A fitted power law is up to {where(error, batching=SERVING, law='power_law')['error_pct'].max():.2g} % off"


def draw(residuals: pd.DataFrame, style: Style, *, traces: list[str]) -> Figure:
    """Draw two panels: u(B)/k against B with the report's law; the error of each law on held-out sequences."""
    panels = [(1, _draw_growth, residuals), (1.15, _draw_errors, errors(residuals))]
    return trace_panels(style, FIGURE, traces, panels)


def _draw_growth(ax: Axes, residuals: pd.DataFrame, looks: dict[str, dict[str, str]], style: Style) -> None:
    for trace, look in looks.items():
        rows = where(residuals, trace=trace, batching=SERVING, law="dirichlet_occupancy")
        top_k = rows["top_k"].iloc[0]
        ax.plot(rows["batch"], rows["held_out"] / top_k, linestyle="none", markersize=4, **look)
        ax.plot(rows["batch"], rows["predicted"] / top_k, color=look["color"], linewidth=1, zorder=1)
    # Without its limit E, which each model meets at another B.
    rows = where(residuals, law="power_law_reported", batching=SERVING)
    growth = (rows["predicted"] / rows["top_k"]).groupby(rows["batch"]).max()
    ax.plot(growth.index, growth, color=style.colours.text, linestyle=(0, (4, 1.5)), linewidth=1)
    ax.annotate(
        "the report's law",
        (growth.index[-1], growth.iloc[-1]),
        (-4, 1),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=small_pt(style),
    )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ticks = growth.index.astype(int).tolist()
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.set_yticks(ticks, [str(tick) for tick in ticks])
    ax.grid(axis="both")
    ax.set_xlabel("Batch size B")
    ax.set_ylabel("Experts needed per choice, u(B)/k")
    ax.set_title("A batch shares experts\n(lines: Dirichlet occupancy)", fontsize=style.font_size_pt)


def _draw_errors(ax: Axes, error: pd.DataFrame, looks: dict[str, dict[str, str]], style: Style) -> None:
    """A row per law; filled marks for batches of different sequences, hollow ones for consecutive tokens."""
    for place, law in enumerate(LAW_NAMES):
        for trace, look in looks.items():
            for batching, fill in ((CONSECUTIVE, "white"), (SERVING, look["color"])):
                value = where(error, trace=trace, law=law, batching=batching)["error_pct"]
                ax.plot(value, [place] * len(value), linestyle="none", markerfacecolor=fill, markersize=4.5, **look)
    ax.set_yticks(range(len(LAW_NAMES)), LAW_NAMES.values())
    ax.set_ylim(len(LAW_NAMES) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xscale("log")
    ticks = [0.1, 0.3, 1, 3, 10, 30]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.minorticks_off()
    ax.grid(axis="both")
    ax.set_xlabel("Error of u(B) on held-out sequences (%)")
    ax.set_title(f"{headline(error)}\n(hollow: consecutive tokens of one sequence)", fontsize=style.font_size_pt)
