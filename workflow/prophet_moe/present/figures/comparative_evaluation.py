"""What report 004 measures of its strategies, measured anew: how much of a speedup is deduplication."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from prophet_moe.documents import validate
from prophet_moe.present.comparison import BASE, MODES, PAPERS, UNPREDICTED, batch_scaling, sample_steps, speedup
from prophet_moe.present.select import where
from prophet_moe.present.style import BACKING, new_figure, series_look, settle, small_pt, styled
from prophet_moe.settings import ReportedComparison, Style

COLUMNS = [
    *("trace", "batch", "seed", "sampled_share", "routing", "strategy", "role", "deduplicated", "as_described"),
    *("capacity",),
    *("step_ms_mean", "step_ms_p50", "step_ms_p95", "step_ms_p99", "tokens_per_second", "slowdown", "stall_share"),
    *("hit_rate", "kept_share", "prefetched_share", "late_share", "missed_share", "routed_requests", "requests"),
    *("request_dedup", "demand_copies", "useful_prefetches", "late_prefetches", "wasted_prefetches"),
    *("link_busy_share", "prefetch_gain_bound", "waves"),
]
"""Of the table of runs, as `cachesim.experiments.comparative_results` makes them."""
STRATEGIES = {
    "on_demand": "On-Demand",
    "pre_gated": "Pre-gated MoE",
    "expertflow": "ExpertFlow",
    "top_k": "Top-K",
    "multi_look_ahead": "Multi-Look-Ahead",
    "intelligent": "Intelligent + dedup.",
    "prophet": "Prophet",
}
"""Strategies in the order of the rows, and what they are called in figures."""
BOUNDS = {"belady": "Belady", "perfect_prefetch": "perfect prefetch", "static_popular": "static popular"}
"""Bounds and what they are called in figures."""
GAINS = ("prophet", "belady", "perfect_prefetch")
"""Whose speedup is drawn for every trace."""
TICKS = {"nbins": 6, "steps": [1, 2, 2.5, 5, 10]}
"""Round numbers, at most so many intervals: as many as fit would depend on the layout, which depends on them."""
AS_DESCRIBED, DEDUPLICATED = (dict([MODES[name]]) for name in ("as_described", "deduplicated"))
_LOOKS = {"prophet": 0, "belady": 1, "pre_gated": 2, "perfect_prefetch": 3, "intelligent": 4, "on_demand": 5}
_BY_BATCH = {"improvements", "papers_ms", "best_ms", "savings", "scaling_savings", "reuse"}


def name_of(strategy: str) -> str:
    """What a strategy or bound is called in figures."""
    return (STRATEGIES | BOUNDS).get(strategy, strategy)


def strategy_look(style: Style, strategy: str) -> dict[str, str]:
    """Colour and marker of a strategy, the same in every figure; one without its own repeats a colour."""
    return series_look(style, _LOOKS.get(strategy, len(_LOOKS) + 2))


def reported(claimed: Mapping[str, Any], where_from: str = "claimed") -> ReportedComparison:
    """What the report claims, from values whose batch sizes JSON may have turned into text; {}: the defaults."""
    typed = {
        key: {int(batch) if str(batch).isdigit() else batch: value for batch, value in values.items()}
        if key in _BY_BATCH and isinstance(values, Mapping)
        else values
        for key, values in claimed.items()
    }
    return validate(ReportedComparison, typed, where_from, "See docs/configuration.md.")


def steps(results: pd.DataFrame, trace: str, **mode: object) -> pd.DataFrame:
    """Milliseconds per step, geometric mean over batch sizes: a row per sample, a column per strategy."""
    return sample_steps(where(results, trace=trace, routing="recorded", **mode))


def findings(results: pd.DataFrame, *, traces: list[str], claimed: ReportedComparison) -> str:
    """Say in Markdown what the runs show, and what contradicts the report; every number is computed."""
    lines = [*_of_the_report(claimed), *(_of_deduplication(results, trace) for trace in traces)]
    lines += [_of_batches(results, traces[0], claimed), *(_of_prediction(results, trace) for trace in traces)]
    return "\n".join(f"* {line}" for line in lines)


def _of_the_report(claimed: ReportedComparison) -> Iterator[str]:
    """Whether the report's largest speedup is the ratio of its own times."""
    known = {name: told for name, told in claimed.speedups.items() if name in claimed.step_ms}
    if not known or BASE not in claimed.step_ms:
        return
    best = max(known, key=known.get)
    own, base = claimed.step_ms[best], claimed.step_ms[BASE]
    text = f"**The report's {known[best]:.2f}x** is {base:,.0f} / {own:,.0f} = {base / own:.2f} by its own table"
    if all(paper in claimed.step_ms for paper in PAPERS):
        mean = sum(claimed.step_ms[paper] for paper in PAPERS) / len(PAPERS)
        text += f", and {mean / own:.2f} over the mean of its three baselines"
    if claimed.papers_ms:
        mean = sum(claimed.papers_ms.values()) / len(claimed.papers_ms)
        text += f"; {mean:,.0f}, the mean over its batch sizes of another table, gives {mean / own:.2f}"
    yield f"{text}."


