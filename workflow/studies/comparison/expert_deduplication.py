"""Accesses that batches of recorded routing save because their tokens share experts, next to the report's claims."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prophet_moe.present.select import where
from prophet_moe.present.style import legend_in_rows, new_figure, settle, small_pt, styled, trace_look
from prophet_moe.settings.style import Style
from studies.comparison.compute import deduplication_summary
from studies.comparison.study import DEDUPLICATION_FIGURE, ReportedComparison

DOTTED, DASHED = (0, (1, 1.5)), (0, (3, 1.5))
ROOM = 2.2
"""Factor by which the axis continues beyond the largest batch, for the numbers that the report prints for it."""
DEDUPLICATION, SCALING = "the report's table of deduplication", "the report's table of batch sizes"
"""Tables of the report that have savings (004:49-55 and 004:69-75), as the legend calls them."""
CLAIMS = {DEDUPLICATION: {"marker": "x"}, SCALING: {"marker": "+", "markersize": 6}}


def findings(counted: pd.DataFrame, *, traces: list[str], claimed: ReportedComparison) -> str:
    """Describe in Markdown what the counts show, and what contradicts the report; every number is computed."""
    summary = deduplication_summary(counted, claimed)
    lines = []
    for trace in traces:
        rows = where(summary, trace=trace)
        row = rows[rows["batch"] == rows["batch"].max()].iloc[0]
        report = f" (the report: {100 * row.claimed_saving:.1f} %)" if pd.notna(row.claimed_saving) else ""
        lines.append(
            f"* **{trace}**: a batch of {row.batch} accesses {row.unique_experts:.1f} distinct experts per layer. "
            f"Deduplication saves {_percent(row, 'request_dedup')} of its accesses{report}. Uniform random routing "
            f"would save {100 * row.uniform_request_dedup:.1f} %. {_percent(row, 'shared_requests')} of the accesses "
            "are to an expert that another token of the batch accesses as well. The distinct experts are "
            f"{_percent(row, 'resident_share')} of the layer's experts. A larger batch needs more of them, not fewer."
        )
    return "\n".join([*lines, *_of_its_two_savings(claimed), *_of_the_report(claimed)])


def _of_the_report(claimed: ReportedComparison) -> list[str]:
    """What is wrong with the report's numbers whatever the routing is."""
    both = sorted(set(claimed.savings) & set(claimed.reuse))
    if not both:
        return []
    largest = both[-1]
    lines = [
        f'* The report\'s "{100 * claimed.reuse[largest]:.1f} % memory savings" is its reuse factor at batch size '
        f"{largest}. Its own saving there is {100 * claimed.savings[largest]:.1f} %, of accesses and not of memory."
    ]
    # An expert that s >= 2 tokens share saves s - 1 >= s / 2 of its s requests.
    impossible = [batch for batch in both if claimed.reuse[batch] > 2 * claimed.savings[batch]]
    if impossible:
        named = ", ".join(
            f"{claimed.reuse[batch]:.3f} > 2 x {claimed.savings[batch]:.3f} at batch {batch}" for batch in impossible
        )
        lines.append(
            f"* The reuse factor is not a share of shared accesses either: no routing shares more than twice what it "
            f"saves, but the report has {named}."
        )
    return lines


def _of_its_two_savings(claimed: ReportedComparison) -> list[str]:
    """The report prints the same savings twice."""
    twice = sorted(set(claimed.savings) & set(claimed.scaling_savings))
    if not twice or all(claimed.savings[batch] == claimed.scaling_savings[batch] for batch in twice):
        return []
    one, other = (told[twice[-1]] for told in (claimed.savings, claimed.scaling_savings))
    return [
        f"* The report prints two savings for the same batches: at batch size {twice[-1]}, {100 * one:.1f} % in its "
        f"table of deduplication, and {100 * other:.1f} % in its table of batch sizes."
    ]


def _percent(row: pd.Series, name: str) -> str:
    """A share with its interval, percent."""
    return f"{100 * row[name]:.1f} % [{100 * row[f'{name}_low']:.1f}, {100 * row[f'{name}_high']:.1f}]"


