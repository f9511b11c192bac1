"""Figure 2: the memory floor of every model, and what is gained within a limit of slowdown."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from prophet_moe.capacity.limits import CONFIGURATION
from prophet_moe.present.price import STRATEGIES, by_model, gains, limits_of, statement
from prophet_moe.present.select import where
from prophet_moe.present.style import new_figure, settle, small_pt, strategy_look, styled
from prophet_moe.settings.style import Style
from studies.kv_extension.compute import average_extension
from studies.kv_extension.study import FIGURE2

COLUMN_EDGES_PT = (19, 52, 77)
"""Right edges of the printed columns, points from the axes' right edge."""

ROW_IN, PRICED_ROW_IN, LISTED_ROW_IN = 0.17, 0.31, 0.125
"""Height of a model's row in inches: with a bar alone, with a mark per strategy on it, and in the list below."""
AROUND_ROWS_IN, HEADLINE_IN = 0.72, 0.28
"""Height in inches of what stands around the bars, and of the statement above them."""
KEY_IN, PRICED_KEY_IN = 0.19, 0.47
"""Height in inches of the legend: of the bar alone, and with the marks."""
AROUND_LIST_IN = 0.3
"""Height in inches of the title of the list and of what parts it from the rest."""
LANES = (-0.27, 0, 0.27)
"""Places of the strategies across a row, in rows from its middle."""


def selection(record: pd.DataFrame, *, zero_fill: bool, gained: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per model, indexed by name, largest factor first, then the models whose baseline never fits.

    Columns: factor (mean KV extension by memory alone over the rows where the baseline fits, or over all rows with 0
    where it does not; NaN if it never fits), median (of the rows where the baseline fits; NaN with `zero_fill`),
    savings (mean expert savings, %), rows, fitting (rows where the baseline fits), native (of these, rows that gain
    within the native context), alone (rows where Prophet fits and the baseline does not). With `gained`, table 11,
    also mean_<strategy>_at_<limit>x, means over the rows where the baseline fits; with `zero_fill` they would be of
    other rows than the factor and are left out.
    """
    table = average_extension(record, zero_fill).set_index("model")
    fitting = table["fitting_rows"]
    mean = table["mean_floor_zero_filled" if zero_fill else "mean_floor_fitting"]
    models = pd.DataFrame(
        {
            "factor": mean.where(fitting > 0),
            "median": np.nan if zero_fill else table["median_floor_fitting"],
            "savings": table["mean_expert_savings_pct"],
            "rows": table["rows"],
            "fitting": fitting,
            "native": table["native_gain_rows"],
            "alone": table["prophet_only_rows"],
        }
    )
    return models.join(by_model(gained)) if gained is not None and not zero_fill else models


def nearest_limit(gained: pd.DataFrame, slowdown: float) -> float:
    """The limit of slowdown of table 11 that is nearest to `slowdown`."""
    return min(limits_of(gained), key=lambda limit: abs(limit - slowdown))


def headline(record: pd.DataFrame, gained: pd.DataFrame, claimed_slowdown: float) -> str:
    """The figure's statement, as the frontier's: what the slowdown buys, and the memory floor of the same rows."""
    limit = nearest_limit(gained, claimed_slowdown)
    within = where(gains(gained), limit=limit)
    floor = record[record["baseline_fits"]].set_index(CONFIGURATION)["kv_extension_factor"]
    both = floor[floor.index.isin(pd.MultiIndex.from_frame(within[CONFIGURATION]))]
    return statement(limit, within.groupby("strategy")["extension"].median(), both)


def findings(
    record: pd.DataFrame, *, zero_fill: bool, gained: pd.DataFrame | None = None, claimed_slowdown: float = 1
) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the record and table 11."""
    models = selection(record, zero_fill=zero_fill, gained=gained)
    fit, never = models[models["fitting"] > 0], models[models["fitting"] == 0]
    over = "all rows, with 0 where the baseline does not fit" if zero_fill else "the rows where the baseline fits"
    lines = [
        f"The baseline fits in at least one row for {len(fit)} of {len(models)} models. Means are over {over}. "
        "The bars are the memory floor: the KV extension if every expert were there in time."
    ]
    if len(fit):
        lines += [f"Largest mean floor: {_one_mean(fit.iloc[0])}.", f"Smallest mean floor: {_one_mean(fit.iloc[-1])}."]
        lines.append(
            f"{fit['native'].sum()} of the {fit['fitting'].sum()} rows whose baseline fits gain context within the "
            "model's native context."
        )
    if _priced(models):
        lines += _prices(fit, limits_of(gained), nearest_limit(gained, claimed_slowdown))
    if len(never):
        best, most = never["alone"].idxmax(), never["alone"].max()
        line = f"The baseline of {len(never)} models never fits, so their factor is undefined. "
        if most:
            line += f"Prophet fits for {(never['alone'] > 0).sum()} of them in some rows, most often for **{best}** "
            line += f"({most} of {never.loc[best, 'rows']})."
        else:
            line += "Prophet fits for none of them either."
        lines.append(line)
    return "\n".join(f"* {line}" for line in lines)


def _one_mean(model: pd.Series) -> str:
    fitting = f"the baseline fits in {model['fitting']:.0f} of {model['rows']:.0f} rows"
    return f"**{model.name}**, {model['factor']:.2f}× ({fitting})"


def _priced(models: pd.DataFrame) -> bool:
    """Whether the price of any model is known."""
    return bool(models.filter(regex="^mean_").notna().any(axis=None))


def _prices(fit: pd.DataFrame, limits: list[float], marked: float) -> list[str]:
    """Describe the extension within limits of slowdown and the floor, for each model that is in table 11."""
    lines = []
    for name, model in fit.iterrows():
        extensions = []
        for strategy, label in STRATEGIES.items():
            at, low, high = (model[f"mean_{strategy}_at_{limit:g}x"] for limit in (marked, limits[0], limits[-1]))
            if pd.notna(at):
                extensions.append(f"{at:.2f}× ({label}; {low:.2f}× to {high:.2f}×)")
        if extensions:
            lines.append(
                f"**{name}**: the memory floor is {model['factor']:.2f}×. Within {marked:g}× the time, the extension "
                f"is {', '.join(extensions)}. The ranges in brackets are within {limits[0]:g}× and {limits[-1]:g}× the "
                "time."
            )
    return lines


def draw(
    record: pd.DataFrame,
    style: Style,
    *,
    zero_fill: bool,
    gained: pd.DataFrame | None = None,
    claimed_slowdown: float = 1,
) -> Figure:
    """Bars of the mean memory floor by model, largest first; below, as a list, models whose baseline never fits.

    With `gained`, table 11, each bar carries what no prediction, Prophet and an oracle gain with time: a mark at the
    limit nearest to `claimed_slowdown`, on a line from the tightest limit to the loosest.
    """
    models = selection(record, zero_fill=zero_fill, gained=gained)
    fit, never = models[models["fitting"] > 0], models[models["fitting"] == 0]
    priced = _priced(models)
    heights = {}
    if len(fit):
        row_in, headline_in = (PRICED_ROW_IN, HEADLINE_IN) if priced else (ROW_IN, 0)
        heights = {"bars": headline_in + AROUND_ROWS_IN + row_in * len(fit), "key": PRICED_KEY_IN if priced else KEY_IN}
    if len(never):
        heights["list"] = AROUND_LIST_IN + LISTED_ROW_IN * len(never)
    with styled(style):
        figure = new_figure(style.size_of(FIGURE2), sum(heights.values()))
        figure.get_layout_engine().set(w_pad=0.03)
        parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=list(heights.values()))[:, 0]
        places = dict(zip(heights, parts, strict=True))
        if len(fit):
            limits = limits_of(gained) if priced else []
            marked = nearest_limit(gained, claimed_slowdown) if priced else None
            ax = places["bars"].subplots()
            _draw_floors(ax, fit, marked, style, zero_fill=zero_fill)
            if priced:
                _draw_prices(ax, fit, limits, marked, style)
                statement = headline(record, gained, claimed_slowdown)
                places["bars"].suptitle(statement, x=0.01, ha="left", fontsize=style.font_size_pt, linespacing=1.1)
            _label_bars(ax, fit, marked, style, least=0 if zero_fill else 1)
            _add_key(places["key"], limits, marked, style, median=not zero_fill)
        if len(never):
            _list_never(places["list"].subplots(), never, style)
        settle(figure)
    return figure


