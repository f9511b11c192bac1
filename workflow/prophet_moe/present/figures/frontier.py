"""What a saved gigabyte costs: context gained against time lost, as fewer experts stay on the GPU."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from prophet_moe.present.select import where
from prophet_moe.present.style import BACKING, new_figure, series_look, settle, small_pt, styled
from prophet_moe.settings import Style

COLUMNS = [
    *("model", "gpu", "batch_size", "strategy", "trace", "resident_experts", "resident_share", "slowdown"),
    *("hit_rate", "waves", "max_context", "baseline_max_context", "kv_extension_factor", "saved_gb"),
]
"""Of the table of points, as `capacity.frontier.frontier` makes them."""
CONFIGURATION = ["model", "gpu", "batch_size"]
MEMORY_COLUMNS = [*CONFIGURATION, "kv_extension_factor"]
"""Of the record of capacity: those that are read."""
STRATEGIES = {"on_demand": "no prediction", "prophet": "Prophet", "perfect_prefetch": "perfect prefetch"}
"""Strategies in the order in which they are drawn, and what they are called in the figure."""
PROPHET, ORACLE = "prophet", "perfect_prefetch"
ANY_SLOWDOWN = float("inf")
FACTORS = (1, 1.2, 1.5, 2, 3, 4, 6, 8, 10, 15, 20, 30, 50)
"""KV extensions that may be named on an axis."""
SLOWDOWNS = (1, 3, 10, 30, 100)
"""Slowdowns named on an axis."""
TICKS = 4
"""At most so many intervals; as many as fit would depend on the layout, which depends on them."""
_LOOKS = {"prophet": 0, "perfect_prefetch": 3, "on_demand": 5}
"""Numbers of the colours and markers that strategies have in the other figures."""


def fitting(points: pd.DataFrame) -> pd.DataFrame:
    """The points of configurations whose baseline fits: of others, no context is a gain over none."""
    return points[points["kv_extension_factor"].notna()]


def gains(points: pd.DataFrame, limit: float) -> pd.DataFrame:
    """The most KV extension at a slowdown of at most `limit`, among the numbers of resident experts simulated.

    A row per configuration whose baseline fits, a column per strategy. All experts resident, which is the baseline and
    needs no simulation, is always possible: nothing is below 1.
    """
    found = fitting(points)
    gained = found["kv_extension_factor"].where(found["slowdown"] <= limit, 1).clip(lower=1)
    return _by_strategy(found.assign(gained=gained), "max")


def next_gains(points: pd.DataFrame, limit: float) -> pd.DataFrame:
    """Like `gains`, of the first number of experts beyond `limit`: no number between those simulated gains as much."""
    found = fitting(points)
    beyond = found["kv_extension_factor"].where(found["slowdown"] > limit, np.inf)
    reached, first = gains(points, limit), _by_strategy(found.assign(gained=beyond), "min")
    return first.where(np.isfinite(first), reached).clip(lower=reached)


def _by_strategy(found: pd.DataFrame, most_or_least: str) -> pd.DataFrame:
    return found.pivot_table(index=CONFIGURATION, columns="strategy", values="gained", aggfunc=most_or_least)


def claimed(record: str, gpu: str, batch_size: int) -> dict[str, float]:
    """KV extension by model that the report prints, from the record that reproduces it; without a path nothing."""
    if not record:
        return {}
    told = where(pd.read_csv(record, usecols=MEMORY_COLUMNS), gpu=gpu, batch_size=batch_size)
    told = told[told["kv_extension_factor"] > 0]
    return dict(zip(told["model"], told["kv_extension_factor"], strict=True))


def memory_alone(memory: pd.DataFrame, points: pd.DataFrame) -> pd.Series:
    """KV extension where only memory counts, of the configurations whose baseline fits."""
    wanted = gains(points, ANY_SLOWDOWN).index
    return memory.set_index(CONFIGURATION)["kv_extension_factor"].reindex(wanted)


def findings(
    points: pd.DataFrame,
    memory: pd.DataFrame,
    *,
    gpu: str,
    batch_size: int,
    models: list[str],
    limits: list[float],
    claimed_slowdown: float,
    claimed_extension: Mapping[str, float],
) -> str:
    """Say in Markdown what a longer context costs; every number is computed from the points."""
    if fitting(points).empty:
        return "* The baseline of no configuration fits: there is no context to extend."
    lines = [_of_all(points, memory, limit) for limit in sorted({*limits, claimed_slowdown})]
    here = where(points, gpu=gpu, batch_size=batch_size)
    for model in models:
        rows = fitting(where(here, model=model))
        told = _of_model(rows, claimed_slowdown, claimed_extension.get(model)) if len(rows) else "no baseline fits."
        lines.append(f"**{model}** on {gpu}, batch {batch_size}: {told}")
    return "\n".join(f"* {line}" for line in lines)


def _of_all(points: pd.DataFrame, memory: pd.DataFrame, limit: float) -> str:
    reached, beyond = gains(points, limit), next_gains(points, limit)
    told = ", ".join(
        f"{reached[name].mean():.3f} ({label}; {(reached[name] > 1).mean():.0%} gain anything)"
        for name, label in STRATEGIES.items()
        if name in reached
    )
    text = f"At a slowdown of at most **{limit:g}** a context is, in the mean of {len(reached)} configurations, {told}"
    text += f" times as long. Memory alone would allow {memory_alone(memory, points).mean():.2f} times."
    if PROPHET in beyond:
        text += f" Between the numbers of experts simulated, Prophet stays below {beyond[PROPHET].mean():.2f}."
    return text


def _of_model(rows: pd.DataFrame, claimed_slowdown: float, claimed_extension: float | None) -> str:
    told = []
    for name, label in STRATEGIES.items():
        mine = where(rows, strategy=name).sort_values("saved_gb")
        costly = mine[mine["saved_gb"] > 0]
        if len(costly):
            first, last = costly.iloc[0], costly.iloc[-1]
            told.append(
                f"{label}: the first {first.saved_gb:.1f} GB cost {first.slowdown - 1:+.0%} time for "
                f"{first.kv_extension_factor - 1:+.1%} context, {last.saved_gb:.1f} GB a slowdown of "
                f"{last.slowdown:.1f} for {last.kv_extension_factor - 1:+.0%}"
            )
    text = "; ".join(told)
    reached = gains(rows, claimed_slowdown).iloc[0]
    known = [name for name in STRATEGIES if name in reached]
    text += f". At {claimed_slowdown:g}: {', '.join(f'{reached[name]:.3f} ({STRATEGIES[name]})' for name in known)}"
    if claimed_extension is not None:
        text += f"; the report claims {claimed_extension:.3f}"
    return f"{text}."


def draw(
    points: pd.DataFrame,
    memory: pd.DataFrame,
    style: Style,
    *,
    gpu: str,
    batch_size: int,
    models: list[str],
    limits: list[float],
    claimed_slowdown: float,
    claimed_extension: Mapping[str, float],
) -> Figure:
    """Left: the frontier of each model on one GPU. Right: the gain at each limit, of all configurations."""
    alone = memory_alone(memory, points)
    expected = {model: (alone.get((model, gpu, batch_size)), claimed_extension.get(model)) for model in models}
    with styled(style):
        figure = new_figure(style.figures.frontier)
        left, right = figure.subfigures(1, 2, width_ratios=[1.12, 1])
        _draw_frontiers(left, where(points, gpu=gpu, batch_size=batch_size), expected, claimed_slowdown, style)
        left.axes[0].set_title(f"What context costs, {gpu}, batch {batch_size}", fontsize=style.font_size_pt)
        _draw_gains(right.subplots(), points, alone, sorted(limits), claimed_slowdown, style)
        claims = any(claim is not None for _, claim in expected.values())
        _add_legend(figure, points, claims, claimed_slowdown, style)
        settle(figure)
    return figure


def _add_legend(figure: Figure, points: pd.DataFrame, claims: bool, claimed_slowdown: float, style: Style) -> None:
    looks = {STRATEGIES[name]: _look(style, name) for name in STRATEGIES if name in set(points["strategy"])}
    looks["memory alone"] = _memory_look(style)
    if claims:
        looks["reported context"] = _claim_look(style)
    looks[f"reported slowdown, {claimed_slowdown:g}"] = _claimed_slowdown_look(style)
    handles = [Line2D([], [], **look) for look in looks.values()]
    figure.legend(handles, list(looks), loc="outside lower center", ncols=len(looks), columnspacing=1.2)


def _look(style: Style, name: str) -> dict[str, object]:
    """The oracle is dashed and hollow; no prediction, which is drawn first, is wide, so that it shows below Prophet."""
    look = series_look(style, _LOOKS[name])
    if name == ORACLE:
        return look | {"linewidth": 1, "markersize": 3.2, "markerfacecolor": "white", "linestyle": (0, (3, 1.5))}
    if name == PROPHET:
        return look | {"linewidth": 1.1, "markersize": 2.8}
    return look | {"linewidth": 2.6, "markersize": 4.2, "alpha": 0.5}


def _memory_look(style: Style) -> dict[str, object]:
    return {"color": style.colours.text, "marker": "s", "markersize": 3.6, "linestyle": "none"}


def _claim_look(style: Style) -> dict[str, object]:
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
    return {"color": style.colours.does_not_fit, "marker": "*", "markersize": 8, "linestyle": "none"} | edge


def _claimed_slowdown_look(style: Style) -> dict[str, object]:
    return {"color": style.colours.does_not_fit, "linewidth": 1, "linestyle": (0, (1, 1))}


def _draw_frontiers(
    figure: SubFigure,
    points: pd.DataFrame,
    expected: Mapping[str, tuple[float | None, float | None]],
    claimed_slowdown: float,
    style: Style,
) -> None:
    """A panel per model, in two rows where there are more than two, with the same axes."""
    rows = 1 if len(expected) <= 2 else 2
    panels = figure.subplots(rows, -(-len(expected) // rows), sharex=True, sharey=True, squeeze=False)
    for number, (ax, (model, marks)) in enumerate(zip(panels.flat, expected.items(), strict=False)):
        found = fitting(where(points, model=model))
        for name in STRATEGIES:
            line = where(found, strategy=name).sort_values("slowdown")
            ax.plot(line["slowdown"], line["kv_extension_factor"], **_look(style, name))
        ax.axvline(claimed_slowdown, zorder=1, **_claimed_slowdown_look(style))
        for value, look in zip(marks, (_memory_look(style), _claim_look(style)), strict=True):
            if value is not None:
                ax.plot(claimed_slowdown, value, zorder=5, **look)
        title = model if len(found) else f"{model}:\nbaseline does not fit"
        ax.text(0.24, 0.94, title, transform=ax.transAxes, va="top", fontsize=small_pt(style), bbox=BACKING)
        ax.grid(axis="both")
        if number + panels.shape[1] >= len(expected):
            ax.set_xlabel("Slowdown")
            ax.tick_params(labelbottom=True)
    for spare in panels.flat[len(expected) :]:
        spare.remove()
    first = panels[0, 0]
    first.set_xscale("log")
    first.set_xlim(0.85, max(2, 1.3 * points["slowdown"].max()))
    first.set_ylim(*_with_room(*first.get_ylim()))
    first.yaxis.set_major_locator(MaxNLocator(TICKS))
    first.xaxis.set_major_locator(FixedLocator(SLOWDOWNS))
    first.xaxis.set_major_formatter("{x:g}")
    first.xaxis.set_minor_locator(NullLocator())
    for ax in panels[:, 0]:
        ax.set_ylabel("KV extension")


def _with_room(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis with room for a panel's name above what is drawn."""
    return low, high + 0.1 * (high - low)


