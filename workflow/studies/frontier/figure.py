"""The KV extension within each limit of slowdown, next to the memory floor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from prophet_moe.capacity.limits import CONFIGURATION
from prophet_moe.capacity.record import RECORD
from prophet_moe.capacity.summary import geometric_mean
from prophet_moe.present.frontier_lines import AXIS, LIMITS, ROUNDING, fitting, selection, slowdown_axis
from prophet_moe.present.price import STRATEGIES, statement
from prophet_moe.present.select import where
from prophet_moe.present.style import legend_in_rows, new_figure, settle, small_pt, strategy_look, styled
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table
from studies.frontier.study import FIGURE

INTERVAL = ["slowdown_low", "slowdown_high"]
"""The interval of the slowdown over sequences, drawn where the table has it."""
BOUND = "slowdown_bound"
"""The slowdown with the times of the datasheet."""
FLOOR = "memory floor: if every expert were there in time"
BOUND_LABEL = "Prophet, times of datasheets"


def claimed(record: str, gpu: str, batch_size: int) -> dict[str, float]:
    """KV extension by model that the report prints, from the record that reproduces it; without a path nothing."""
    if not record:
        return {}
    printed = where(read_table(Path(record), RECORD), gpu=gpu, batch_size=batch_size)
    printed = printed[printed["kv_extension_factor"] > 0]
    return dict(zip(printed["model"], printed["kv_extension_factor"], strict=True))


def memory_floor(memory: pd.DataFrame, points: pd.DataFrame) -> pd.Series:
    """KV extension where only memory counts, of the configurations whose baseline fits."""
    wanted = pd.MultiIndex.from_frame(fitting(points)[CONFIGURATION].drop_duplicates()).sort_values()
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
    """Describe in Markdown what a longer context costs; every number is computed from the points."""
    if fitting(points).empty:
        return "* The baseline of no configuration fits, so there is no context to extend."
    shown = sorted({*limits, claimed_slowdown})
    gains = selection(points, np.array(shown))
    floor = memory_floor(memory, points)
    lines = [_of_all(gains[limit], limit) for limit in shown]
    lines.append(
        "The memory floor is the KV extension by memory alone, if every expert were there in time. Its median is "
        f"{floor.median():.2f} and its geometric mean {geometric_mean(floor):.2f}. It belongs to no slowdown."
    )
    if _has_bound(points):
        medians = zip(shown, bound_medians(points, np.array(shown)), strict=True)
        told = ", ".join(f"{median:.3f} within {limit:g}" for limit, median in medians)
        lines.append(f"With the times of datasheets, Prophet's median KV extension is {told}.")
    lines += _above_floor(gains, floor)
    for model in models:
        key = (model, gpu, batch_size)
        if key not in floor.index:
            lines.append(f"**{model}** on {gpu}, batch size {batch_size}: the baseline does not fit.")
            continue
        reached = gains[claimed_slowdown].loc[key]
        text = ", ".join(f"{reached[name]:.3f} ({STRATEGIES[name]})" for name in STRATEGIES if name in reached)
        claim = claimed_extension.get(model)
        report = "" if claim is None else f", and the report claims {claim:.3f}"
        lines.append(
            f"**{model}** on {gpu}, batch size {batch_size}, within a slowdown of {claimed_slowdown:g}: {text}. "
            f"The memory floor is {floor[key]:.3f}{report}."
        )
    return "\n".join(f"* {line}" for line in lines)


def above_floor(gains: pd.DataFrame, floor: pd.Series) -> pd.DataFrame:
    """Whether a strategy gains more within each limit than by memory alone: the rows and columns of `selection`.

    A floor below the baseline counts as 1, as what is gained within a limit does.
    """
    alone = floor.clip(lower=1).reindex(gains.index.droplevel("strategy"))
    return gains.gt((1 + ROUNDING) * alone.to_numpy(), axis=0)


def _above_floor(gains: pd.DataFrame, floor: pd.Series) -> list[str]:
    """In how many configurations time buys more than memory alone, by limit and strategy, and why it can."""
    more = above_floor(gains, floor)
    if not more.any(axis=None):
        return ["Within these limits, no strategy gains more than by memory alone."]
    counts = more.groupby("strategy").sum()
    labels = {name: label for name, label in STRATEGIES.items() if name in counts.index}
    counted = [
        f"within {limit:g}: {', '.join(f'{counts.loc[name, limit]} ({label})' for name, label in labels.items())}"
        for limit in more
    ]
    batches = more.index[more.any(axis=1)].get_level_values("batch_size")
    return [
        f"Of {len(floor)} configurations, these numbers gain more within a limit of slowdown than by memory alone: "
        f"{'; '.join(counted)}. Their batch sizes are {batches.min()} to {batches.max()}. The memory floor keeps "
        "enough experts for nearly all steps, which in large batches is nearly every expert. A step within a limit may "
        "miss a few of them and fetch them."
    ]


def _of_all(gained: pd.Series, limit: float) -> str:
    by_strategy = dict(list(gained.groupby("strategy")))
    described = "; ".join(
        f"{label} {by_strategy[name].median():.3f} ({geometric_mean(by_strategy[name]):.3f}), "
        f"{(by_strategy[name] >= 1.01).mean():.0%} gain at least 1 %"
        for name, label in STRATEGIES.items()
        if name in by_strategy
    )
    return (
        f"Within a slowdown of **{limit:g}**, the median KV extension (geometric mean in brackets) over "
        f"{gained.index.droplevel('strategy').nunique()} configurations is: {described}."
    )


def headline(points: pd.DataFrame, memory: pd.DataFrame, claimed_slowdown: float) -> str:
    """The figure's statement, of all configurations whose baseline fits."""
    reached = selection(points, np.array([claimed_slowdown]))[claimed_slowdown].groupby("strategy").median()
    return statement(claimed_slowdown, reached, memory_floor(memory, points))


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
    """Left: the median gain of all configurations by limit. Right: the same for each model on one GPU."""
    here = where(points, gpu=gpu, batch_size=batch_size)
    floor = memory_floor(memory, points)
    with styled(style):
        figure = new_figure(style.size_of(FIGURE))
        left, right = figure.subfigures(1, 2, width_ratios=[1, 1.35])
        ax = left.subplots()
        _draw_all(ax, points, floor, claimed_slowdown, style)
        if floor.size:
            title = headline(points, memory, claimed_slowdown)
            left.suptitle(title, x=0.01, ha="left", fontsize=style.font_size_pt)
        rows = 1 if len(models) <= 2 else 2
        panels = right.subplots(rows, -(-len(models) // rows), sharex=True, squeeze=False)
        for number, (panel, model) in enumerate(zip(panels.flat, models, strict=False)):
            mine = where(here, model=model)
            _draw_lines(panel, selection(mine, LIMITS), _band(mine), claimed_slowdown, style)
            _draw_floor(panel, floor.get((model, gpu, batch_size)), style)
            claim = claimed_extension.get(model)
            if claim is not None and len(fitting(mine)):
                panel.plot(claimed_slowdown, claim, **_claim_look(style))
            panel.set_title(model if len(fitting(mine)) else f"{model}: no baseline", fontsize=small_pt(style))
            _label(panel, style, small=True)
            if number % panels.shape[1] == 0:
                panel.set_ylabel("KV extension")
            if number + panels.shape[1] >= len(models):
                panel.tick_params(labelbottom=True)
        for spare in panels.flat[len(models) :]:
            spare.remove()
        right.suptitle(f"{gpu}, batch {batch_size}", fontsize=style.font_size_pt)
        right.supxlabel(AXIS, fontsize=style.font_size_pt)
        claims = any(claimed_extension.get(model) is not None for model in models)
        _add_legend(figure, points, claims, claimed_slowdown, style)
        settle(figure)
    return figure


def _add_legend(figure: Figure, points: pd.DataFrame, claims: bool, claimed_slowdown: float, style: Style) -> None:
    looks = {STRATEGIES[name]: _look(style, name) for name in STRATEGIES if name in set(points["strategy"])}
    if _has_bound(points):
        looks[BOUND_LABEL] = _bound_look(style)
    looks[FLOOR] = _floor_look(style)
    looks[f"reported slowdown, {claimed_slowdown:g}"] = _claimed_slowdown_look(style)
    if claims:
        looks["reported context"] = _claim_look(style)
    legend_in_rows(figure, {name: Line2D([], [], **look) for name, look in looks.items()}, 3)


def _look(style: Style, name: str) -> dict[str, Any]:
    """No prediction, which is drawn first, is wide and pale, so that it shows below a line that equals it."""
    look = strategy_look(style, name) | {"marker": ""}
    return look | ({"linewidth": 3.2, "alpha": 0.5} if name == "on_demand" else {"linewidth": 1.3})


def _floor_look(style: Style) -> dict[str, Any]:
    return {"color": style.colours.text, "linewidth": 1, "linestyle": (0, (5, 2))}


def _claim_look(style: Style) -> dict[str, Any]:
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
    return {"color": style.colours.does_not_fit, "marker": "*", "markersize": 7, "linestyle": "none"} | edge


def _claimed_slowdown_look(style: Style) -> dict[str, Any]:
    return {"color": style.colours.does_not_fit, "linewidth": 2.2, "alpha": 0.35}


def _has_bound(points: pd.DataFrame) -> bool:
    """Whether the table has slowdowns of Prophet with the times of the datasheet."""
    return BOUND in points and "prophet" in set(points["strategy"])


def bound_medians(points: pd.DataFrame, limits: np.ndarray) -> np.ndarray:
    """(limits,): the median KV extension of Prophet within each limit, with the times of the datasheet."""
    gains = selection(points, limits, BOUND)
    return gains[gains.index.get_level_values("strategy") == "prophet"].median().to_numpy()


def _bound_look(style: Style) -> dict[str, Any]:
    return strategy_look(style, "prophet") | {"marker": "", "linewidth": 1, "linestyle": (0, (1, 1.5))}


def _band(points: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """What is reached at the ends of the slowdown's interval, where the table has one."""
    if not set(INTERVAL) <= set(points.columns):
        return None
    low, high = (selection(points, LIMITS, end) for end in INTERVAL)
    return low, high


def _draw_all(ax: Axes, points: pd.DataFrame, floor: pd.Series, claimed_slowdown: float, style: Style) -> None:
    """Median over the configurations whose baseline fits; an empty panel where there is none."""
    gains, band = selection(points, LIMITS), _band(points)
    if gains.empty:
        ax.set_axis_off()
        return
    median = gains.groupby("strategy").median()
    ends = None if band is None else tuple(end.groupby("strategy").median() for end in band)
    _draw_lines(ax, median, ends, claimed_slowdown, style)
    if _has_bound(points):
        ax.plot(LIMITS, bound_medians(points, LIMITS), **_bound_look(style))
    _draw_floor(ax, floor.median(), style)
    _label(ax, style, small=False)
    ax.set_xlabel(AXIS)
    ax.set_ylabel("Median KV extension")


def _draw_lines(
    ax: Axes,
    gains: pd.DataFrame,
    band: tuple[pd.DataFrame, pd.DataFrame] | None,
    claimed_slowdown: float,
    style: Style,
) -> None:
    """A line per strategy over the limits, between the lines of the ends of its slowdown's interval."""
    ax.axvline(claimed_slowdown, zorder=1, **_claimed_slowdown_look(style))
    for name in STRATEGIES:
        if name not in gains.index.get_level_values("strategy"):
            continue
        look = _look(style, name)
        line = where(gains.reset_index(), strategy=name)[list(gains.columns)].iloc[0]
        ax.plot(gains.columns, line.to_numpy(float), **look)
        if band is not None:
            low, high = (where(end.reset_index(), strategy=name)[list(gains.columns)].iloc[0] for end in band)
            spread = {"color": look["color"], "alpha": 0.18, "linewidth": 0}
            ax.fill_between(gains.columns, high.to_numpy(float), low.to_numpy(float), **spread)


def _draw_floor(ax: Axes, floor: float | None, style: Style) -> None:
    """A line across the whole panel: what memory alone gives belongs to no slowdown."""
    if floor is not None and np.isfinite(floor):
        ax.axhline(floor, zorder=1, **_floor_look(style))


def _label(ax: Axes, style: Style, *, small: bool) -> None:
    slowdown_axis(ax)
    low, high = ax.get_ylim()
    ax.set_ylim(min(1 - 0.03 * (high - low), low), high + 0.05 * (high - low))
    ax.yaxis.set_major_locator(MaxNLocator(4 if small else 6, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter("{x:g}x")
    ax.grid(axis="both")
    if small:
        ax.tick_params(labelsize=small_pt(style))
