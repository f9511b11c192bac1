"""Which assumptions matter: ranges one at a time beside shares of the variance, and maps of two at a time."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prophet_moe.present.style import legend_below, new_figure, settle, small_pt, styled, text_on
from prophet_moe.settings.style import Style
from studies.sensitivity.study import FIGURE
from studies.sensitivity.study import MAPS as MAPS_FIGURE

NAMES = {
    "hit_rate": "hit rate",
    "link_share": "share of the link's peak",
    "batch_size": "batch size",
    "gpu": "GPU",
    "weight_format": "weight format",
    "kv_format": "KV cache format",
    "law": "law of distinct experts",
    "law_interval": "interval of the fitted law",
    "usable_memory": "usable memory",
    "reserve_mib": "runtime reserve",
    "activations": "activations",
    "prefill_chunk": "prefill chunk",
}
"""What figures call the inputs."""
LEVELS = {"int4_group128": "int4", "scenario's law": "fitted"}
"""Shorter words for levels."""
UNITS = {"reserve_mib": (1 / 1024, " GiB"), "activations": (100, " %"), "usable_memory": (100, " %")}
PERCENT = {"hit_rate": (100, " %"), "link_share": (100, " %")}
OUTCOMES = {
    "gained_share": "Share of the context\nthat Prophet gains",
    "slowdown": "Slowdown of a decode\nstep (estimated)",
}
MATTERS = 0.05
"""Total share of the variance from which on an input is said to matter."""


def ranges(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Return the least and the largest outcome over the levels of each input, and that at the reference (base)."""
    rows = table[(table["analysis"] == "one_at_a_time") & (table["outcome"] == outcome) & (table["model"] == "all")]
    by_input = rows.groupby("input", sort=False)["value"].agg(["min", "max"])
    return by_input.drop(index="none").assign(base=by_input.loc["none", "min"])


