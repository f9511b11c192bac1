"""How many claims of each report have which verdict."""

import pandas as pd
from matplotlib.figure import Figure

from prophet_moe.claims.verdict import VERDICTS
from prophet_moe.present.style import legend_below, new_figure, settle, small_pt, styled
from prophet_moe.settings.style import Style
from studies.claims.study import FIGURE

WIDE_ENOUGH = 0.035
"""Share of the widest bar from which a number has room inside a part of a bar."""
HATCHED = ("definition", "not-evaluable")
"""Verdicts that say neither yes nor no."""


def by_document(ledger: pd.DataFrame) -> pd.DataFrame:
    """Count the claims of each report (rows) by verdict (columns), all verdicts in order."""
    counts = pd.crosstab(ledger["document"], ledger["verdict"])
    return counts.reindex(columns=list(VERDICTS), fill_value=0)


def headline(ledger: pd.DataFrame) -> str:
    """The figure's statement: how many of the claims hold, and how many do not."""
    counts = ledger["verdict"].value_counts()
    judged = len(ledger) - sum(counts.get(name, 0) for name in HATCHED)
    holds = counts.get("reproduced", 0)
    wrong = counts.get("contradicted", 0) + counts.get("self-contradictory", 0)
    fitted, themselves = (counts.get(name, 0) for name in ("reproduced-by-fit", "self-contradictory"))
    return (
        f"{holds} of the {judged} claims that can be true or false are reproduced, "
        f"{counts.get('corrected', 0)} more hold after a correction.\n{wrong} are contradicted, {themselves} of these "
        f"by the reports themselves. {fitted} come out of fitted constants alone."
    )


def findings(ledger: pd.DataFrame) -> str:
    """Describe in Markdown how many claims have which verdict, by document; every number is counted."""
    counts = by_document(ledger)
    lines = [headline(ledger).replace("\n", " ")]
    for document, row in counts.iterrows():
        told = ", ".join(f"{number} {verdict}" for verdict, number in row.items() if number)
        lines.append(f"Report {document}: {row.sum()} claims, {told}.")
    families = ledger[ledger["verdict"].isin(["contradicted", "self-contradictory"])]["family"].value_counts()
    most = ", ".join(f"{name} ({number})" for name, number in families.head(5).items())
    lines.append(f"Most wrong claims are about: {most}.")
    return "\n".join(f"* {line}" for line in lines)


def draw(ledger: pd.DataFrame, style: Style) -> Figure:
    """A bar for each report, its parts the claims by verdict."""
    counts = by_document(ledger)
    colours = colours_of(style)
    with styled(style):
        figure = new_figure(style.size_of(FIGURE))
        ax = figure.subplots()
        places, start = range(len(counts)), pd.Series(0, counts.index)
        room = WIDE_ENOUGH * counts.sum(axis=1).max()
        handles = {}
        for verdict, numbers in counts.items():
            bars = ax.barh(places, numbers, left=start, height=0.72, color=colours[verdict], edgecolor="white")
            handles[verdict] = bars[0]
            for place, number, left in zip(places, numbers, start, strict=True):
                if number >= room:
                    ink = "white" if verdict in ("reproduced", "contradicted", "self-contradictory") else "black"
                    middle = {"ha": "center", "va": "center_baseline"}
                    ax.text(left + number / 2, place, str(number), color=ink, fontsize=small_pt(style), **middle)
            start = start + numbers
        for place, total in zip(places, counts.sum(axis=1), strict=True):
            ax.annotate(f"{total}", (total, place), (4, 0), textcoords="offset points", va="center_baseline")
        ax.set_yticks(places, [f"Report {document}" for document in counts.index])
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set_xlabel("Claims")
        figure.suptitle(headline(ledger), x=0.01, ha="left", fontsize=style.font_size_pt, linespacing=1.15)
        legend_below(figure, handles, 4)
        settle(figure)
    return figure


def colours_of(style: Style) -> dict[str, str]:
    """Return a colour for each verdict: blue where it holds, red and purple where it does not, else grey."""
    colours = style.colours

    def series(place: int) -> str:
        return colours.series[place % len(colours.series)]

    return {
        "reproduced": colours.prophet,
        "corrected": series(4),
        "reproduced-by-fit": series(2),
        "contradicted": colours.does_not_fit,
        "self-contradictory": series(3),
        "definition": colours.baseline,
        "not-evaluable": colours.grid,
    }
