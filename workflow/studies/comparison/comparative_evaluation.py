"""The comparison of report 004, simulated: how much of a speedup is deduplication."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from prophet_moe.present.select import where
from prophet_moe.present.style import apart, legend_in_rows, new_figure, settle, small_pt, strategy_look, styled
from prophet_moe.settings.style import Style
from prophet_moe.validation import validate
from studies.comparison.compute import BASE, PAPERS, speedup
from studies.comparison.study import EVALUATION_FIGURE, ReportedComparison

COLUMNS = [
    *("trace", "batch", "seed", "sampled_share", "routing", "strategy", "role", "deduplicated", "as_described"),
    *("capacity",),
    *("step_ms_mean", "step_ms_p50", "step_ms_p95", "step_ms_p99", "tokens_per_second", "slowdown", "stall_share"),
    *("hit_rate", "kept_share", "prefetched_share", "late_share", "missed_share", "routed_requests", "requests"),
    *("request_dedup", "demand_copies", "useful_prefetches", "late_prefetches", "wasted_prefetches"),
    *("link_busy_share", "prefetch_gain_bound", "waves"),
]
"""Of the table of runs, as `offload.experiments.comparative_results` makes them."""
STRATEGIES = {
    "on_demand": "On-Demand",
    "pre_gated": "Pre-gated MoE",
    "expertflow": "ExpertFlow",
    "top_k": "Top-K",
    "multi_look_ahead": "Multi-Look-Ahead",
    "intelligent": "Intelligent + dedup.",
    "prophet": "Prophet",
}
"""Strategies in the report's order, and what they are called in figures."""
BOUNDS = {"static_popular": "static popular", "belady": "Belady", "perfect_prefetch": "oracle"}
"""References that no predictor can be, and their names in figures: one never changes the cache, two know the future."""
NAMED = ("static_popular", "prophet", "belady", "perfect_prefetch")
"""Strategies with a line of their own, in the order in which they are drawn over On-Demand."""
OTHERS = tuple(name for name in STRATEGIES if name not in (BASE, "prophet"))
"""Strategies of the report and of the papers that are drawn as one group."""
ASKING_ONCE, PREDICTION = "asking once", "prediction"
"""The two comparisons: over On-Demand as described, and over On-Demand with deduplication."""
GEOMETRIC_MEAN = 0
"""In place of a batch size: the geometric mean over batch sizes."""
SPEEDUPS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4)
POWERS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
"""Speedups that may be named on an axis: on one that spans little, and on one that spans more than COARSE_SPAN."""
COARSE_SPAN = 6
_AT_ONE = {ASKING_ONCE: (), PREDICTION: (BASE,)}
"""Strategies that are 1 by definition, because the others are compared with them."""
_BY_BATCH = {"improvements", "papers_ms", "best_ms", "savings", "scaling_savings", "reuse"}


def name_of(strategy: str) -> str:
    """What a strategy or bound is called in figures."""
    return (STRATEGIES | BOUNDS).get(strategy, strategy)


def reported(claimed: Mapping[str, Any], where_from: str = "claimed") -> ReportedComparison:
    """What the report claims, from values whose batch sizes JSON may have turned into text; {}: the defaults."""
    typed = {
        key: {int(batch) if str(batch).isdigit() else batch: value for batch, value in values.items()}
        if key in _BY_BATCH and isinstance(values, Mapping)
        else values
        for key, values in claimed.items()
    }
    return validate(ReportedComparison, typed, where_from, "See docs/configuration.md.")