def shares(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Return the mean first and total share of each input, and the least and largest total share of a model."""
    rows = table[(table["outcome"] == outcome) & (table["model"] == "all")].set_index("input")
    first, total = (rows[rows["analysis"] == f"{order}_order"] for order in ("first", "total"))
    return pd.DataFrame({"first": first["value"], "total": total["value"], "low": total["low"], "high": total["high"]})


def order(table: pd.DataFrame) -> list[str]:
    """Return the inputs, those with the largest share of any outcome first."""
    largest = pd.concat([shares(table, outcome)["total"] for outcome in OUTCOMES], axis=1).max(axis=1)
    return list(largest.sort_values(ascending=False, kind="stable").index)


def matter(table: pd.DataFrame, outcome: str) -> list[str]:
    """Return the inputs whose total share is at least MATTERS, the largest first."""
    total = shares(table, outcome)["total"].sort_values(ascending=False, kind="stable")
    return list(total.index[total >= MATTERS])


def headline(table: pd.DataFrame) -> str:
    """The figure's statement: which inputs matter for memory, and which for time."""
    memory, time = (_list([NAMES[each] for each in matter(table, outcome)]) for outcome in OUTCOMES)
    moved = ranges(table, "gained_share").loc["hit_rate"]
    apart = "; the hit rate changes no byte of it" if moved["min"] == moved["max"] else ""
    return f"Memory depends on {memory}{apart}.\nTime depends on {time}."


def _list(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def findings(table: pd.DataFrame) -> str:
    """Describe in Markdown what the figures show; every number is computed from the table."""
    lines = [headline(table).replace("\n", " ")]
    for outcome, name in (("gained_share", "the share of the context that is gained"), ("slowdown", "the slowdown")):
        found = shares(table, outcome)
        told = [f"{NAMES[each]} {found.loc[each, 'total']:.0%}" for each in matter(table, outcome)]
        rest = found.drop(index=matter(table, outcome))["total"].max()
        lines.append(f"Total shares of the variance of {name}, mean of models: {', '.join(told)}.")
        lines.append(f"Every other input has at most {rest:.1%} of it.")
    at = table[(table["analysis"] == "one_at_a_time") & (table["model"] == "all")].set_index(
        ["outcome", "input", "level"]
    )
    rates = sorted({level for _, name, level in at.index if name == "hit_rate"}, key=float, reverse=True)
    steps = [f"{float(rate):.1%}: {at.loc[('slowdown', 'hit_rate', rate), 'value']:.3g}" for rate in rates]
    lines.append(f"Slowdown at the reference by hit rate: {', '.join(steps)} (geometric mean of models).")
    same = {at.loc[("gained_share", "hit_rate", rate), "value"] for rate in rates}
    lines.append(f"Memory gained by hit rate: {'the same at each' if len(same) == 1 else 'differs'}.")
    return "\n".join(f"* {line}" for line in lines)


def label(table: pd.DataFrame, name: str) -> str:
    """What an input is called beside its row, with its levels or ends."""
    rows = table[(table["analysis"] == "one_at_a_time") & (table["input"] == name) & (table["model"] == "all")]
    levels = list(dict.fromkeys(rows["level"]))
    if name == "law":
        powers = [float(level) for level in levels[1:]]
        return f"{NAMES[name]} ({LEVELS[levels[0]]}, B$^{{{min(powers):g}}}$ to B$^{{{max(powers):g}}}$)"
    if name == "law_interval":
        return f"{NAMES[name]} (95 %)"
    if name in ("weight_format", "kv_format", "gpu"):
        short = [LEVELS.get(level, level.split("-")[0] if name == "gpu" else level) for level in levels]
        return f"{NAMES[name]} ({short[0]} to {short[-1]})"
    scale, unit = {**UNITS, **PERCENT}.get(name, (1, ""))
    numbers = sorted(scale * float(level) for level in levels)
    return f"{NAMES[name]} ({numbers[0]:g} to {numbers[-1]:,g}{unit})"


def draw(table: pd.DataFrame, style: Style) -> Figure:
    """Rows are inputs; for memory and for time, the range of the outcome and the shares of its variance."""
    names = order(table)
    with styled(style):
        figure = new_figure(style.size_of(FIGURE))
        axes = figure.subplots(1, 4, sharey=True, width_ratios=(1.1, 1, 1.1, 1))
        for (outcome, title), pair in zip(OUTCOMES.items(), (axes[:2], axes[2:]), strict=True):
            colour = style.colours.series[0 if outcome == "gained_share" else 1]
            _draw_ranges(pair[0], ranges(table, outcome).reindex(names), outcome, colour, style)
            _draw_shares(pair[1], shares(table, outcome).reindex(names), colour, style)
            pair[0].set_xlabel(title)
            pair[1].set_xlabel("Share of\nits variance")
        for ax in axes:
            ax.tick_params(axis="y", length=0)
            for number in range(0, len(names), 2):
                ax.axhspan(number - 0.5, number + 0.5, color=style.colours.grid, alpha=0.35, linewidth=0, zorder=0)
        axes[0].set_yticks(range(len(names)), [label(table, name) for name in names], fontsize=small_pt(style))
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        figure.suptitle(headline(table), x=0.01, ha="left", fontsize=style.font_size_pt, linespacing=1.15)
        grey = style.colours.baseline
        handles = {
            "all inputs at the reference": Line2D([], [], color=style.colours.text, linewidth=0.8),
            "share by itself": Patch(facecolor=grey),
            "share with others (line: from model to model)": Patch(facecolor=grey, alpha=0.4),
        }
        legend_below(figure, handles, 3)
        settle(figure)
    return figure


def _draw_ranges(ax: Axes, found: pd.DataFrame, outcome: str, colour: str, style: Style) -> None:
    for place, row in enumerate(found.itertuples()):
        if row.max > row.min:
            ax.barh(place, row.max - row.min, 0.62, row.min, color=colour, alpha=0.6, zorder=2)
        else:
            ax.plot(row.base, place, "|", color=style.colours.text, markersize=5, zorder=3)
    ax.axvline(found["base"].iloc[0], color=style.colours.text, linewidth=0.8, zorder=3)
    ax.grid(axis="x")
    if outcome == "slowdown":
        ax.set_xlim(1, found["max"].max() * 1.12)
    else:
        most = np.ceil(found["max"].max() * 10) / 10
        ticks = np.arange(0, most + 0.01, 0.2)
        ax.set_xlim(0, most)
        ax.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])


