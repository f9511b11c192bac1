"""Alternatives to Prophet: time of a decode step against the weights on the GPU, by way of serving and format."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from prophet_moe.present.style import legend_in_rows, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.alternatives.study import BASELINE_FORMAT, FIGURE

LOOKS = {
    "all_resident": ("all experts resident", 1, "s"),
    "prophet": ("Prophet, slots for {shares} of the experts", 0, "o"),
    "expert_slots": ("the same slots, LRU on demand", 4, "D"),
    "needed_experts": ("needed experts copied each step", 2, "^"),
    "streamed": ("all weights streamed layer by layer", 5, "v"),
}
"""Name, number of the colour and marker of each way of serving that is drawn."""
SMALL_FORMAT = "int4_group128"
"""The format that points are drawn in beside that of the baseline."""
REPORTED = "The report's claims"


def shown(table: pd.DataFrame, gpu: str, models: Sequence[str]) -> pd.DataFrame:
    """The rows that the figure shows: one GPU, some models, weights of 16 and 4 bits, ways that are timed and drawn."""
    drawn = table["approach"].isin(LOOKS) & table["format"].isin([BASELINE_FORMAT, SMALL_FORMAT])
    found = table[drawn & (table["gpu"] == gpu) & table["model"].isin(models) & table["slowdown"].notna()]
    return found.assign(weights_share=100 * found["weights_gb"] / _baseline(found, "weights_gb"))


def _baseline(rows: pd.DataFrame, column: str) -> pd.Series:
    """What the baseline of each row has in a column."""
    keys = ["model", "gpu", "batch_size"]
    whole = rows[(rows["approach"] == "all_resident") & (rows["format"] == BASELINE_FORMAT)]
    return rows[keys].merge(whole[[*keys, column]], on=keys, how="left")[column].set_axis(rows.index)


def _span(values: pd.Series, digits: int = 3) -> str:
    low, high = (f"{value:.{digits}g}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _claim(row) -> str:
    """What the report says of the slowdown of a row."""
    low, high = f"{row.reported_low:g}", f"{row.reported_high:g}"
    return f"{low}x" if low == high else f"{low} to {high}x"


def _longer(rows: pd.DataFrame, form: str) -> str:
    """How much longer the longest context of the baseline and of Prophet is in a format, median where they fit."""
    keys = ["model", "batch_size", "approach", "resident_share"]
    longest = rows.assign(resident_share=rows["resident_share"].fillna(0)).pivot_table(
        index=keys, columns="format", values="max_context", aggfunc="first"
    )
    longest = longest[longest[BASELINE_FORMAT] > 0]
    ratio = (longest[form] / longest[BASELINE_FORMAT]).groupby("approach").median()
    known = [way for way in ("all_resident", "prophet") if way in ratio]
    return ", ".join(f"{way} {ratio[way]:.2g}x" for way in known)


def headline(table: pd.DataFrame, gpu: str, models: Sequence[str]) -> str:
    """The figure's statement: what 4 bits take, and what Prophet's slots take."""
    found = shown(table, gpu, models)
    small = found[(found["approach"] == "all_resident") & (found["format"] == SMALL_FORMAT)]
    slots = found[(found["approach"] == "prophet") & (found["format"] == BASELINE_FORMAT)]
    share = slots["resident_share"].min()
    slots = slots[slots["resident_share"] == share]
    return (
        f"4-bit weights: {_span(small['weights_share'], 2)} % of the memory, {_span(small['slowdown'], 2)}x the time.\n"
        f"Prophet with slots for {100 * share:.3g} % of the experts: {_span(slots['slowdown'], 2)}x the time."
    )


def findings(table: pd.DataFrame, gpu: str, models: Sequence[str]) -> str:
    """Describe in Markdown what the figure and the table show; every number is computed from the table."""
    rows = table[(table["gpu"] == gpu) & table["slowdown"].notna()]
    whole = rows[rows["format"] == BASELINE_FORMAT]
    share = whole["resident_share"].min()
    lines = [headline(table, gpu, models).replace("\n", " ")]
    for batch, found in whole.groupby("batch_size"):
        by_way = {
            way: found[
                (found["approach"] == way) & (found["resident_share"].isna() | (found["resident_share"] == share))
            ]
            for way in ("every_expert", "needed_experts", "streamed", "prophet")
        }
        medians = {way: part["slowdown"].median() for way, part in by_way.items()}
        lines.append(
            f"Batch {batch}, 16 bits, medians of {found['model'].nunique()} models on {gpu}: every expert copied "
            f"{medians['every_expert']:.3g}x, needed experts {medians['needed_experts']:.3g}x, all weights streamed "
            f"{medians['streamed']:.3g}x, Prophet {medians['prophet']:.3g}x. So Prophet is "
            f"{medians['needed_experts'] / medians['prophet']:.2g} times as fast as copying the needed experts and "
            f"{medians['every_expert'] / medians['prophet']:.2g} times as fast as copying every one."
        )
    hidden = whole[whole["approach"] == "streamed"]["hidden_batch"].dropna().astype(float)
    if len(hidden):
        lines.append(
            f"Streaming is hidden from {hidden.min():,.0f} sequences on at best, {hidden.median():,.0f} in the median."
        )
    for form in ("int8", SMALL_FORMAT):
        if (rows["format"] == form).any():
            lines.append(
                f"Longest context in {form} over that at 16 bits, where that fits, median: {_longer(rows, form)}."
            )
    for row in rows[rows["reported_low"].notna()].itertuples():
        lines.append(
            f"{row.model}, batch {row.batch_size}, {row.approach} in {row.format}: the report has "
            f"{row.reported_expert_gb:g} GB of experts and {_claim(row)}, found are {row.expert_gb:.3g} GB and "
            f"{row.slowdown:.3g}x ({row.slowdown_low:.3g} to {row.slowdown_high:.3g})."
        )
    return "\n".join(f"* {line}" for line in lines)


def draw(table: pd.DataFrame, style: Style, gpu: str, models: Sequence[str]) -> Figure:
    """A panel per model (columns) and batch size (rows): slowdown (up) against the weights on the GPU (right)."""
    found = shown(table, gpu, models)
    batches = sorted(found["batch_size"].unique())
    models = [name for name in models if name in set(found["model"])]
    with styled(style):
        figure = new_figure(style.size_of(FIGURE), 0.9 + 1.45 * len(batches))
        axes = figure.subplots(len(batches), len(models), sharex=True, sharey=True, squeeze=False)
        for line, batch in zip(axes, batches, strict=True):
            for ax, model in zip(line, models, strict=True):
                _panel(ax, found[(found["model"] == model) & (found["batch_size"] == batch)], style)
                here = (table["gpu"] == gpu) & (table["model"] == model) & (table["batch_size"] == batch)
                _claims(ax, table[here], style)
                ax.set_title(f"{model}, batch {batch}")
        axes[-1, len(models) // 2].set_xlabel(f"Weights on the GPU, % of the baseline's ({gpu})")
        figure.supylabel("Time of a step over the baseline's", fontsize=style.font_size_pt)
        figure.suptitle(headline(table, gpu, models), x=0.01, ha="left", fontsize=style.font_size_pt)
        _key(figure, found, bool(table["reported_low"].notna().any()), style)
        settle(figure)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    ax.set(xscale="log", yscale="log", xlim=(0.4, 160), ylim=(0.2, 3000))
    ax.axhline(1, color=style.colours.baseline, linewidth=0.6, zorder=1)
    ax.grid(axis="y", zorder=0)
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())
    for approach, (_, number, marker) in LOOKS.items():
        colour = style.colours.series[number % len(style.colours.series)]
        part = rows[rows["approach"] == approach]
        for _, way in part.groupby(part["resident_share"].fillna(0)):
            way = way.sort_values("weights_share")
            ax.plot(way["weights_share"], way["slowdown"], color=colour, linewidth=0.8, zorder=2)
            for row in way.itertuples():
                full = row.format == BASELINE_FORMAT
                look = {"markerfacecolor": colour if full else "white", "markeredgecolor": colour, "markersize": 4.5}
                ax.plot(row.weights_share, row.slowdown, marker, zorder=4 if approach == "prophet" else 3, **look)
                ends = [[row.slowdown - row.slowdown_low], [row.slowdown_high - row.slowdown]]
                ax.errorbar(row.weights_share, row.slowdown, yerr=ends, color=colour, linewidth=0.7, zorder=2)


def _claims(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    """The report's claims of a model at a batch size, at 16 bits: a star, and a bar where it gives a range."""
    rows = rows[rows["reported_low"].notna() & (rows["format"] == BASELINE_FORMAT)]
    whole = rows.loc[rows["approach"] == "all_resident", "reported_expert_gb"].max()
    for row in rows[rows["approach"] != "all_resident"].itertuples():
        share, colour = 100 * row.reported_expert_gb / whole, style.colours.does_not_fit
        ax.plot([share] * 2, [row.reported_low, row.reported_high], color=colour, linewidth=1.5, zorder=5)
        ax.plot(share, row.reported_low, "*", color=colour, markersize=7, zorder=6)
        look = {"textcoords": "offset points", "va": "bottom", "fontsize": small_pt(style), "color": colour}
        side = -1 if row.approach == "prophet" else 1  # away from the points of the same way of serving
        beside = {"ha": "right" if side < 0 else "left"}
        ax.annotate(_claim(row), (share, row.reported_low), (5 * side, 1), **look, **beside)


def _key(figure: Figure, rows: pd.DataFrame, claimed: bool, style: Style) -> None:
    handles = {}
    shares = " and ".join(f"{100 * share:g} %" for share in sorted(rows["resident_share"].dropna().unique()))
    for approach, (name, number, marker) in LOOKS.items():
        colour = style.colours.series[number % len(style.colours.series)]
        if (rows["approach"] == approach).any():
            handles[name.format(shares=shares)] = Line2D(
                [], [], linestyle="none", marker=marker, color=colour, markersize=4.5
            )
    grey = {"linestyle": "none", "color": style.colours.baseline, "markeredgecolor": style.colours.text}
    handles["filled: 16 bits"] = Line2D([], [], marker="h", markerfacecolor=style.colours.text, markersize=5, **grey)
    handles["white: 4 bits"] = Line2D([], [], marker="H", markerfacecolor="white", markersize=5, **grey)
    if claimed:
        handles[REPORTED] = Line2D([], [], linestyle="none", marker="*", color=style.colours.does_not_fit, markersize=7)
    legend_in_rows(figure, handles, 3)
    for words in figure.legends[-1].get_texts():
        words.set_fontsize(small_pt(style))
