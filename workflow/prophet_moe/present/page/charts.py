"""The interactive charts of the page as Vega-Lite specifications: pickers and tooltips are part of each.

A screen reader is told the description of a chart and where its numbers are, not hundreds of points one by one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from prophet_moe.present.price import STRATEGIES
from prophet_moe.settings.style import Style

ALL = "all"
"""Value of a picker that leaves nothing out."""
ROWS = "rows"
"""Name of the data of a chart."""
HEIGHT = 400
"""Pixels of a chart; its width is that of the page."""
DIGITS = 5
"""Significant digits of a number in a chart."""
STATES = {
    "all_fit": "every expert fits",
    "slots": "slots for enough experts fit",
    "too_slow": "slots fit, but too few",
    "too_large": "not even one token's experts fit",
}
"""States of table 16 and what they mean."""
QUANTITIES = {
    "step_time": "time of a decode step (ms)",
    "tokens_per_s": "speed of an engine with an expert cache (tokens/s)",
    "weights": "weights on a GPU (GiB)",
    "kv_tokens": "tokens of KV cache",
    "kv_tokens_given_pool": "tokens of KV cache, its bytes known",
    "kv_bytes_per_token": "KV bytes of a token",
    "layer_time": "time of one layer (ms)",
}
"""Quantities that are drawn on logarithmic axes, and their words."""
RATES = {"hit_rate": "by the model's own routing", "hit_rate_of_other_models": "by other models' routing"}
"""Predictions of hit rates, which lie between 0 and 1, and their words."""
SHOWN = {
    "KV extension (x)": "kv_extension_factor",
    "longest context (tokens)": "max_context",
    "experts on the GPU (of a layer)": "resident_experts",
}
"""What the vertical axis of the frontier can show, and its column."""


def frontier(rows: pd.DataFrame, first: Mapping[str, Any], claimed_slowdown: float, style: Style) -> dict[str, Any]:
    """Return the chart of context or slots against slowdown; `first` is the model, GPU and batch size to begin with."""
    kept = rows.assign(strategy=rows["strategy"].map(STRATEGIES))
    columns = ["model", "gpu", "batch_size", "strategy", "resident_experts", "slowdown", "slowdown_low"]
    columns += ["slowdown_high", "hit_rate", "max_context", "baseline_max_context", "kv_extension_factor", "trace"]
    labels = {"model": "Model", "gpu": "GPU", "batch_size": "Batch size"}
    pickers = [_picker(rows, column, label, first[column]) for column, label in labels.items()]
    axis = alt.param(name="shown", value=next(iter(SHOWN)), bind=alt.binding_select(options=list(SHOWN), name="Show"))
    of = " : ".join(f"shown == '{words}' ? datum.{column}" for words, column in SHOWN.items())
    base = alt.Chart(alt.NamedData(ROWS)).transform_calculate(shown_value=f"{of} : null")
    wanted = [f"datum.{column} == pick_{column}" for column in labels] + ["isValid(datum.shown_value)"]
    drawn = _chosen(base, wanted)
    x = alt.X("slowdown:Q", title="time of a step, all experts resident = 1").scale(type="log", domainMin=1, nice=False)
    x = x.axis(values=[1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100], format="~g")
    y = alt.Y("shown_value:Q", title=None).scale(zero=False).axis(format="~s")
    order = list(STRATEGIES.values())
    colours = [style.colours.baseline, style.colours.prophet, style.colours.series[3]]
    colour = alt.Color("strategy:N", title=None, sort=order).scale(domain=order, range=colours).legend(orient="top")
    told = _tooltips(
        kept,
        {
            "strategy": "strategy",
            "resident_experts": "resident experts of a layer",
            "slowdown": "slowdown",
            "slowdown_low": "slowdown, low end",
            "slowdown_high": "slowdown, high end",
            "hit_rate": "hit rate",
            "max_context": "longest context",
            "baseline_max_context": "longest context, all resident",
            "kv_extension_factor": "KV extension",
            "trace": "routing",
        },
    )
    line = drawn.mark_line(strokeWidth=2, aria=False).encode(x=x, y=y, color=colour, order="resident_experts:Q")
    points = drawn.mark_point(size=60, filled=True, opacity=1, aria=False).encode(x=x, y=y, color=colour, tooltip=told)
    claimed = _rule_at(claimed_slowdown, style)
    shape = alt.layer(claimed, line, points, _none_left(base, wanted))
    heading = alt.TitleParams(text=alt.ExprRef("shown"), anchor="start", frame="group", fontWeight="normal")
    return _finished(shape, [*pickers, axis], _values(kept, columns), heading)


def break_even(rows: pd.DataFrame, style: Style) -> dict[str, Any]:
    """Return the map of where expert slots pay: hit rate needed against the relative speed of the link."""
    moved = rows[~rows["unified_memory"].astype(bool)]
    kept = moved.assign(
        machine=moved["gpu"] + ", " + moved["link"],
        misses=(1 - moved["hit_rate_needed"]).clip(upper=1),
        state=moved["state"].map(STATES),
    )
    columns = ["model", "gpu", "machine", "format", "context", "link_ratio", "misses", "hit_rate_needed"]
    columns += ["hit_rate_needed_prefetched", "resident_share_needed", "largest_resident_share", "cold_slowdown"]
    columns += ["link_basis", "state"]
    pickers = [
        _picker(kept, "model", "Model", ALL),
        _picker(kept, "gpu", "GPU", ALL),
        _picker(kept, "format", "Format of weights", "shipped"),
    ]
    wanted = [*_all_or_one("model", "gpu"), "datum.format == pick_format"]
    base = alt.Chart(alt.NamedData(ROWS))
    drawn = _chosen(base, wanted)
    order = list(STATES.values())
    range_ = [style.colours.baseline, style.colours.series[1], style.colours.series[2], style.colours.does_not_fit]
    colour = (
        alt.Color("state:N", title=None)
        .scale(domain=order, range=range_)
        .legend(orient="top", columns=1, labelLimit=320)
    )
    shape = alt.Shape("state:N", title=None).scale(domain=order, range=["circle", "triangle-up", "square", "cross"])
    x = alt.X("link_ratio:Q", title="speed of the link over that of GPU memory").scale(
        type="log", nice=False, padding=12
    )
    y = alt.Y("misses:Q", title="hit rate needed").scale(type="log", reverse=True, nice=False)
    needed = "format(1 - datum.value, datum.value < 0.01 ? '.1%' : '.0%')"
    y = y.axis(values=[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1], labelExpr=needed)
    told = _tooltips(
        kept,
        {
            "model": "model",
            "machine": "machine",
            "state": "state",
            "hit_rate_needed": "hit rate needed",
            "hit_rate_needed_prefetched": "hit rate needed with prefetch",
            "resident_share_needed": "share of the experts needed",
            "largest_resident_share": "share that fits",
            "cold_slowdown": "slowdown if all experts miss",
            "context": "context",
            "link_basis": "link speed",
        },
    )
    points = drawn.mark_point(size=70, filled=True, opacity=0.85, aria=False)
    drawing = points.encode(
        x=x.axis(format="~g", values=[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]),
        y=y,
        color=colour,
        shape=shape,
        tooltip=told,
    )
    return _finished(alt.layer(drawing, _none_left(base, wanted)), pickers, _values(kept, columns))


def observed(rows: pd.DataFrame, quantities: Mapping[str, str], linear: bool, style: Style) -> dict[str, Any]:
    """Return the chart of predicted against measured values of some quantities; `linear` axes go from 0 to 1."""
    found = rows[rows["clean"].astype(bool) & rows["predicted"].notna() & rows["quantity"].isin(list(quantities))]
    kept = found.assign(
        what=found["quantity"].map(quantities),
        kept=found["held_out"].map({True: "held out", False: "a constant was fitted to it, or checked by it"}),
        gpu=found["gpu"].replace("", "not stated"),
    )
    columns = ["what", "model", "gpu", "engine", "measured", "predicted", "low", "high", "unit", "error", "error_unit"]
    columns += ["kept", "source"]
    pickers = [
        _picker(kept, "what", "Quantity", next(iter(quantities.values()))),
        _picker(kept, "model", "Model", ALL),
        _picker(kept, "gpu", "GPU", ALL),
    ]
    wanted = ["datum.what == pick_what", *_all_or_one("model", "gpu")]
    base = alt.Chart(alt.NamedData(ROWS))
    drawn = _chosen(base, wanted)
    scale = {"domain": [0, 1]} if linear else {"type": "log", "nice": False, "padding": 12}
    form = ".0%" if linear else "~s"
    x = alt.X("measured:Q", title="measured").scale(**scale).axis(format=form, tickCount=6)
    y = alt.Y("predicted:Q", title="predicted").scale(**scale).axis(format=form, tickCount=6)
    colours = [style.colours.prophet, style.colours.series[2]]
    kinds = ["held out", "a constant was fitted to it, or checked by it"]
    colour = (
        alt.Color("kept:N", title=None)
        .scale(domain=kinds, range=colours)
        .legend(orient="top", columns=1, labelLimit=320)
    )
    shape = alt.Shape("kept:N", title=None).scale(domain=kinds, range=["circle", "diamond"])
    told = _tooltips(
        kept,
        {
            "model": "model",
            "gpu": "GPU",
            "engine": "engine",
            "measured": "measured",
            "predicted": "predicted",
            "unit": "unit",
            "error": "error",
            "error_unit": "error in",
            "kept": "part",
            "source": "source",
        },
    )
    ends = drawn.transform_aggregate(
        low_m="min(measured)", low_p="min(predicted)", high_m="max(measured)", high_p="max(predicted)"
    ).transform_calculate(least="min(datum.low_m, datum.low_p)", most="max(datum.high_m, datum.high_p)")
    equal = ends.mark_rule(strokeDash=[4, 3], color=style.colours.baseline)
    line = equal.encode(x="least:Q", y="least:Q", x2="most:Q", y2="most:Q")
    points = drawn.mark_point(size=60, filled=True, opacity=0.8, aria=False)
    drawing = points.encode(x=x, y=y, color=colour, shape=shape, tooltip=told)
    return _finished(alt.layer(line, drawing, _none_left(base, wanted)), pickers, _values(kept, columns))


def _picker(rows: pd.DataFrame, column: str, label: str, first: Any = None) -> alt.Parameter:
    """Return the parameter `pick_<column>`, which a list box with a label sets.

    `first` is chosen to begin with; where it is ALL, every value of the column can also be left in, and where there is
    no such value, the first one is taken.
    """
    options = sorted(rows[column].unique().tolist())
    options = [ALL, *options] if first == ALL else options
    value = first if first in options else options[0]
    return alt.param(name=f"pick_{column}", value=value, bind=alt.binding_select(options=options, name=label))


def _values(rows: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows as data of a chart, with DIGITS significant digits and null where a value is missing."""
    return [{name: _told(value) for name, value in row.items()} for row in rows[list(columns)].to_dict("records")]