def selection(results: pd.DataFrame, *, traces: list[str]) -> pd.DataFrame:
    """Speedups over On-Demand of the same batch size and sample: one row per trace, comparison, strategy and batch.

    Columns: trace, comparison, strategy, batch, speedup, low, high (95 %, over sequences). `comparison` is ASKING_ONCE:
    On-Demand with deduplication, and Prophet, over On-Demand as described; or PREDICTION: every strategy over
    On-Demand, both with deduplication. Batch GEOMETRIC_MEAN is the geometric mean over batch sizes.
    """
    rows = []
    for trace in traces:
        runs = where(results, trace=trace, routing="recorded")
        described, once = (_steps(where(runs, **{mode: True})) for mode in ("as_described", "deduplicated"))
        compared = [
            (ASKING_ONCE, name, found[name]) for name, found in ((BASE, once), ("prophet", described)) if name in found
        ]
        compared += [(PREDICTION, name, once[name]) for name in (*STRATEGIES, *BOUNDS) if name in once]
        for comparison, name, steps in compared:
            base = (described if comparison == ASKING_ONCE else once)[BASE]
            for batch, ratio in {**_by_batch(base / steps), GEOMETRIC_MEAN: _over_batches(base / steps)}.items():
                found = speedup(ratio, pd.Series(1.0, ratio.index))
                low, high = found["speedup_low"], found["speedup_high"]
                head = {"trace": trace, "comparison": comparison, "strategy": name, "batch": int(batch)}
                rows.append(head | {"speedup": found["speedup"], "low": low, "high": high})
    return pd.DataFrame(rows)