def _draw_gains(
    ax: Axes, points: pd.DataFrame, alone: pd.Series, limits: list[float], claimed_slowdown: float, style: Style
) -> None:
    """Rows by limit and strategy, memory alone last: every configuration a dot, their mean a mark and its value."""
    known = [name for name in STRATEGIES if name in set(fitting(points)["strategy"])]
    middles = []
    row = 0.0
    for limit in [*limits, ANY_SLOWDOWN]:
        reached = gains(points, limit)
        for number, name in enumerate(known):
            _draw_spread(ax, row + number, reached[name], _look(style, name), style)
        middles.append(row + (len(known) - 1) / 2)
        if limit == claimed_slowdown:
            band = {"color": style.colours.does_not_fit, "alpha": 0.12, "linewidth": 0, "zorder": 0}
            ax.axhspan(row - 0.75, row + len(known) - 0.25, **band)
        row += len(known) + 0.5
    _draw_spread(ax, row, alone, _memory_look(style), style)
    ax.set_ylim(row + 0.9, -0.75)
    ax.set_yticks([*middles, row], [*(f"{limit:g}" for limit in limits), "any", "memory\nalone"])
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel("Slowdown at most")
    ax.set_xscale("log")
    most = pd.Series([2, alone.max(), fitting(points)["kv_extension_factor"].max()]).max()
    ax.set_xlim(0.95, 1.25 * most)
    ax.set_xticks([factor for factor in FACTORS if factor <= most])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(axis="x")
    ax.set_xlabel("KV extension (dots: configurations)")
    ax.set_title(f"What {len(alone)} configurations gain", fontsize=style.font_size_pt)
    ax.set_title("mean", loc="right", fontsize=small_pt(style))


def _draw_spread(ax: Axes, at: float, values: pd.Series, look: dict[str, object], style: Style) -> None:
    """Dots below each other in the order of the configurations, and the mean over them."""
    dots = {"linestyle": "none", "marker": "o", "markersize": 1.8, "markeredgewidth": 0, "alpha": 0.4}
    ax.plot(values, at + np.linspace(-0.33, 0.33, len(values)), color=look["color"], **dots)
    if values.empty:
        return
    mean = values.mean()
    ax.plot(mean, at, zorder=4, **look | {"markersize": 5, "alpha": 1, "markeredgecolor": look["color"]})
    ax.text(1, at, f"{mean:.2f}", transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=small_pt(style))
