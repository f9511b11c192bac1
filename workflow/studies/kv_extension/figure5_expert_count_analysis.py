"""Figure 5: KV extension factor and dedup factor against the number of experts."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from prophet_moe.present.averages import average_extension
from prophet_moe.present.style import new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.kv_extension.study import FIGURE5

NEVER = "baseline never fits"
ROW_IN, AROUND_IN = 0.15, 0.75
"""Height of a model's row, and of what stands around the rows, inches."""
ROOM = 1.18
"""Factor by which an axis continues beyond its largest value, for the number printed there."""


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
    mean = table["mean_floor_zero_filled" if zero_fill else "mean_floor_fitting"]
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


def rank_correlations(models: pd.DataFrame) -> tuple[float, float] | None:
    """Spearman's rank correlation of the dedup factor with E, and with E / top-k; None where one is constant."""
    ranks = pd.DataFrame(
        {"dedup": models["dedup"], "experts": models["experts"], "ratio": models["experts"] / models["top_k"]}
    ).rank()
    if (ranks.max() == ranks.min()).any():
        return None
    found = ranks.corr()["dedup"]
    return float(found["experts"]), float(found["ratio"])


def widest_group(models: pd.DataFrame) -> pd.DataFrame | None:
    """The models of the number of experts at which the dedup factor differs most; None where it differs at none."""
    spans = models.groupby("experts")["dedup"].agg(lambda dedup: dedup.max() / dedup.min())
    return models[models["experts"] == spans.idxmax()] if spans.max() > 1 else None


def findings(record: pd.DataFrame, *, zero_fill: bool) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the record."""
    models = selection(record, zero_fill=zero_fill)
    means, ranks, alike = group_means(models), rank_correlations(models), widest_group(models)
    never = models[models["factor"].isna()]
    lines = []
    if len(means):
        groups = [f"{group.factor:.2f}× ({_members(group)})" for group in means.itertuples()]
        lines.append(f"Panel (a): the mean factors of groups, from few to many experts, are {'; '.join(groups)}.")
    if len(never):
        counts = ", ".join(map(str, sorted(never["experts"].unique())))
        lines.append(f"{len(never)} of {len(models)} models have no factor: their baseline never fits (E = {counts}).")
    top = models.loc[models["dedup"].idxmax()]
    lines.append(f"Panel (b): the largest mean dedup factor is {top['dedup']:.1f}, for {_described(top)}.")
    if alike is not None:
        most, least = (alike.loc[getattr(alike["dedup"], end)()] for end in ("idxmax", "idxmin"))
        lines.append(
            f"Top-k matters as well as E: with {most['experts']} experts each, {_described(most)} has a dedup factor "
            f"of {most['dedup']:.1f}, and {_described(least)} has one of {least['dedup']:.1f}."
        )
    if ranks:
        lines.append(
            f"Rank correlation of the dedup factor with E is {ranks[0]:.2f}, with E / top-k {ranks[1]:.2f}, over "
            f"{len(models)} models."
        )
    return "\n".join(f"* {line}" for line in lines)


def _members(group: object) -> str:
    counts = f"{group.low} experts" if group.low == group.high else f"{group.low} to {group.high} experts"
    return f"{counts}, {group.models} model{'s' if group.models > 1 else ''}"


def _described(model: pd.Series) -> str:
    return f"{model['model']} (E = {model['experts']}, top-{model['top_k']})"


def headlines(models: pd.DataFrame) -> tuple[str, str]:
    """The statements of the two panels: the span of KV extensions, and that of dedup factors, at one E as well."""
    fit, dedup, alike = models["factor"].dropna(), models["dedup"], widest_group(models)
    extension = f"(a) {len(fit)} of {len(models)} models fit" + (
        f": {fit.min():.2f} to {fit.max():.2f}x" if len(fit) else ""
    )
    spread = f"(b) Dedup factor {_brief(dedup.min())} to {_brief(dedup.max())}"
    if alike is not None:
        mine = alike["dedup"]
        spread += f" (E = {alike['experts'].iloc[0]}: {_brief(mine.min())} to {_brief(mine.max())})"
    return extension, spread


def _brief(factor: float) -> str:
    """A dedup factor to two figures."""
    return f"{factor:.0f}" if factor >= 9.95 else f"{factor:.1f}"


def draw(record: pd.DataFrame, style: Style, *, zero_fill: bool) -> Figure:
    """A row per model, from few experts to many: its mean KV extension factor, and its mean dedup factor (log)."""
    models = selection(record, zero_fill=zero_fill)
    with styled(style):
        figure = new_figure(style.size_of(FIGURE5), ROW_IN * len(models) + AROUND_IN)
        extension, dedup = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1])
        figure.get_layout_engine().set(wspace=0.03)
        for ax, title in zip((extension, dedup), headlines(models), strict=True):
            ax.set_title(title)
            ax.spines["left"].set_visible(False)
            _part_groups(ax, models["experts"], style)
        _draw_values(extension, models["factor"], style)
        _draw_values(dedup, models["dedup"], style)
        dedup.set_xscale("log", base=2)
        dedup.set_xlim(0.95, models["dedup"].max() * ROOM**3)
        dedup.xaxis.set_major_locator(LogLocator(2))
        dedup.xaxis.set_major_formatter("{x:g}")
        dedup.xaxis.set_minor_locator(NullLocator())
        low, high = np.nanmin([models["factor"].min(), 1]), np.nanmax([models["factor"].max(), 1.1])
        extension.set_xlim(low - (0.02 if low >= 1 else 0.15) * (high - low), high + (ROOM - 1) * (high - low))
        extension.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        for place in np.flatnonzero(models["factor"].isna()):
            extension.annotate(
                NEVER, (1, place), (4, 0), textcoords="offset points", va="center_baseline", **_never_look(style)
            )
        names = [f"{row.model}   {row.experts} / {row.top_k}" for row in models.itertuples()]
        extension.set_yticks(range(len(models)), names, fontsize=small_pt(style))
        extension.set_ylim(len(models) - 0.4, -0.6)
        extension.set_xlabel("Mean KV extension factor (memory floor)")
        extension.set_ylabel("Model, routed experts E / top-k")
        dedup.set_xlabel("Mean dedup factor E/u(B) (log scale)")
        settle(figure)
    return figure


def _never_look(style: Style) -> dict[str, object]:
    return {"color": style.colours.does_not_fit, "fontsize": small_pt(style), "fontstyle": "italic"}


def _draw_values(ax: Axes, values: pd.Series, style: Style) -> None:
    """A stem from 1, where nothing is gained, to each value, which is printed next to its mark."""
    known = values.dropna()
    ax.hlines(known.index, 1, known, color=style.colours.prophet, linewidth=1.4)
    ax.plot(known, known.index, "o", color=style.colours.prophet, markersize=4.5)
    ax.axvline(1, color=style.colours.text, linewidth=0.7)
    for place, value in known.items():
        side = 1 if value >= 1 else -1
        ax.annotate(
            f"{value:.2f}" if value < 10 else f"{value:.1f}",
            (value, place),
            (5 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center_baseline",
            fontsize=small_pt(style),
        )
    ax.tick_params(axis="y", length=0)


def _part_groups(ax: Axes, experts: pd.Series, style: Style) -> None:
    """A line between models of different numbers of experts."""
    for place in np.flatnonzero(experts.diff() > 0):
        ax.axhline(place - 0.5, color=style.colours.grid, linewidth=0.8, zorder=0)