def _of_deduplication(results: pd.DataFrame, trace: str) -> str:
    described, deduplicated = steps(results, trace, **AS_DESCRIBED), steps(results, trace, **DEDUPLICATED)
    alone = speedup(described[BASE], deduplicated[BASE])
    best = deduplicated[[name for name in STRATEGIES if name in deduplicated]].mean().idxmin()
    both = speedup(described[BASE], deduplicated[best])
    text = (
        f"**{trace}**: On-Demand that asks once for each expert of a batch is {_times(alone)} as fast as On-Demand as "
        f"described, and predicts nothing."
    )
    if best == BASE:
        return f"{text} None of the other strategies, deduplicated as well, is faster than that."
    share = np.log(alone["speedup"]) / np.log(both["speedup"])
    more = speedup(deduplicated[BASE], deduplicated[best])
    return (
        f"{text} The fastest strategy, {name_of(best)}, is {_times(both)} as fast as On-Demand as described: "
        f"deduplication is {100 * share:.0f} % of that (of its logarithm), what it prefetches and evicts adds "
        f"{_times(more)}."
    )


def _of_batches(results: pd.DataFrame, trace: str, claimed: ReportedComparison) -> str:
    scaling = where(batch_scaling(results, claimed), trace=trace)
    told = []
    for batch in sorted({scaling["batch"].min(), scaling["batch"].max()}):
        described = where(scaling, batch=batch, mode="as_described").iloc[0]
        deduplicated = where(scaling, batch=batch, mode="deduplicated").iloc[0]
        report = f" (the report: {described.claimed_speedup:.2f}x)" if pd.notna(described.claimed_speedup) else ""
        told.append(
            f"at batch {batch} {_times(described)} as described{report}, and {_times(deduplicated)} with all "
            f"deduplicated"
        )
    return f"**{trace}**, the best of the report's own strategies against the mean of the papers': {'; '.join(told)}."


def _of_prediction(results: pd.DataFrame, trace: str) -> str:
    found = steps(results, trace, **DEDUPLICATED)
    over = {name: speedup(found[BASE], found[name]) for name in found if name != BASE}
    slower = [name for name in STRATEGIES if name in over and over[name]["speedup_high"] < 1]
    gains = ", ".join(f"{name_of(name)} {_times(over[name])}" for name in GAINS if name in over)
    lost = ", ".join(f"{name_of(name)} {over[name]['speedup']:.3f}x" for name in slower)
    if "prophet" in found:
        added = speedup(found[UNPREDICTED], found["prophet"])
        gains += f"; Prophet over {name_of(UNPREDICTED)}, which is what prediction adds, {_times(added)}"
    return (
        f"**{trace}**, all deduplicated, over On-Demand: {gains}. "
        f"Slower than On-Demand: {lost if slower else 'none, within 95 %'}."
    )


def _times(found: Mapping[str, Any] | pd.Series) -> str:
    """A speedup with its interval, where it has one."""
    value, low, high = (found[name] for name in ("speedup", "speedup_low", "speedup_high"))
    return f"{value:.2f}x" if pd.isna(low) or low == high else f"{value:.2f}x [{low:.2f}, {high:.2f}]"


def draw(results: pd.DataFrame, style: Style, *, traces: list[str], claimed: ReportedComparison) -> Figure:
    """Three panels: speedup by strategy and, by batch size, of ours, both on the first trace; what is left to gain."""
    modes = {
        "as described": {"color": style.colours.series[2], "marker": "o", "markerfacecolor": "white"},
        "all deduplicated": {"color": style.colours.series[0], "marker": "o"},
        "the report's claim": {"color": style.colours.text, "marker": "x"},
    }
    with styled(style):
        figure = new_figure(style.figures.comparative_evaluation)
        ours, batches, gains = figure.subplots(1, 3, width_ratios=[1, 1, 1])
        _draw_strategies(ours, results, traces[0], claimed, modes, style)
        _draw_batches(batches, results, traces[0], claimed, modes, style)
        _draw_gains(gains, results, traces, style)
        shown = {name: look for name, look in modes.items() if claimed.speedups or name != "the report's claim"}
        handles = [Line2D([], [], linestyle="none", **look) for look in shown.values()]
        figure.legend(handles, shown, loc="outside lower left", ncols=3)
        bounds = [Line2D([], [], linestyle="none", **strategy_look(style, name)) for name in GAINS]
        figure.legend(bounds, [name_of(name) for name in GAINS], loc="outside lower right", ncols=3)
        settle(figure)
    return figure


