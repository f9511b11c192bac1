"""How many experts a batch needs by each law: a row of points per model."""

import pandas as pd
from matplotlib.figure import Figure

from prophet_moe.present.style import legend_in_rows, new_figure, series_look, settle, styled
from prophet_moe.settings.style import Style
from studies.needed_experts.study import FIGURE

ROW_IN = 0.17
"""Inches that a model's row takes, with its part of axis and legend."""


def draw(needed: pd.DataFrame, style: Style) -> Figure:
    """Draw the share of a layer's experts that a batch needs, by model and law."""
    with styled(style):
        figure = new_figure(style.size_of(FIGURE), ROW_IN * needed["model"].nunique())
        ax = figure.add_subplot()
        handles = {}
        for number, (law, rows) in enumerate(needed.groupby("law", sort=False)):
            look = series_look(style, number)
            shares = rows["needed"] / rows["experts"]
            (handles[law.replace("_", " ")],) = ax.plot(shares, rows["model"], linestyle="none", **look)
        ax.set(xlim=(0, 1.03), xlabel=f"Experts that {needed['batch_size'].iloc[0]} sequences need / E")
        ax.margins(y=0.1)
        ax.grid(axis="x")
        legend_in_rows(figure, handles, 2)
        settle(figure)
    return figure


def findings(needed: pd.DataFrame) -> str:
    """Say in Markdown how far apart the laws are."""
    by_model = needed.pivot_table(index="model", columns="law", values="needed")
    apart = (by_model.max(axis=1) / by_model.min(axis=1)).sort_values()
    return f"The laws differ most for {apart.index[-1]}: the largest is {apart.iloc[-1]:.2f} times the smallest."
