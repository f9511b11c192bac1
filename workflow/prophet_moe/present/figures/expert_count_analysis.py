"""Figure 5: KV extension factor and dedup factor against the number of experts."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from prophet_moe.present.style import BACKING, new_figure, series_look, settle, small_pt, styled
from prophet_moe.present.tables import average_extension
from prophet_moe.settings import Style

DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a label may stand beside its point, most wanted first."""
TREND = "trend"
"""Marks the trend line of a panel, which labels keep clear of."""
DISTANCE_PT = 5
"""Between a point and its label."""
CROSSING_COST, NEAR_COST, NO_PLACE_COST = 10, 6, 100
"""What a label pays, in steps of DIRECTIONS: for crossing the trend line, for standing near a second point, for
having no place."""
NEAR_PT = 4
CLOSE_OCTAVES = 0.15
"""Expert counts closer than this (log2) print at nearly one place."""
STRIP_SHARE = 0.16
"""Share of panel (a)'s height that holds the crosses of models without a factor."""


@dataclass(frozen=True)
class Place:
    """Where a label may stand: its direction from the point, its box (pixels), its cost."""

    direction: tuple[int, int]
    box: Bbox
    cost: int


def selection(record: pd.DataFrame, *, zero_fill: bool) -> pd.DataFrame:
    """One row per model: model, experts, top_k, factor, dedup.

    factor is the mean KV extension factor over the rows where the baseline fits, or with `zero_fill` over all rows with
    0 where it does not; NaN if it never fits. dedup is the mean dedup factor over the batch sizes.
    """
    rows = record.groupby("model")
    models = pd.DataFrame(
        {
            "experts": rows["num_experts"].first().astype(int),
            "top_k": rows["top_k"].first().astype(int),
            "dedup": rows["dedup_factor"].mean(),
        }
    )
    table = average_extension(record, zero_fill).set_index("model")
    mean = table["mean_extension_zero_filled" if zero_fill else "mean_extension_fitting"]
    models["factor"] = mean.where(table["fitting_rows"] > 0)
    return models.sort_values(["experts", "top_k"], kind="stable").reset_index()


def group_means(models: pd.DataFrame) -> pd.DataFrame:
    """Mean factor of the models whose baseline fits, grouped by expert count to the nearest power of two.

    Columns: low, high (expert counts of the group), experts (their geometric mean), factor, models (their number).
    """
    fit = models.dropna(subset=["factor"])
    octave = np.log2(fit["experts"]).round()
    return fit.groupby(octave).agg(
        low=("experts", "min"),
        high=("experts", "max"),
        experts=("experts", _geometric_mean),
        factor=("factor", "mean"),
        models=("model", "size"),
    )


def _geometric_mean(values: pd.Series) -> float:
    return float(np.exp(np.log(values).mean()))


def power_law(models: pd.DataFrame) -> tuple[float, float] | None:
    """Scale c and exponent a of dedup = c E^a by least squares on logarithms; None for a single expert count."""
    if models["experts"].min() == models["experts"].max():
        return None
    exponent, logarithm = np.polyfit(np.log(models["experts"]), np.log(models["dedup"]), 1)
    return float(np.exp(logarithm)), float(exponent)


def findings(record: pd.DataFrame, *, zero_fill: bool) -> str:
    """Say in Markdown what the figure shows; every number is computed from the record."""
    models = selection(record, zero_fill=zero_fill)
    means, law = group_means(models), power_law(models)
    never = models[models["factor"].isna()]
    lines = []
    if len(means):
        groups = [f"{group.factor:.2f}× ({_members(group)})" for group in means.itertuples()]
        lines.append(f"Panel (a), group means from few to many experts: {'; '.join(groups)}.")
    if len(never):
        counts = ", ".join(map(str, sorted(never["experts"].unique())))
        lines.append(f"{len(never)} of {len(models)} models have no factor: their baseline never fits (E = {counts}).")
    top = models.loc[models["dedup"].idxmax()]
    lines.append(f"Panel (b): the largest mean dedup factor is {top['dedup']:.1f}, for {_described(top)}.")
    if law:
        rival = models.loc[models["experts"].idxmax()]
        lines.append(
            f"The fitted line is E to the power {law[1]:.2f}. Top-k matters too: {_described(rival)} reaches "
            f"{rival['dedup']:.1f}."
        )
    return "\n".join(f"* {line}" for line in lines)


def _members(group: object) -> str:
    counts = f"{group.low} experts" if group.low == group.high else f"{group.low} to {group.high} experts"
    return f"{counts}, {group.models} model{'s' if group.models > 1 else ''}"


def _described(model: pd.Series) -> str:
    return f"{model['model']} (E = {model['experts']}, top-{model['top_k']})"


