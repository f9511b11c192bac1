"""The frontier's figure shows what the points say, whichever models, limits and claims it is given."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from prophet_moe.capacity.limits import CONFIGURATION
from prophet_moe.capacity.record import RECORD
from prophet_moe.present.select import where
from prophet_moe.present.style import strategy_look
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table
from studies.frontier import figure as frontier
from studies.frontier.figure import INTERVAL, LIMITS, STRATEGIES
from studies.frontier.study import CONTEXT_GAINED, FIGURE, FRONTIER
from tests.conftest import ROOT
from tests.drawings import (
    assert_legend_is_what_is_drawn,
    assert_no_texts_touch,
    assert_nothing_is_clipped,
    visible_texts,
)

STYLE = Style()
SHOWN = {
    "gpu": "A100-80GB",
    "batch_size": 16,
    "models": ["Switch-Large-128", "DeepSeek-MoE-16B", "Qwen1.5-MoE-A2.7B", "Switch-Base-128"],
    "limits": [1.05, 1.2, 2.0],
    "claimed_slowdown": 1.2,
    "claimed_extension": {"Switch-Base-128": 1.125},
}


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    """The committed points of the frontier, a row per configuration, strategy and number of resident experts."""
    return read_table(ROOT / FRONTIER.path, FRONTIER)


@pytest.fixture(scope="module")
def memory() -> pd.DataFrame:
    """The committed record of capacity."""
    return read_table(ROOT / "tables/data/prophet_kv_extension_data.csv", RECORD)


@pytest.fixture(scope="module")
def figure(points, memory):
    """The figure as the workflow draws it."""
    return frontier.draw(points, memory, STYLE, **SHOWN)


def test_lines_are_what_table_11_reads(points):
    """At each limit the figure and the table say the same, to the digits that the files keep."""
    table = read_table(ROOT / CONTEXT_GAINED.path, CONTEXT_GAINED)
    fitting = table[table["kv_extension_at_1.2x"].notna()].set_index([*CONFIGURATION, "strategy"]).sort_index()
    found = frontier.selection(points, np.array(SHOWN["limits"])).sort_index()
    assert list(found.index) == list(fitting.index)
    for limit in SHOWN["limits"]:
        np.testing.assert_allclose(found[limit], fitting[f"kv_extension_at_{limit:g}x"], rtol=2e-4)


def test_lines_by_model_are_the_selection(figure, points):
    for model, axes in zip(SHOWN["models"], figure.axes[1:], strict=True):
        assert axes.get_title(loc="left") == model
        found = frontier.selection(where(points, model=model, gpu=SHOWN["gpu"], batch_size=16), LIMITS)
        drawn = [line.get_ydata() for line in axes.get_lines() if len(line.get_xdata()) == len(LIMITS)]
        expected = [found.xs(name, level="strategy").iloc[0].tolist() for name in STRATEGIES]
        assert [list(line) for line in drawn] == expected
        assert all(np.all(np.diff(line) >= 0) for line in drawn), "a looser limit gains no less"


def test_the_axis_names_its_scale(figure):
    """Equal factors of the time lost, and 0.05, are equally far apart: neither a linear axis nor one of slowdowns."""
    texts = [text.get_text() for text in visible_texts(figure)]
    assert texts.count(frontier.AXIS) == 2, "one below the wide panel, one below the others"
    assert not [text for text in texts if text.startswith("Slowdown") and "log of time lost" not in text]
    lost = np.array([0.05, 0.15, 0.35, 0.75, 1.55])
    for axes in figure.axes:
        places = axes.transData.transform(np.column_stack([1 + lost, np.ones(len(lost))]))[:, 0]
        np.testing.assert_allclose(np.diff(places), np.diff(places)[0])


def test_the_wide_panel_is_the_median(figure, points):
    found = frontier.selection(points, LIMITS).groupby("strategy").median()
    drawn = [line.get_ydata() for line in figure.axes[0].get_lines() if len(line.get_xdata()) == len(LIMITS)]
    bound = frontier.selection(points, LIMITS, "slowdown_bound").xs("prophet", level="strategy").median()
    assert [list(line) for line in drawn] == [*(found.loc[name].tolist() for name in STRATEGIES), bound.tolist()]


def test_the_memory_floor_is_at_no_slowdown(figure, memory):
    """A line across the panel, where a mark would claim the slowdown that it stands at."""
    record = memory.set_index(CONFIGURATION)["kv_extension_factor"]
    for model, axes in zip(SHOWN["models"], figure.axes[1:], strict=True):
        floor = record[model, SHOWN["gpu"], SHOWN["batch_size"]]
        level = [line for line in axes.get_lines() if set(line.get_ydata()) == {floor}]
        assert [list(line.get_xdata()) for line in level] == [[0, 1]], "in shares of the axes' width"
        marks = [line for line in axes.get_lines() if line.get_marker() not in ("", "None", None)]
        claim = SHOWN["claimed_extension"].get(model)
        assert [list(line.get_ydata()) for line in marks] == ([] if claim is None else [[claim]])


def test_the_title_is_computed(points, memory):
    told = frontier.headline(points, memory, 1.2)
    found = frontier.selection(points, np.array([1.2]))[1.2].groupby("strategy").median()
    assert f"1.2x the time buys Prophet {found['prophet']:.2f}x the context" in told
    assert f"oracle {found['perfect_prefetch']:.2f}x" in told
    floor = frontier.memory_floor(memory, points)
    assert f"by memory alone {floor.median():.2f}x (medians of {len(floor)})" in told
    longer = points.assign(kv_extension_factor=2 * points["kv_extension_factor"])
    assert frontier.headline(longer, memory, 1.2) != told


def test_intervals_are_drawn_where_there_are_some(points, memory, figure):
    assert not [patch for axes in figure.axes for patch in axes.collections] or set(INTERVAL) <= set(points.columns)
    wide = points.assign(slowdown_low=points["slowdown"] / 1.1, slowdown_high=1.1 * points["slowdown"])
    drawn = frontier.draw(wide, memory, STYLE, **SHOWN)
    assert all(len(axes.collections) == len(STRATEGIES) for axes in drawn.axes)
    low, high = (frontier.selection(wide, LIMITS, end) for end in INTERVAL)
    assert (low >= high).all(axis=None), "a slower end reaches less within a limit"


def test_the_legend_is_what_is_drawn(figure):
    assert_legend_is_what_is_drawn(figure)
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(STRATEGIES.values()) | {frontier.FLOOR} <= set(told)
    assert not any(word == "any" for text in visible_texts(figure) for word in text.get_text().split())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"claimed_extension": {}},
        {"models": ["OLMoE-1B-7B"]},
        {"models": ["Switch-Large-128", "Mixtral-8x7B", "Snowflake-Arctic-480B"], "gpu": "V100-32GB", "batch_size": 1},
        {"limits": [1.5], "models": ["Qwen1.5-MoE-A2.7B", "OLMoE-1B-7B"], "gpu": "V100-32GB"},
        {"limits": [1.05, 1.2, 2.0, 5.0, 10.0], "claimed_slowdown": 3.0},
    ],
)
def test_nothing_is_clipped_or_too_small(points, memory, change):
    figure = frontier.draw(points, memory, STYLE, **SHOWN | change)
    assert_nothing_is_clipped({"frontier": figure})
    assert min(text.get_fontsize() for text in visible_texts(figure)) >= 6
    size = FIGURE
    assert tuple(figure.get_size_inches()) == pytest.approx((size.width_in, size.height_in))


def test_a_strategy_may_be_missing(points, memory):
    without = points[points["strategy"] != "prophet"]
    figure = frontier.draw(without, memory, STYLE, **SHOWN)
    assert STRATEGIES["prophet"] not in {text.get_text() for text in figure.legends[0].get_texts()}
    assert "Prophet" not in frontier.findings(without, memory, **SHOWN)


def test_texts_do_not_overlap(figure):
    assert_no_texts_touch({"frontier": figure})


def test_where_no_baseline_fits_there_is_nothing_to_gain(points, memory):
    large = points[points["kv_extension_factor"].isna()]
    shown = SHOWN | {"models": ["Snowflake-Arctic-480B"]}
    assert_nothing_is_clipped({"large": frontier.draw(large, memory, STYLE, **shown)})
    assert "no configuration fits" in frontier.findings(large, memory, **shown)


def test_findings_are_computed(points, memory):
    text = frontier.findings(points, memory, **SHOWN)
    assert "nan" not in text.lower()
    gained = dict(list(frontier.selection(points, np.array([1.2]))[1.2].groupby("strategy")))
    for name, label in STRATEGIES.items():
        assert f"{label} {gained[name].median():.3f} ({frontier.geometric_mean(gained[name]):.3f})" in text
    assert "the report claims 1.125" in text
    halved = points.assign(slowdown=1 + (points["slowdown"] - 1) / 100)
    assert frontier.findings(halved, memory, **SHOWN) != text
    elsewhere = frontier.findings(points, memory, **SHOWN | {"models": ["Mixtral-8x7B"]})
    assert "the baseline does not fit" in elsewhere


def test_who_gains_more_than_by_memory_alone_is_counted(points, memory):
    """A floor is no bound: one that keeps nearly all experts of a large batch is below what time buys."""
    text = frontier.findings(points, memory, **SHOWN)
    alone = memory.set_index(CONFIGURATION)["kv_extension_factor"]
    for limit in SHOWN["limits"]:
        reached = frontier.selection(points, np.array([limit]))[limit]
        counts = {name: 0 for name in STRATEGIES}
        for (*configuration, strategy), gained in reached.items():
            counts[strategy] += gained > 1.0001 * max(1, alone[tuple(configuration)])
        told = ", ".join(f"{counts[name]} ({label})" for name, label in STRATEGIES.items())
        assert f"within {limit:g}: {told}" in text
    never = frontier.findings(points, memory.assign(kv_extension_factor=1e9), **SHOWN)
    assert "Within these limits, no strategy gains more than by memory alone" in never


def test_a_floor_below_the_baseline_is_none_to_exceed():
    keys = [("a", "gpu", 1), ("b", "gpu", 1), ("c", "gpu", 1)]
    floor = pd.Series([0.9, 1.2, 1.2], pd.MultiIndex.from_tuples(keys, names=CONFIGURATION))
    index = pd.MultiIndex.from_tuples([(*key, "prophet") for key in keys], names=[*CONFIGURATION, "strategy"])
    gains = pd.DataFrame({1.2: [1.0, 1.2, 1.3]}, index)
    assert frontier.above_floor(gains, floor)[1.2].tolist() == [False, False, True]


PARTS = re.compile(r"leaves? of it|the time leaves|is left over|rise above it|limits? of slowdown leaves?")
"""Words that make the memory floor a bound of which time leaves a part."""


@pytest.mark.parametrize(
    "path",
    [
        *(f"notebooks/{name}.ipynb" for name in ("figure2_kv_extension_by_model", "frontier")),
        *(f"workflow/studies/{name}/README.md" for name in ("kv_extension", "frontier")),
        *(f"workflow/studies/kv_extension/{name}.py" for name in ("compute", "figure2_kv_extension_by_model")),
    ],
)
def test_no_text_says_that_time_leaves_part_of_a_floor(path):
    assert not PARTS.findall((ROOT / path).read_text())


def test_strategies_have_the_colours_of_other_figures():
    for name in STRATEGIES:
        assert frontier._look(STYLE, name)["color"] == strategy_look(STYLE, name)["color"]


def test_the_figure_needs_neither_numba_nor_scipy():
    code = "import sys, studies.frontier.figure, studies.frontier.study, prophet_moe.present.save\n"
    code += "print({'numba', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
