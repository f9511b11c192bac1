"""Our own decision tree: whether a GPU should offload experts, with the numbers of finished tables."""

from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from prophet_moe.present.style import new_figure, settle, small_pt, styled, text_on
from prophet_moe.settings.style import Style
from studies.answers.study import FIGURE, KEEP_ALL, MORE_GPUS, QUANTISE, SLOTS, SLOW_SLOTS

ROW, GAP = 1.0, 0.34
"""Heights of a row of boxes and of the space below it, in units of the vertical axis."""
QUESTION, ACTION, DETAIL, PAIRS = (0.0, 0.25), (0.31, 0.5), 0.515, (0.9, 1.0)
"""Left and right ends of boxes and of bars, and the left end of details: shares of the width."""
QUESTION_LETTERS, DETAIL_LETTERS = 25, 52
"""Most letters of a line of a question and of a detail."""
COLOURS = {KEEP_ALL: 1, SLOTS: 0, QUANTISE: 4, SLOW_SLOTS: 2, MORE_GPUS: 5}
"""Numbers of the colours of leaves."""


def headline(steps: pd.DataFrame) -> str:
    """The figure's statement: how often offloading experts is the answer."""
    yes, total = steps.set_index("leaf")["pairs_yes"], steps["pairs_asked"].max()
    return (
        f"Should this GPU offload experts? For {yes[SLOTS]} of {total} pairs of model and machine, without much "
        f"waiting. {yes[KEEP_ALL]} hold every expert,\nand {yes[QUANTISE]} more do in fewer bits. The others wait, "
        "or need more GPUs (one sequence that decodes)."
    )


def findings(steps: pd.DataFrame) -> str:
    """Describe the tree in Markdown; every number is in the table."""
    lines = [headline(steps).replace("\n", " ")]
    for row in steps.itertuples():
        asked = f"{row.question} " if row.question else "Else: "
        lines.append(f"{asked}**{row.action}**: {row.pairs_yes} of {row.pairs_asked} pairs. {row.detail}")
    return "\n".join(f"* {line}" for line in lines)


def draw(steps: pd.DataFrame, style: Style) -> Figure:
    """Questions from top to bottom, what to do beside each, and how many pairs of model and machine end there."""
    with styled(style):
        figure = new_figure(style.size_of(FIGURE))
        ax = figure.subplots()
        ax.set(xlim=(-0.005, 1.045), ylim=(len(steps) * (ROW + GAP) - GAP, -0.36))
        ax.axis("off")
        _heads(ax, int(steps["pairs_asked"].max()), style)
        most = steps["pairs_yes"].max()
        for place, row in enumerate(steps.itertuples()):
            _row(ax, row, place * (ROW + GAP), most, style)
        figure.suptitle(headline(steps), x=0.01, ha="left", fontsize=style.font_size_pt)
        settle(figure)
    return figure


def _heads(ax: Axes, pairs: int, style: Style) -> None:
    heads = ((QUESTION[0], "ask"), (ACTION[0], "if yes"), (DETAIL, "what that means"), (PAIRS[0], f"of {pairs} pairs"))
    for x, words in heads:
        ax.text(x, -0.12, words, va="bottom", fontsize=small_pt(style), color=style.colours.text)


def _row(ax: Axes, row, top: float, most: int, style: Style) -> None:
    middle, colour = top + ROW / 2, style.colours.series[COLOURS[row.leaf] % len(style.colours.series)]
    line = {"arrowstyle": "-|>", "color": style.colours.text, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    centre = sum(QUESTION) / 2
    if row.question:
        _box(ax, QUESTION, top, style.colours.grid)
        ax.text(centre, middle, fill(row.question, QUESTION_LETTERS), ha="center", va="center", linespacing=1.15)
        ax.annotate("", (ACTION[0], middle), (QUESTION[1], middle), arrowprops=line)
        ax.text((QUESTION[1] + ACTION[0]) / 2, middle - 0.06, "yes", ha="center", va="bottom", fontsize=small_pt(style))
        ax.text(centre + 0.008, top + ROW + GAP / 2, "no", va="center", fontsize=small_pt(style))
        if row.step < len(COLOURS) - 1:
            ax.annotate("", (centre, top + ROW + GAP), (centre, top + ROW), arrowprops=line)
        else:
            below = middle + ROW + GAP
            ax.plot([centre, centre], [top + ROW, below], color=style.colours.text, linewidth=0.8)
            ax.annotate("", (ACTION[0], below), (centre, below), arrowprops=line)
    _box(ax, ACTION, top, colour)
    bold = {"fontweight": "bold", "color": text_on(style, colour)}
    ax.text(sum(ACTION) / 2, middle, fill(row.action, 14), ha="center", va="center", linespacing=1.15, **bold)
    small = {"fontsize": small_pt(style), "linespacing": 1.25}
    ax.text(DETAIL, middle, fill(row.detail, DETAIL_LETTERS), va="center", **small)
    width = (PAIRS[1] - PAIRS[0]) * row.pairs_yes / most
    ax.add_patch(Rectangle((PAIRS[0], top + 0.2), width, ROW - 0.4, facecolor=colour, edgecolor="none"))
    ax.text(PAIRS[0] + width + 0.008, middle, str(row.pairs_yes), va="center_baseline")


def _box(ax: Axes, ends: tuple[float, float], top: float, colour: str) -> None:
    shape = {"boxstyle": "round,pad=0,rounding_size=0.012", "mutation_aspect": 6}
    box = FancyBboxPatch((ends[0], top), ends[1] - ends[0], ROW, facecolor=colour, edgecolor="none", **shape)
    ax.add_patch(box)