def _draw_strategies(
    ax: Axes,
    results: pd.DataFrame,
    trace: str,
    claimed: ReportedComparison,
    modes: dict[str, dict[str, str]],
    style: Style,
) -> None:
    """A row per strategy: as described, deduplicated, and claimed, all over On-Demand as described."""
    described, deduplicated = steps(results, trace, **AS_DESCRIBED), steps(results, trace, **DEDUPLICATED)
    shown = [name for name in STRATEGIES if name in described]
    optional = set(where(results, trace=trace, routing="recorded", as_described=True, deduplicated=False)["strategy"])
    for row, name in enumerate(shown):
        ends = [(described, "as described")] if name in optional else []
        for found, mode in (*ends, (deduplicated, "all deduplicated")):
            _mark(ax, speedup(described[BASE], found[name]), row, modes[mode])
        if name in optional:
            reached = speedup(described[BASE], described[name]), speedup(described[BASE], deduplicated[name])
            between = [one["speedup"] for one in reached]
            ax.plot(between, [row, row], color=style.colours.grid, linewidth=2, zorder=1, solid_capstyle="butt")
        if name in claimed.speedups:
            look = modes["the report's claim"]
            ax.plot(claimed.speedups[name], row, linestyle="none", markersize=4, zorder=4, **look)
    alone = speedup(described[BASE], deduplicated[BASE])["speedup"]
    ax.axvspan(1, alone, color=style.colours.series[0], alpha=0.12, linewidth=0, zorder=0)
    ax.annotate(
        f"deduplication\nalone: {alone:.2f}x",
        ((1 + alone) / 2, -0.45),
        ha="center",
        va="bottom",
        fontsize=small_pt(style),
        color=style.colours.series[0],
    )
    ax.set_yticks(range(len(shown)), [name_of(name) for name in shown])
    ax.set_ylim(len(shown) - 0.5, -1.6)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(**TICKS))
    ax.grid(axis="x")
    ax.set_xlabel("Speedup over On-Demand\nas described")
    ax.set_title(f"Strategies on\n{trace}", fontsize=style.font_size_pt)


def _draw_batches(
    ax: Axes,
    results: pd.DataFrame,
    trace: str,
    claimed: ReportedComparison,
    modes: dict[str, dict[str, str]],
    style: Style,
) -> None:
    scaling = where(batch_scaling(results, claimed), trace=trace)
    for label, mode in (("as described", "as_described"), ("all deduplicated", "deduplicated")):
        rows = where(scaling, mode=mode)
        _interval(ax, rows["batch"], rows["speedup"], rows["speedup_low"], rows["speedup_high"], modes[label])
    batches = sorted(scaling["batch"].unique())
    told = {batch: claimed.improvements[batch] for batch in batches if batch in claimed.improvements}
    look = modes["the report's claim"]
    ax.plot(list(told), list(told.values()), linestyle=(0, (3, 1.5)), linewidth=0.8, markersize=4, **look)
    ax.axhline(1, color=style.colours.text, linewidth=0.6, zorder=1)
    ax.set_xscale("log", base=2)
    ax.set_xticks(batches, [str(batch) for batch in batches])
    ax.xaxis.minorticks_off()
    ax.yaxis.set_major_locator(MaxNLocator(**TICKS))
    ax.grid(axis="y")
    ax.set_xlabel("Batch size")
    ax.set_ylabel("Speedup over the papers' mean")
    ax.set_title("The report's best against\nthe papers', same trace", fontsize=style.font_size_pt)


def _draw_gains(ax: Axes, results: pd.DataFrame, traces: list[str], style: Style) -> None:
    """A row per trace: speedup over On-Demand, all deduplicated."""
    for row, trace in enumerate(traces):
        found = steps(results, trace, **DEDUPLICATED)
        for name in GAINS:
            if name in found:
                _mark(ax, speedup(found[BASE], found[name]), row, strategy_look(style, name))
        place = ax.get_yaxis_transform()
        ax.text(0.03, row - 0.3, trace, transform=place, va="center", fontsize=small_pt(style), bbox=BACKING)
    ax.axvline(1, color=style.colours.text, linewidth=0.6, zorder=1)
    ax.set_yticks([])
    ax.set_ylim(len(traces) - 0.6, -0.6)
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(**TICKS))
    ax.grid(axis="x")
    ax.set_xlabel("Speedup over On-Demand,\nall deduplicated")
    ax.set_title("What is left for prediction,\nbeside knowing the future", fontsize=style.font_size_pt)


def _mark(ax: Axes, found: Mapping[str, float], row: float, look: dict[str, str]) -> None:
    """A speedup with its interval in a row."""
    spread = np.array([[found["speedup"] - found["speedup_low"]], [found["speedup_high"] - found["speedup"]]])
    ax.errorbar([found["speedup"]], [row], xerr=spread, linestyle="none", markersize=4.5, elinewidth=0.8, **look)


def _interval(
    ax: Axes, x: pd.Series, value: pd.Series, low: pd.Series, high: pd.Series, look: dict[str, str], **line: Any
) -> None:
    """A line with the interval of each point."""
    ax.errorbar(x, value, yerr=[value - low, high - value], markersize=3.5, elinewidth=0.8, **(look | line))