def _told(value: Any) -> Any:
    if pd.isna(value):
        return None
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _tooltips(rows: pd.DataFrame, columns: Mapping[str, str]) -> list[alt.Tooltip]:
    """Return what is told of a point: the words of each column, numbers with separators of thousands."""
    kinds = {name: pd.api.types.is_numeric_dtype(rows[name]) for name in columns}
    return [
        alt.Tooltip(name, title=words, type="quantitative" if kinds[name] else "nominal")
        for name, words in columns.items()
    ]


def _rule_at(slowdown: float, style: Style) -> alt.Chart:
    """Return a vertical line at the slowdown that the report claims, with its name."""
    data = alt.InlineData(values=[{"slowdown": slowdown, "words": f"claimed: {slowdown:g}"}])
    base = alt.Chart(data).encode(x="slowdown:Q")
    rule = base.mark_rule(strokeDash=[4, 3], color=style.colours.does_not_fit)
    text = base.mark_text(align="left", baseline="top", dx=5, dy=2).encode(text="words:N", y=alt.value(0))
    return alt.layer(rule, text)


def _all_or_one(*columns: str) -> list[str]:
    """Return the conditions that rows have the picked value of each column, or that all values are picked."""
    return [f"(pick_{each} == '{ALL}' || datum.{each} == pick_{each})" for each in columns]