def _draw_floors(ax: Axes, rows: pd.DataFrame, marked: float | None, style: Style, *, zero_fill: bool) -> None:
    """Bars from 1, where nothing is gained; from 0 where the mean counts rows that do not fit as 0."""
    start, thickness = 0 if zero_fill else 1, 0.7 if marked is None else 0.86
    ax.barh(range(len(rows)), rows["factor"] - start, left=start, height=thickness, **_floor_look(style))
    ax.plot(rows["median"], np.arange(len(rows)) - thickness / 2, **_median_look(style))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter("{x:g}×")
    ax.axvline(1, color=style.colours.text, linewidth=0.7, zorder=1.5)
    ax.annotate(
        "no gain", (1, 1), (0, 3), ax.get_xaxis_transform(), "offset points", ha="center", fontsize=small_pt(style)
    )
    _name(ax, rows.index, style.font_size_pt - 1)
    _print_columns(ax, rows, style)
    heads = ("expert\nsavings", "baseline\nfits", "native\ngains")
    for edge, text in zip(COLUMN_EDGES_PT, heads, strict=True):
        _print_right(ax, (1, 1), "axes fraction", (edge, 3), text, "bottom", style)
    over = "0 where the baseline does not fit" if zero_fill else "rows where the baseline fits"
    ax.set_xlabel(f"Mean KV extension, {over}", fontsize=style.font_size_pt - 0.5)