def draw(record: pd.DataFrame, style: Style, *, zero_fill: bool) -> Figure:
    """Scatter panels over the number of experts (log2): mean KV extension factor, and mean dedup factor (log2)."""
    models = selection(record, zero_fill=zero_fill)
    looks = {int(top_k): series_look(style, index) for index, top_k in enumerate(sorted(models["top_k"].unique()))}
    with styled(style):
        figure = new_figure(style.figures.figure5_expert_count_analysis)
        extension, dedup = figure.subplots(1, 2)
        for ax in (extension, dedup):
            ax.grid(axis="y")
            ax.set_xscale("log", base=2)
            ax.set_xlim(models["experts"].min() / 2, models["experts"].max() * 2.5)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.minorticks_off()
            ax.set_xlabel("Routed experts per layer, E (log scale)")
        _draw_extension(extension, models, looks, style)
        _draw_dedup(dedup, models, looks, style)
        figure.legend(handles=_legend(models, looks, style), loc="outside upper center", ncols=len(looks) + 1)
        _tick_counts(figure, (extension, dedup), sorted(models["experts"].unique()))
        # Labels come after the layout: they lie inside the axes and depend on their size.
        settle(figure)
        _label_points(figure, extension, models.dropna(subset=["factor"]), "factor", style)
        _label_points(figure, dedup, models, "dedup", style)
    return figure