def _steps(runs: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds per step: a row per batch size and sample, a column per strategy."""
    return runs.pivot_table(
        index=["batch", "seed", "sampled_share"], columns="strategy", values="step_ms_mean", sort=False
    )


def _by_batch(ratio: pd.Series) -> dict[int, pd.Series]:
    """The ratios of each batch size by sample."""
    return {batch: mine.droplevel("batch") for batch, mine in ratio.groupby("batch")}


def _over_batches(ratio: pd.Series) -> pd.Series:
    """Geometric mean over batch sizes of each sample."""
    return np.exp(np.log(ratio).groupby(["seed", "sampled_share"]).mean())


def findings(results: pd.DataFrame, *, traces: list[str], claimed: ReportedComparison) -> str:
    """Describe in Markdown what the runs show, and what contradicts the report; every number is computed."""
    found = selection(results, traces=traces)
    lines = [*_of_the_report(claimed), *_of_its_batches(claimed)]
    for trace in traces:
        lines.append(_of_asking_once(where(found, trace=trace, comparison=ASKING_ONCE), trace))
        lines.append(_of_prediction(where(found, trace=trace, comparison=PREDICTION), trace))
    return "\n".join(f"* {line}" for line in lines)


def _of_the_report(claimed: ReportedComparison) -> Iterator[str]:
    """Whether the report's largest speedup is the ratio of its own times."""
    known = {name: told for name, told in claimed.speedups.items() if name in claimed.step_ms}
    if not known or BASE not in claimed.step_ms:
        return
    best = max(known, key=known.get)
    own, base = claimed.step_ms[best], claimed.step_ms[BASE]
    text = f"**The report's {known[best]:.2f}x**: its own table gives {base:,.0f} / {own:,.0f} = {base / own:.2f}"
    if all(paper in claimed.step_ms for paper in PAPERS):
        mean = sum(claimed.step_ms[paper] for paper in PAPERS) / len(PAPERS)
        text += f", and {mean / own:.2f} over the mean of its three baselines"
    if claimed.papers_ms:
        mean = sum(claimed.papers_ms.values()) / len(claimed.papers_ms)
        text += f". Another of its tables has a mean over batch sizes of {mean:,.0f}, which gives {mean / own:.2f}"
    yield f"{text}."


def _of_its_batches(claimed: ReportedComparison) -> Iterator[str]:
    """What the report says of its smallest and largest batch."""
    if claimed.improvements:
        ends = sorted({min(claimed.improvements), max(claimed.improvements)})
        printed = ", ".join(f"{claimed.improvements[batch]:.2f}x at batch size {batch}" for batch in ends)
        yield f"**The report's best strategy** has these speedups over the mean of the papers' strategies: {printed}."


def _of_asking_once(found: pd.DataFrame, trace: str) -> str:
    """Describe what On-Demand gains by deduplication, at the ends of the batch sizes and in the mean."""
    speedups = "; ".join(
        f"{label} {_along_batches(where(found, strategy=name))}"
        for name, label in ((BASE, "On-Demand with deduplication"), ("prophet", "Prophet"))
        if len(where(found, strategy=name))
    )
    return f"**{trace}**, speedup over On-Demand as described: {speedups}."


def _of_prediction(found: pd.DataFrame, trace: str) -> str:
    mine = [name for name in NAMED if len(where(found, strategy=name))]
    speedups = "; ".join(f"{name_of(name)} {_along_batches(where(found, strategy=name))}" for name in mine)
    means = where(found, batch=GEOMETRIC_MEAN).set_index("strategy")
    slower = [name for name in STRATEGIES if name in means.index and name != BASE and means["high"][name] < 1]
    lost = ", ".join(f"{name_of(name)} {means['speedup'][name]:.3f}x" for name in slower)
    text = f"**{trace}**, speedup over On-Demand, all deduplicated: {speedups}. "
    return text + f"Slower than On-Demand in the geometric mean, with a 95 % interval below 1: {lost or 'none'}."


def _along_batches(rows: pd.DataFrame) -> str:
    """The geometric mean with its interval, and the speedups at the smallest and the largest batch."""
    by_batch = rows.set_index("batch")
    mean = by_batch.loc[GEOMETRIC_MEAN]
    batches = [batch for batch in sorted(by_batch.index) if batch != GEOMETRIC_MEAN]
    ends = ", ".join(
        f"{by_batch['speedup'][batch]:.2f}x at batch size {batch}" for batch in dict.fromkeys((batches[0], batches[-1]))
    )
    interval = "" if np.isnan(mean["low"]) else f" [{mean['low']:.2f}, {mean['high']:.2f}]"
    return f"{mean['speedup']:.2f}x{interval} ({ends})"


def headline(found: pd.DataFrame, comparison: str) -> str:
    """A row's statement: the span over traces of the geometric means of its strategies."""
    means = where(found, comparison=comparison, batch=GEOMETRIC_MEAN)
    names = {ASKING_ONCE: {BASE: "On-Demand that asks once", "prophet": "Prophet"}}.get(comparison)
    names = names or {name: name_of(name) for name in ("prophet", "static_popular", "perfect_prefetch")}
    spans = {label: where(means, strategy=name)["speedup"] for name, label in names.items()}
    return ", ".join(f"{label} {_span(span)}" for label, span in spans.items() if len(span))


def _span(values: pd.Series) -> str:
    """The least and the largest of some speedups."""
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return f"{low}x" if low == high else f"{low} to {high}x"


def draw(results: pd.DataFrame, style: Style, *, traces: list[str], claimed: ReportedComparison) -> Figure:
    """Draw a column per trace, speedup by batch size; rows: the gain of deduplication, and what prediction adds."""
    found = selection(results, traces=traces)
    rows = (
        (ASKING_ONCE, "(a) Over On-Demand as described", (BASE, "prophet"), claimed.improvements),
        (PREDICTION, "(b) Over On-Demand, all deduplicated", (BASE, *OTHERS, *NAMED), {}),
    )
    with styled(style):
        figure = new_figure(style.size_of(EVALUATION_FIGURE))
        parts = figure.subfigures(2, 1, height_ratios=[1, 1.25])
        for part, (comparison, what, names, told) in zip(parts, rows, strict=True):
            _draw_row(part, where(found, comparison=comparison), traces, names, told, style)
            part.suptitle(f"{what}: {headline(found, comparison)}", x=0.01, ha="left", fontsize=style.font_size_pt)
        parts[1].supxlabel("Batch size; mean: geometric mean over batch sizes", fontsize=style.font_size_pt)
        figure.supylabel("Speedup over On-Demand", fontsize=style.font_size_pt)
        legend_in_rows(figure, _legend(found, claimed, style), 4)
        settle(figure)
        # Numbers come after the layout: they lie inside the axes, and how far apart depends on their height.
        for part, (comparison, _, names, _) in zip(parts, rows, strict=True):
            means = where(found, comparison=comparison, batch=GEOMETRIC_MEAN)
            for ax, trace in zip(part.axes, traces, strict=True):
                mine = where(means, trace=trace)
                _print_means(ax, mine[mine["strategy"].isin(set(names) - {*OTHERS, *_AT_ONE[comparison]})], style)
    return figure


def _legend(found: pd.DataFrame, claimed: ReportedComparison, style: Style) -> dict[str, Line2D]:
    present = set(found["strategy"])
    looks = {"On-Demand that asks once": _look(style, BASE)}
    looks |= {name_of(name): _look(style, name) for name in NAMED if name in present}
    others = [name for name in OTHERS if name in present]
    if others:
        looks[f"{len(others)} other strategies"] = _look(style, others[0])
    if claimed.improvements:
        looks["the report's best"] = _claim_look(style)
    return {name: Line2D([], [], **look) for name, look in looks.items()}


def _look(style: Style, name: str) -> dict[str, Any]:
    """Draw On-Demand, the reference, as a wide and pale line, and the strategies of the group as thin equal lines."""
    if name == BASE:
        return strategy_look(style, name) | {"marker": "", "linewidth": 2.6, "alpha": 0.5}
    if name in OTHERS:
        return {"color": strategy_look(style, name)["color"], "marker": "", "linewidth": 0.8}
    return strategy_look(style, name) | {"linewidth": 1.1, "markersize": 3.2}


def _claim_look(style: Style) -> dict[str, Any]:
    return {"color": style.colours.text, "marker": "x", "markersize": 4, "linestyle": "none"}


def _draw_row(
    figure: SubFigure,
    found: pd.DataFrame,
    traces: list[str],
    names: Sequence[str],
    told: Mapping[int, float],
    style: Style,
) -> None:
    """A panel per trace with one logarithmic axis."""
    panels = figure.subplots(1, len(traces), sharey=True, squeeze=False)[0]
    batches = sorted(batch for batch in found["batch"].unique() if batch != GEOMETRIC_MEAN)
    places = {batch: place for place, batch in enumerate(batches)} | {GEOMETRIC_MEAN: len(batches) + 0.3}
    panels[0].set_yscale("log")
    for ax, trace in zip(panels, traces, strict=True):
        mine = where(found, trace=trace)
        for name in names:
            _draw_strategy(ax, where(mine, strategy=name), places, _look(style, name))
        claims = {places[batch]: value for batch, value in sorted(told.items()) if batch in places}
        if claims:
            ax.plot(list(claims), list(claims.values()), zorder=4, **_claim_look(style))
        ax.set_xticks(list(places.values()), [*(str(batch) for batch in batches), "mean"])
        ax.tick_params(axis="x", labelsize=small_pt(style))
        ax.axvline(len(batches) - 0.4, color=style.colours.grid, linewidth=0.8, zorder=0)
        ax.set_xlim(-0.4, len(batches) + 2.1)
        ax.grid(axis="y")
        ax.set_title(trace, fontsize=small_pt(style))
    low, high = panels[0].get_ylim()
    coarse = high / low > COARSE_SPAN
    named = [speedup for speedup in (POWERS if coarse else SPEEDUPS) if low <= speedup <= high]
    panels[0].set_yticks(named, [f"{speedup:g}x" for speedup in named])
    panels[0].yaxis.set_minor_locator(NullLocator())


def _draw_strategy(ax: Axes, rows: pd.DataFrame, places: Mapping[int, float], look: dict[str, Any]) -> None:
    """Draw a line over batch sizes and the geometric mean with its interval, as a dash for lines without marks."""
    dash = {} if look["marker"] else {"marker": "_", "markersize": 7, "markeredgewidth": look["linewidth"]}
    for part, own in ((rows[rows["batch"] != GEOMETRIC_MEAN].sort_values("batch"), {}), (_mean(rows), dash)):
        spread = [part["speedup"] - part["low"], part["high"] - part["speedup"]]
        ax.errorbar(part["batch"].map(places), part["speedup"], yerr=spread, elinewidth=0.7, **look | own)


def _mean(rows: pd.DataFrame) -> pd.DataFrame:
    """The geometric mean over batch sizes."""
    return where(rows, batch=GEOMETRIC_MEAN)


def _print_means(ax: Axes, means: pd.DataFrame, style: Style) -> None:
    """Write the geometric means next to their marks, in their order, far enough apart to be read."""
    if means.empty:
        return
    size = small_pt(style)
    points = ax.transData.transform([(0, value) for value in means["speedup"]])[:, 1] * 72 / ax.figure.dpi
    base = ax.get_window_extent().y0 * 72 / ax.figure.dpi
    for value, height in zip(means["speedup"], apart(list(points - base), 1.05 * size), strict=True):
        place = (1, 0), (0, height), "axes fraction", "offset points"
        ax.annotate(f"{value:.2f}", *place, ha="right", va="center_baseline", fontsize=size)