def _label_bars(ax: Axes, rows: pd.DataFrame, marked: float | None, style: Style, *, least: float) -> None:
    """Print the floor right of all that is drawn in a row and, below it, Prophet's gain within the `marked` limit."""
    drawn = rows.filter(regex="^(factor|median|mean_.*)$")
    for place, (ends, (_, row)) in enumerate(zip(drawn.max(axis=1).clip(lower=least), rows.iterrows(), strict=True)):
        texts = [(row["factor"], style.colours.text)]
        if marked is not None:
            texts.append((row[f"mean_prophet_at_{marked:g}x"], style.colours.prophet))
        for line, (value, colour) in enumerate(texts):
            if pd.notna(value):
                down = (line - (len(texts) - 1) / 2) * (style.font_size_pt + 0.5)
                offset = {"xytext": (4, -down), "textcoords": "offset points", "va": "center_baseline"}
                ax.annotate(f"{value:.2f}×", (ends, place), color=colour, fontsize=style.font_size_pt - 0.5, **offset)
    low, high = min(least, drawn.min(axis=None)), max(1.1, drawn.max(axis=None))
    # Room for the label of the longest bar, and for half a mark at the start.
    ax.set_xlim(low - 0.04 * (high - low), low + 1.5 * (high - low))


def _floor_look(style: Style) -> dict[str, object]:
    return {"color": style.colours.grid, "linewidth": 0}


def _median_look(style: Style) -> dict[str, object]:
    return {"color": style.colours.text, "marker": "v", "markersize": 3, "linestyle": "none", "markeredgewidth": 0}


def _draw_prices(ax: Axes, rows: pd.DataFrame, limits: list[float], marked: float, style: Style) -> None:
    for lane, strategy in zip(LANES, STRATEGIES, strict=True):
        look = _mark_look(style, strategy)
        places = np.arange(len(rows)) + lane
        low, at, high = (rows[f"mean_{strategy}_at_{limit:g}x"] for limit in (limits[0], marked, limits[-1]))
        ax.hlines(places, low, high, color=look["color"], linewidth=look["linewidth"], zorder=3)
        ax.plot(at, places, **look | {"linestyle": "none"}, zorder=4)


def _mark_look(style: Style, strategy: str) -> dict[str, object]:
    look = strategy_look(style, strategy)
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
    return look | {"linestyle": "solid", "linewidth": 1.1, "markersize": 4.4} | edge


def _add_key(part: SubFigure, limits: list[float], marked: float | None, style: Style, *, median: bool) -> None:
    """The legend: the bar and its median and, where there is a `marked` limit, the marks."""
    bar = [Patch(**_floor_look(style), label="memory floor: every expert there in time")]
    if median:
        bar.append(Line2D([], [], **_median_look(style), label="median"))
    look = {"borderpad": 0, "handlelength": 1.3, "columnspacing": 1, "ncols": 3}
    part.legend(handles=bar, loc="upper center", borderaxespad=0, fontsize=style.font_size_pt - 1, **look)
    if marked is not None:
        marks = [Line2D([], [], **_mark_look(style, strategy), label=label) for strategy, label in STRATEGIES.items()]
        title = f"Within {marked:g}× the time (line: {limits[0]:g}× to {limits[-1]:g}×)"
        size = {"fontsize": style.font_size_pt - 1, "title_fontsize": style.font_size_pt - 1}
        part.legend(handles=marks, title=title, loc="lower center", borderaxespad=0.8, **size, **look)


def _list_never(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    """Name the models in rows, with the number of rows that Prophet fits."""
    look = strategy_look(style, "prophet") | {"linestyle": "none", "markersize": 3.6}
    for place, (alone, of) in enumerate(zip(rows["alone"], rows["rows"], strict=True)):
        ax.plot(0.06, place, **look | ({} if alone else {"markerfacecolor": "none"}))
        beside = {"xy": (0.06, place), "textcoords": "offset points", "va": "center_baseline"}
        ax.annotate(f"{alone} of {of}", xytext=(5, 0), fontsize=small_pt(style), **beside)
    ax.set_xlim(0, 1)
    ax.set_title("Baseline never fits, Prophet fits in", fontsize=style.font_size_pt - 0.5)
    ax.xaxis.set_visible(False)
    ax.spines["bottom"].set_visible(False)
    _name(ax, rows.index, small_pt(style))
    _print_columns(ax, rows, style)


def _name(ax: Axes, names: pd.Index, size_pt: float) -> None:
    ax.set_yticks(range(len(names)), names, fontsize=size_pt)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _print_columns(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    """Print next to the rows: mean expert savings, rows in which the baseline fits, and gains within native context."""
    for place, row in enumerate(rows.itertuples()):
        native = str(row.native) if row.fitting else "–"
        cells = (f"{row.savings:.0f} %", f"{row.fitting}/{row.rows}", native)
        for edge, text in zip(COLUMN_EDGES_PT, cells, strict=True):
            _print_right(ax, (1, place), ("axes fraction", "data"), (edge, 0), text, "center_baseline", style)


def _print_right(
    ax: Axes, xy: tuple[float, float], coords: object, offset: tuple[float, float], text: str, va: str, style: Style
) -> None:
    ax.annotate(text, xy, offset, coords, "offset points", ha="right", va=va, fontsize=small_pt(style))
