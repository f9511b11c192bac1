"""Figure 2: mean KV extension factor of every model."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prophet_moe.present.style import BACKING, new_figure, settle, small_pt, styled
from prophet_moe.present.tables import average_extension
from prophet_moe.settings import Style

COLUMN_EDGES_PT = (30, 62)
"""Right edges of the printed columns, points from the axes' right edge."""

ROW_IN = 0.135
"""Least height of a row."""
THICKEST_BAR_IN = 0.2


def selection(record: pd.DataFrame, *, zero_fill: bool) -> pd.DataFrame:
    """One row per model, indexed by name, largest factor first, then the models whose baseline never fits.

    Columns: factor (mean KV extension factor over the rows where the baseline fits, or over all rows with 0 where it
    does not; NaN if it never fits), savings (mean expert savings, %), rows, fitting (rows where the baseline fits),
    alone (rows where Prophet fits and the baseline does not).
    """
    table = average_extension(record, zero_fill).set_index("model")
    fitting = table["fitting_rows"]
    mean = table["mean_floor_zero_filled" if zero_fill else "mean_floor_fitting"]
    return pd.DataFrame(
        {
            "factor": mean.where(fitting > 0),
            "savings": table["mean_expert_savings_pct"],
            "rows": table["rows"],
            "fitting": fitting,
            "alone": table["prophet_only_rows"],
        }
    )


def findings(record: pd.DataFrame, *, zero_fill: bool) -> str:
    """Say in Markdown what the figure shows; every number is computed from the record."""
    models = selection(record, zero_fill=zero_fill)
    fit, never = models[models["fitting"] > 0], models[models["fitting"] == 0]
    over = "all rows, with 0 where the baseline does not fit" if zero_fill else "the rows where the baseline fits"
    lines = [f"The baseline fits in at least one row for {len(fit)} of {len(models)} models. Means are over {over}."]
    if len(fit):
        lines += [f"Largest mean: {_one_mean(fit.iloc[0])}.", f"Smallest mean: {_one_mean(fit.iloc[-1])}."]
    if len(never):
        best, most = never["alone"].idxmax(), never["alone"].max()
        line = (
            f"The baseline of {len(never)} models never fits: they have no factor, for want of a context to divide by. "
        )
        if most:
            line += f"Prophet makes {(never['alone'] > 0).sum()} of them fit in some rows, most often **{best}** "
            line += f"({most} of {never.loc[best, 'rows']})."
        else:
            line += "Prophet fits none of them either."
        lines.append(line)
    return "\n".join(f"* {line}" for line in lines)


def _one_mean(model: pd.Series) -> str:
    return (
        f"**{model.name}**, {model['factor']:.2f}× (the baseline fits in {model['fitting']:.0f} of {model['rows']:.0f})"
    )


def draw(record: pd.DataFrame, style: Style, *, zero_fill: bool) -> Figure:
    """Horizontal bars of the mean factor, sorted; below them, as a list, the models whose baseline never fits."""
    models = selection(record, zero_fill=zero_fill)
    fit, never = models[models["fitting"] > 0], models[models["fitting"] == 0]
    with styled(style):
        figure = new_figure(style.figures.figure2_kv_extension_by_model, 1.1 + ROW_IN * len(models))
        heights = [len(group) for group in (fit, never) if len(group)]
        panels = list(figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0])
        _head_columns(panels[0], style)
        if len(fit):
            _draw_factors(panels[0], fit, (figure.get_figheight() - 1.1) / len(models), style)
            over = "0 where the baseline does not fit" if zero_fill else "rows where the baseline fits"
            panels[0].set_xlabel(f"Mean KV extension factor,\n{over}", loc="left", fontsize=style.font_size_pt - 0.5)
        if len(never):
            _list_never(panels[-1], never, style)
        settle(figure)
    return figure


def _draw_factors(ax: Axes, rows: pd.DataFrame, row_in: float, style: Style) -> None:
    # Few rows leave much room: a bar stays a bar.
    thickness = min(0.7, THICKEST_BAR_IN / row_in)
    ax.barh(range(len(rows)), rows["factor"], height=thickness, color=style.colours.prophet)
    for place, factor in enumerate(rows["factor"]):
        ax.annotate(
            f"{factor:.2f}×",
            (factor, place),
            (2.5, 0),
            textcoords="offset points",
            va="center_baseline",
            bbox=BACKING,
            zorder=2,  # over the line at 1, under the axis
        )
    # Room for the label of the longest bar, and for the line at 1.
    ax.set_xlim(0, 1.4 * max(1, rows["factor"].max()))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    ax.axvline(1, color=style.colours.text, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1.5)
    ax.annotate(
        "1 = no gain", (1, 1), (0, 2), ax.get_xaxis_transform(), "offset points", ha="center", fontsize=small_pt(style)
    )
    _list_models(ax, rows, style)


def _list_never(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    for place, (alone, of) in enumerate(zip(rows["alone"], rows["rows"], strict=True)):
        where = {"xy": (0, place), "textcoords": "offset points", "va": "center_baseline"}
        ax.annotate("×", xytext=(2, 0), color=style.colours.does_not_fit, **where)
        ax.annotate(f"{alone} of {of}", xytext=(11, 0), fontsize=small_pt(style), **where)
    ax.set_title("Baseline never fits,\nProphet fits in", color=style.colours.does_not_fit, linespacing=1.1)
    ax.xaxis.set_visible(False)
    ax.spines["bottom"].set_visible(False)
    _list_models(ax, rows, style)


def _list_models(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    """Name the rows on the left; on the right, print mean expert savings and the rows in which the baseline fits."""
    ax.set_yticks(range(len(rows)), rows.index)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    for place, (savings, fitting, of) in enumerate(zip(rows["savings"], rows["fitting"], rows["rows"], strict=True)):
        for edge, text in zip(COLUMN_EDGES_PT, (f"{savings:.0f} %", f"{fitting}/{of}"), strict=True):
            ax.annotate(
                text,
                (1, place),
                (edge, 0),
                ("axes fraction", "data"),
                "offset points",
                ha="right",
                va="center_baseline",
                fontsize=small_pt(style),
            )


def _head_columns(ax: Axes, style: Style) -> None:
    for edge, text in zip(COLUMN_EDGES_PT, ("expert\nsavings", "baseline\nfits"), strict=True):
        ax.annotate(text, (1, 1), (edge, 2), "axes fraction", "offset points", ha="right", fontsize=small_pt(style))
