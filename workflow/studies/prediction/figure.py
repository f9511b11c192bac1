"""How well Prophet's predictor predicts the next experts, compared with predictors that only count."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prophet_moe.present.select import where
from prophet_moe.present.style import trace_panels
from prophet_moe.settings.style import Style
from studies.prediction.study import FIGURE

PREDICTORS = {
    "prophet_shuffled": "Prophet, shuffled inputs",
    "popularity": "popularity",
    "previous_token": "token before",
    "naive_bayes": "naive Bayes, layer before",
    "transitions_1": "transitions, 1 layer",
    "transitions_2": "transitions, 2 layers",
    "transitions_3": "transitions, 3 layers",
    "naive_bayes_all_inputs": "naive Bayes, all inputs",
    "prophet": "Prophet",
}
"""Predictors in the order of the rows, and what they are called in the figure."""
PROPHET = "prophet"


def recall(scores: pd.DataFrame, trace: str, lookahead: int, tokens: str = "held_out") -> pd.Series:
    """Recall@k of every predictor, mean over layers, by predictor: k is the smallest rank reported."""
    rows = where(scores, trace=trace, lookahead=lookahead, tokens=tokens, statistic="recall")
    rows = rows[rows["layer"].isna()]
    return rows[rows["x"] == rows["x"].min()].set_index("predictor")["value"]


def gain(scores: pd.DataFrame, trace: str, lookahead: int) -> pd.Series:
    """Prophet's gain in recall@k over the best predictor that only counts."""
    rows = where(scores, trace=trace, lookahead=lookahead, statistic="recall_gain")
    rows = rows[(rows["x"] == rows["x"].min()) & (rows["against"] != "naive_bayes_all_inputs")]
    return rows.iloc[0]


def findings(scores: pd.DataFrame, *, traces: list[str]) -> str:
    """Describe in Markdown what the scores of predictors show; every number is computed from them."""
    lines = []
    for trace in traces:
        found, more = recall(scores, trace, 1), gain(scores, trace, 1)
        text = (
            f"* **{trace}**: one layer ahead, Prophet has a recall@k of {found[PROPHET]:.3f}. This is "
            f"{100 * more.value:.1f} points [{100 * more.low:.1f}, {100 * more.high:.1f}] more than the best counting "
            f"predictor ({PREDICTORS[more.against]}, {found[more.against]:.3f}), and "
            f"{100 * (found[PROPHET] - found['naive_bayes_all_inputs']):.1f} points more than naive Bayes on the same "
            f"inputs. Three layers ahead, its recall@k is {recall(scores, trace, 3)[PROPHET]:.3f}"
        )
        sampled = recall(scores, trace, 1, "router_inputs")
        if "gate_input" in sampled:
            text += (
                f". The next layer's router, applied to this layer's router input, has a recall@k of "
                f"{sampled['gate_input']:.3f} (Prophet on the same tokens: {sampled[PROPHET]:.3f})"
            )
        lines.append(f"{text}.")
    return "\n".join(lines)


def draw(scores: pd.DataFrame, style: Style, *, traces: list[str]) -> Figure:
    """Three panels: recall@k by predictor; recall@k by lookahead; how often what was predicted came true."""
    panels = [(1.15, _draw_predictors, scores), (0.85, _draw_lookahead, scores), (0.85, _draw_calibration, scores)]
    return trace_panels(style, FIGURE, traces, panels, named_by=1)


def _draw_predictors(ax: Axes, scores: pd.DataFrame, looks: dict[str, dict[str, str]], style: Style) -> None:
    for trace, look in looks.items():
        found = recall(scores, trace, 1)
        ax.plot(found[list(PREDICTORS)], range(len(PREDICTORS)), linestyle="none", markersize=4.5, **look)
    ax.axhspan(len(PREDICTORS) - 1.5, len(PREDICTORS) - 0.5, color=style.colours.grid, alpha=0.5, linewidth=0, zorder=0)
    ax.set_yticks(range(len(PREDICTORS)), PREDICTORS.values())
    ax.set_ylim(len(PREDICTORS) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, 1)
    ax.grid(axis="both")
    ax.set_xlabel("Recall@k, one layer ahead")
    ax.set_title("What finds a token's experts", fontsize=style.font_size_pt)


def _draw_lookahead(ax: Axes, scores: pd.DataFrame, looks: dict[str, dict[str, str]], style: Style) -> None:
    steps = sorted(scores["lookahead"].unique())
    for trace, look in looks.items():
        mine = [recall(scores, trace, step)[PROPHET] for step in steps]
        counted = [recall(scores, trace, step)[gain(scores, trace, step).against] for step in steps]
        ax.plot(steps, mine, markersize=4.5, **look)
        ax.plot(steps, counted, linestyle=(0, (3, 1.5)), linewidth=1, markerfacecolor="white", markersize=3.5, **look)
    ax.set_xticks(steps)
    ax.set_xlim(min(steps) - 0.15, max(steps) + 0.15)
    ax.set_ylim(0, 1)
    ax.grid(axis="y")
    ax.set_xlabel("Lookahead (layers)")
    ax.set_ylabel("Recall@k")
    ax.set_title("Prophet (filled) and the\nbest that counts (hollow)", fontsize=style.font_size_pt)


def _draw_calibration(ax: Axes, scores: pd.DataFrame, looks: dict[str, dict[str, str]], style: Style) -> None:
    ax.plot([0, 1], [0, 1], color=style.colours.text, linewidth=0.6, linestyle=(0, (1, 1.5)))
    for trace, look in looks.items():
        rows = where(scores, trace=trace, statistic="reliability", lookahead=1)
        ax.plot(rows["x"], rows["value"], linewidth=1, markersize=3.5, **look)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xticks(np.arange(0, 1.01, 0.25), ["0", ".25", ".5", ".75", "1"])
    ax.grid(axis="both")
    ax.set_xlabel("Probability predicted")
    ax.set_ylabel("Share that came true")
    ax.set_title("Prophet's probabilities", fontsize=style.font_size_pt)