def _draw_shares(ax: Axes, found: pd.DataFrame, colour: str, style: Style) -> None:
    for place, row in enumerate(found.itertuples()):
        ax.barh(place, row.total, 0.62, color=colour, alpha=0.4, zorder=2)
        ax.barh(place, max(0.0, row.first), 0.62, color=colour, zorder=2)
        if row.high > 0.005:
            ax.plot([row.low, row.high], [place, place], color=style.colours.text, linewidth=0.8, zorder=3)
        if row.total < 0.005:
            said = "none" if row.total < 1e-6 else "< 0.5 %"
            ax.text(0.04, place, said, va="center_baseline", fontsize=small_pt(style), color=style.colours.text)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.grid(axis="x")


MAP_TITLES = {
    ("slowdown", "hit_rate"): "Slowdown of a decode step",
    ("gained_share", "law"): "Share of the context gained (%)",
    ("gained_share", "weight_format"): "Context gained (%)",
}


def maps(table: pd.DataFrame) -> Mapping[tuple[str, str], pd.DataFrame]:
    """Return the two-way maps by outcome and input of the rows: levels of the rows by levels of the columns."""
    rows = table[table["analysis"] == "two_at_a_time"]
    found = {}
    for key, cells in rows.groupby(["outcome", "input"], sort=False):
        wide = cells.pivot_table(index="level", columns="other_level", values="value", sort=False)
        found[key] = wide.rename_axis(columns=cells["other_input"].iloc[0])
    return found


def draw_maps(table: pd.DataFrame, style: Style) -> Figure:
    """Three heatmaps of two inputs each, all else at the reference."""
    found = maps(table)
    with styled(style):
        figure = new_figure(style.size_of(MAPS_FIGURE))
        axes = figure.subplots(1, len(found), width_ratios=[cells.shape[1] for cells in found.values()])
        for ax, (key, cells) in zip(axes, found.items(), strict=True):
            slow = key[0] == "slowdown"
            norm = LogNorm(1, max(2.0, cells.to_numpy().max())) if slow else Normalize(0, 100)
            _draw_map(ax, cells if slow else 100 * cells, key[1], norm, ".2f" if slow else ".0f", style)
            ax.set_title(MAP_TITLES[key])
        settle(figure)
    return figure


def _draw_map(ax: Axes, cells: pd.DataFrame, rows: str, norm: Normalize, digits: str, style: Style) -> None:
    palette = colormaps[style.heatmap]
    ax.imshow(cells.to_numpy(), cmap=palette, norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(cells.to_numpy()):
        ink = text_on(style, palette(norm(value)))
        middle = {"ha": "center", "va": "center_baseline", "fontsize": small_pt(style)}
        ax.text(column, row, format(value, digits), color=ink, **middle)
    ax.set_xticks(np.arange(-0.5, cells.shape[1]), minor=True)
    ax.set_yticks(np.arange(-0.5, cells.shape[0]), minor=True)
    ax.grid(which="minor", color="white", linewidth=1)
    ax.tick_params(which="both", length=0)
    heads = {"hit_rate": "Hit rate (%)", "law": "Law of distinct experts", "weight_format": "Weight format"}
    levels = list(cells.index)
    if rows == "hit_rate":
        levels = [f"{100 * float(level):g}" for level in levels]
    elif rows == "law":
        levels = ["fitted", *(f"$B^{{{level}}}$" for level in levels[1:])]
    ax.set_yticks(range(len(cells)), [LEVELS.get(level, level) for level in levels])
    ax.set_ylabel(heads[rows])
    columns = [level.replace("-", "\n") for level in cells.columns]
    ax.set_xticks(range(cells.shape[1]), columns, fontsize=small_pt(style) if cells.columns.name == "gpu" else None)
    ax.set_xlabel({"batch_size": "Batch size B", "gpu": "GPU"}[cells.columns.name])
    for spine in ax.spines.values():
        spine.set_visible(False)