def draw(counted: pd.DataFrame, style: Style, *, traces: list[str], claimed: ReportedComparison) -> Figure:
    """Three panels by batch size: requests saved, requests shared, and experts that are needed at once."""
    looks = {trace: trace_look(style, trace) for trace in traces}
    summary = deduplication_summary(counted, claimed)
    with styled(style):
        figure = new_figure(style.size_of(DEDUPLICATION_FIGURE))
        figure.get_layout_engine().set(wspace=0.04)
        saved, shared, resident = figure.subplots(1, 3)
        for trace, look in looks.items():
            rows = where(summary, trace=trace)
            _draw_interval(saved, rows, "request_dedup", look)
            _draw_interval(shared, rows, "shared_requests", look)
            _draw_interval(resident, rows, "resident_share", look)
            saved.plot(
                rows["batch"], rows["uniform_request_dedup"], color=look["color"], linestyle=DOTTED, linewidth=0.9
            )
        for ax, table, told in (
            (saved, DEDUPLICATION, claimed.savings),
            (saved, SCALING, claimed.scaling_savings),
            (shared, DEDUPLICATION, claimed.reuse),
        ):
            # JSON, through which claims come, orders its keys as text.
            ax.plot(pd.Series(told, dtype=float).sort_index(), zorder=4, **_claim_look(style, table))
        batches = sorted({*summary["batch"], *claimed.savings, *claimed.scaling_savings, *claimed.reuse})
        _label(
            saved, batches, "Share of requests", "Saved: an expert that several\ntokens ask for is copied once", style
        )
        _label(shared, batches, "Share of requests", "Shared: for an expert that\nanother token asks for too", style)
        _label(
            resident,
            batches,
            "Share of the layer's experts",
            "Needed: a larger batch needs\nmore of a layer's experts",
            style,
        )
        for told in (claimed.savings, claimed.scaling_savings):
            _print_claim(saved, told, style)
        saved.set_xlim(right=max(batches) * ROOM)
        legend_in_rows(figure, _legend(looks, claimed, style), max(4, len(traces)))
        settle(figure)
    return figure


def _draw_interval(ax: Axes, rows: pd.DataFrame, name: str, look: dict[str, str]) -> None:
    spread = [rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]]
    ax.errorbar(rows["batch"], rows[name], yerr=spread, markersize=3.5, elinewidth=0.8, **look)


def _label(ax: Axes, batches: list[int], what: str, title: str, style: Style) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(batches, [str(batch) for batch in batches])
    ax.xaxis.minorticks_off()
    ax.set_ylim(-0.02, 1.04)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    ax.grid(axis="y")
    ax.set_xlabel("Batch size")
    ax.set_ylabel(what)
    ax.set_title(title, fontsize=style.font_size_pt)


def _claim_look(style: Style, table: str) -> dict[str, object]:
    """A line of what one of the report's tables has."""
    return {"color": style.colours.text, "linestyle": DASHED, "linewidth": 0.9, "markersize": 4.5} | CLAIMS[table]


def _print_claim(ax: Axes, told: Mapping[int, float], style: Style) -> None:
    """Write the number that the report prints for its largest batch next to the end of its line."""
    if told:
        text = f"{told[max(told)]:.3f}".lstrip("0")
        place = (max(told), told[max(told)]), (4, 0), "data", "offset points"
        ax.annotate(text, *place, ha="left", va="center", fontsize=small_pt(style))


def _legend(looks: dict[str, dict[str, str]], claimed: ReportedComparison, style: Style) -> dict[str, Line2D]:
    handles = {trace: Line2D([], [], markersize=3.5, **look) for trace, look in looks.items()}
    handles["uniform routing"] = Line2D([], [], color=style.colours.text, linestyle=DOTTED, linewidth=0.9)
    for table, told in ((DEDUPLICATION, claimed.savings or claimed.reuse), (SCALING, claimed.scaling_savings)):
        if told:
            handles[table] = Line2D([], [], **_claim_look(style, table))
    return handles