def _chosen(base: alt.Chart, wanted: Sequence[str]) -> alt.Chart:
    """Return a chart of the rows that meet all conditions."""
    return base.transform_filter(" && ".join(wanted))


def _none_left(base: alt.Chart, wanted: Sequence[str]) -> alt.Chart:
    """Return a note in the middle of a chart where no row meets all conditions."""
    counted = base.transform_calculate(meets=f"{' && '.join(wanted)} ? 1 : 0").transform_aggregate(left="sum(meets)")
    middle = {"x": alt.value(alt.ExprRef("width / 2")), "y": alt.value(alt.ExprRef("height / 2"))}
    note = counted.transform_filter("datum.left == 0").mark_text(fontSize=14)
    return note.encode(text=alt.value("no value for this choice"), **middle)


def _finished(
    chart: alt.LayerChart,
    pickers: Sequence[alt.Parameter],
    values: list[dict[str, Any]],
    heading: alt.TitleParams | None = None,
) -> dict[str, Any]:
    """Return a chart of the page's width as a specification, with the values of its data ROWS."""
    shaped = chart.add_params(*pickers).properties(width="container", height=HEIGHT)
    specification = (shaped.properties(title=heading) if heading else shaped).to_dict()
    # Altair copies data many times while it puts a specification together, so that they are added afterwards.
    return specification | {"datasets": specification.get("datasets", {}) | {ROWS: values}}