def _draw_extension(ax: Axes, models: pd.DataFrame, looks: dict[int, dict[str, str]], style: Style) -> None:
    means, never = group_means(models), models[models["factor"].isna()].groupby("experts").size()
    ax.plot(means["experts"], means["factor"], color=style.colours.baseline, zorder=1, gid=TREND)
    ax.axhline(1, color=style.colours.text, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
    ax.annotate("no gain", (0, 1), (2, 2), ("axes fraction", "data"), "offset points", fontsize=small_pt(style))
    _scatter(ax, models.dropna(subset=["factor"]), "factor", looks)
    low, high = models["factor"].min(), models["factor"].max()
    low, high = np.nanmin([low, 1]), np.nanmax([high, 1.1])
    span = high - low
    ticks = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    ax.set_yticks([tick for tick in ticks if low - 0.02 * span <= tick <= high + 0.15 * span])
    ax.set_ylim(low - (1.8 * STRIP_SHARE if len(never) else 0.15) * span, high + 0.15 * span)
    if len(never):
        _draw_never(ax, never, style)
    ax.set_ylabel("Mean KV extension factor")
    ax.set_title("(a) KV extension" + ("; line: mean per power of two of E" if len(means) > 1 else ""))


def _draw_never(ax: Axes, never: pd.Series, style: Style) -> None:
    """Crosses in a strip of their own below the values, each with the number of models behind it."""
    strip = ax.get_xaxis_transform()
    shade = {"facecolor": style.colours.grid, "alpha": 0.5, "linewidth": 0, "zorder": 0}
    ax.add_patch(Rectangle((0, 0), 1, STRIP_SHARE, transform=ax.transAxes, **shade))
    ax.plot(never.index, np.full(len(never), STRIP_SHARE / 3), "x", color=style.colours.does_not_fit, transform=strip)
    # Crosses that nearly touch share one number.
    group = (np.log2(never.index.to_series()).diff() > CLOSE_OCTAVES).cumsum()
    for _, crosses in never.groupby(group):
        ax.annotate(
            str(crosses.sum()),
            (_geometric_mean(crosses.index.to_series()), STRIP_SHARE / 3),
            (0, 3),
            strip,
            "offset points",
            ha="center",
            color=style.colours.does_not_fit,
            fontsize=small_pt(style),
        )


def _draw_dedup(ax: Axes, models: pd.DataFrame, looks: dict[int, dict[str, str]], style: Style) -> None:
    ax.set_yscale("log", base=2)
    law = power_law(models)
    title = "(b) Deduplication"
    if law:
        span = np.array([models["experts"].min(), models["experts"].max()])
        ax.plot(span, law[0] * span ** law[1], color=style.colours.baseline, zorder=1, gid=TREND)
        title += f"; line: least squares, ∝ E^{law[1]:.2f}"
    _scatter(ax, models, "dedup", looks)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.minorticks_off()
    ax.set_ylim(models["dedup"].min() / 2, models["dedup"].max() * 2)
    ax.set_ylabel("Mean dedup factor (log scale)")
    ax.set_title(title)


def _scatter(ax: Axes, models: pd.DataFrame, column: str, looks: dict[int, dict[str, str]]) -> None:
    points = {"linestyle": "", "markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.5}
    for top_k, group in models.groupby("top_k"):
        ax.plot(group["experts"], group[column], **points, **looks[top_k])


def _legend(models: pd.DataFrame, looks: dict[int, dict[str, str]], style: Style) -> list[Line2D]:
    handles = [Line2D([], [], linestyle="", label=f"top-{top_k}", **look) for top_k, look in looks.items()]
    if models["factor"].isna().any():
        look = {"marker": "x", "color": style.colours.does_not_fit}
        handles.append(Line2D([], [], linestyle="", label="baseline never fits (number of models)", **look))
    return handles


def _tick_counts(figure: Figure, panels: tuple[Axes, ...], counts: list[int]) -> None:
    """Tick the actual expert counts; a number too close to its neighbour goes a line down."""
    figure.draw_without_rendering()
    for ax in panels:
        centres = ax.transData.transform([(count, 1) for count in counts])[:, 0] * 72 / figure.dpi
        width = 0.75 * ax.xaxis.get_ticklabels()[0].get_fontsize()
        rows: list[int] = []
        ends: list[float] = []
        for count, centre in zip(counts, centres, strict=True):
            half = width * len(str(count)) / 2
            row = next((row for row, end in enumerate(ends) if centre - half > end), len(ends))
            rows.append(row)
            ends[row : row + 1] = [centre + half]
        ax.set_xticks(counts, ["\n" * row + str(count) for row, count in zip(rows, counts, strict=True)])


def _label_points(figure: Figure, ax: Axes, models: pd.DataFrame, column: str, style: Style) -> None:
    """Name every point whose name finds a free place; models at one place share a label, one line each."""
    notes = [text.get_window_extent() for text in ax.texts]
    marks = _mark_boxes(figure, ax, models, column)
    trend = _trend_boxes(figure, ax)
    labels, candidates = [], []
    for (value, experts), names in models.groupby([models[column].round(2), "experts"])["model"]:
        label = ax.annotate(
            "\n".join(names),
            (experts, float(value)),
            (0, 0),
            textcoords="offset points",
            fontsize=small_pt(style),
            linespacing=1.05,
            bbox=BACKING,
        )
        size = np.array(label.get_window_extent().size)
        labels.append(label)
        candidates.append(_candidates(ax, ax.transData.transform(label.xy), size, notes, marks, trend))
    for label, place in zip(labels, arrange(candidates), strict=True):
        if place is None:
            label.remove()
        else:
            across, up = place.direction
            label.set(ha=("center", "left", "right")[across], va=("center", "bottom", "top")[up])
            label.set_position(_step(across, up))


def _step(across: int, up: int) -> np.ndarray:
    """Offset (points) of a label from its point; a diagonal step is as long as a straight one."""
    return np.array([across, up]) * DISTANCE_PT / np.hypot(across, up)


def _candidates(
    ax: Axes, point: np.ndarray, size: np.ndarray, notes: list[Bbox], marks: list[Bbox], trend: list[Bbox]
) -> list[Place]:
    """Places around `point` for a label of `size` (both pixels) that are inside the axes and free, cheapest first."""
    inside = ax.get_window_extent()
    places = []
    for rank, direction in enumerate(DIRECTIONS):
        corner = point + _step(*direction) * ax.figure.dpi / 72 - size * (1 - np.array(direction)) / 2
        box = Bbox([corner, corner + size])
        if inside.contains(*box.min) and inside.contains(*box.max) and not box.count_overlaps(notes + marks):
            # Crossing the trend line (its white ground allows it) or standing near a second point is a last resort.
            near = box.padded(NEAR_PT * ax.figure.dpi / 72).count_overlaps(marks) > 1
            cost = rank + CROSSING_COST * bool(box.count_overlaps(trend)) + NEAR_COST * near
            places.append(Place(direction, box, cost))
    return sorted(places, key=_cost)


def _cost(place: Place | None) -> int:
    return NO_PLACE_COST if place is None else place.cost


def arrange(candidates: list[list[Place]]) -> list[Place | None]:
    """Choose one place per label so that no two overlap; None where there is none.

    Labels choose in turn. Then the one that fared worst moves to the front and all choose again; the cheapest
    arrangement of all turns is kept.
    """
    order = list(range(len(candidates)))
    best: list[Place | None] = []
    for _ in range(2 * len(candidates)):
        chosen = _choose(candidates, order)
        if not best or sum(map(_cost, chosen)) < sum(map(_cost, best)):
            best = chosen
        worst = max(order, key=[_cost(place) for place in chosen].__getitem__)
        order.remove(worst)
        order.insert(0, worst)
    return best


def _choose(candidates: list[list[Place]], order: list[int]) -> list[Place | None]:
    chosen: list[Place | None] = [None] * len(candidates)
    taken: list[Bbox] = []
    for label in order:
        chosen[label] = next((place for place in candidates[label] if not place.box.count_overlaps(taken)), None)
        taken += [chosen[label].box] if chosen[label] else []
    return chosen


def _mark_boxes(figure: Figure, ax: Axes, models: pd.DataFrame, column: str) -> list[Bbox]:
    half = 3.5 * figure.dpi / 72
    centres = ax.transData.transform(models[["experts", column]].to_numpy(float))
    return [Bbox([centre - half, centre + half]) for centre in centres]


def _trend_boxes(figure: Figure, ax: Axes) -> list[Bbox]:
    """Small boxes along the trend line, if there is one."""
    half = figure.dpi / 72
    lines = [ax.transData.transform(line.get_xydata()) for line in ax.lines if line.get_gid() == TREND]
    steps = np.linspace(0, 1, 60)[:, None]
    points = [start + steps * (end - start) for line in lines for start, end in pairwise(line)]
    return [Bbox([point - half, point + half]) for segment in points for point in segment]
