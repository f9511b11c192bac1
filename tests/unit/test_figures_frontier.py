"""The frontier's figure shows what the points say, whichever models, limits and claims it is given."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.capacity import frontier as capacity
from prophet_moe.present.figures import frontier
from prophet_moe.present.figures.comparative_evaluation import strategy_look
from prophet_moe.present.figures.frontier import COLUMNS, CONFIGURATION, MEMORY_COLUMNS, STRATEGIES
from prophet_moe.present.select import where
from prophet_moe.settings import Style
from tests.conftest import ROOT
from tests.unit.test_figures import assert_nothing_is_clipped, visible_texts

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
    """The committed points."""
    return pd.read_csv(ROOT / "tables/data/frontier.csv")


@pytest.fixture(scope="module")
def memory() -> pd.DataFrame:
    """The committed record of capacity."""
    return pd.read_csv(ROOT / "tables/data/prophet_kv_extension_data.csv", usecols=MEMORY_COLUMNS)


@st.composite
def some_points(draw) -> pd.DataFrame:
    """Points of two configurations: fewer experts take longer and leave more; the second's baseline may not fit."""
    amounts = st.floats(0.001, 5)
    rows = []
    for model in ("A", "B"):
        baseline = 1000.0 if model == "A" else draw(st.sampled_from([0.0, 1000.0]))
        for strategy in STRATEGIES:
            steps = draw(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=5))
            for slower, longer in 1 + np.cumsum([(0, draw(st.sampled_from([-0.01, 0]))), *steps], axis=0):
                row = {"model": model, "gpu": "G", "batch_size": 1, "strategy": strategy, "trace": "T"}
                row |= {"slowdown": slower, "max_context": baseline * longer, "baseline_max_context": baseline}
                rows.append(row | {"kv_extension_factor": longer if baseline else np.nan})
    return pd.DataFrame(rows)


def by_key(gained: pd.DataFrame) -> dict[tuple, float]:
    """A table of gains by model, GPU, batch size and strategy."""
    return {(*row, strategy): gain for strategy, values in gained.items() for row, gain in values.items()}


@settings(deadline=None, max_examples=30)
@given(some_points(), st.floats(1, 30))
def test_gains_are_those_of_table_11(points, limit):
    """`capacity.frontier.context_gained` counts tokens, the figure factors."""
    table = capacity.context_gained(points, [limit]).set_index([*CONFIGURATION, "strategy"]).iloc[:, -1].dropna()
    assert by_key(frontier.gains(points, limit)) == pytest.approx(table.to_dict())


@settings(deadline=None, max_examples=30)
@given(some_points(), st.floats(1, 30))
def test_the_next_gain_is_the_first_that_costs_too_much(points, limit):
    found = frontier.next_gains(points, limit)
    for key, rows in frontier.fitting(points).groupby([*CONFIGURATION, "strategy"]):
        beyond = [row.kv_extension_factor for row in rows.itertuples() if row.slowdown > limit]
        reached = [1, *(row.kv_extension_factor for row in rows.itertuples() if row.slowdown <= limit)]
        assert found.loc[key[:3], key[3]] == max(*reached, min(beyond, default=1))


def test_gains_of_the_committed_points_are_the_committed_table(points):
    table = pd.read_csv(ROOT / "tables/table11_context_gained.csv").set_index([*CONFIGURATION, "strategy"])
    for limit in SHOWN["limits"]:
        expected = table[f"kv_extension_at_{limit:g}x"].dropna()
        assert by_key(frontier.gains(points, limit)) == pytest.approx(expected.to_dict(), rel=2e-5)


def test_lines_are_the_points(points, memory):
    panels = frontier.draw(points, memory, STYLE, **SHOWN).axes
    for model, axes in zip(SHOWN["models"], panels, strict=False):
        assert model in {text.get_text() for text in axes.texts}
        drawn = [line.get_xydata() for line in axes.get_lines()]
        for name in STRATEGIES:
            rows = where(points, model=model, gpu=SHOWN["gpu"], batch_size=SHOWN["batch_size"], strategy=name)
            expected = rows.sort_values("slowdown")[["slowdown", "kv_extension_factor"]].to_numpy()
            assert any(line.shape == expected.shape and np.array_equal(line, expected) for line in drawn), name
        wanted = {*SHOWN["claimed_extension"].values()} if model in SHOWN["claimed_extension"] else set()
        wanted.add(where(memory, model=model, gpu=SHOWN["gpu"], batch_size=16)["kv_extension_factor"].item())
        marks = {line[0, 1] for line in drawn if len(line) == 1}
        assert marks == wanted
        assert all(line[0, 0] == SHOWN["claimed_slowdown"] for line in drawn if len(line) == 1)


def test_dots_are_the_gains_and_numbers_their_means(points, memory):
    axes = frontier.draw(points, memory, STYLE, **SHOWN).axes[-1]
    drawn = [line.get_xdata() for line in axes.get_lines()]
    fits = frontier.fitting(points).drop_duplicates(CONFIGURATION).set_index(CONFIGURATION).index.sort_values()
    expected = [memory.set_index(CONFIGURATION)["kv_extension_factor"][fits]]
    for limit in (*SHOWN["limits"], np.inf):
        expected += [frontier.gains(points, limit)[name] for name in STRATEGIES]
    for gains in expected:
        assert any(len(dots) == len(gains) and np.array_equal(np.sort(dots), np.sort(gains)) for dots in drawn)
    written = sorted(text.get_text() for text in axes.texts)
    assert written == sorted(f"{gains.mean():.2f}" for gains in expected)


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
    size = STYLE.figures.frontier
    assert tuple(figure.get_size_inches()) == pytest.approx((size.width_in, size.height_in))


def test_a_strategy_may_be_missing(points, memory):
    without = points[points["strategy"] != "prophet"]
    figure = frontier.draw(without, memory, STYLE, **SHOWN)
    assert STRATEGIES["prophet"] not in {text.get_text() for text in figure.legends[0].get_texts()}
    assert "Prophet" not in frontier.findings(without, memory, **SHOWN)


def test_texts_do_not_overlap(points, memory):
    figure = frontier.draw(points, memory, STYLE, **SHOWN)
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in visible_texts(figure)]
    for number, (text, box) in enumerate(boxes):
        for other, area in boxes[:number]:
            assert not box.overlaps(area), f"{text!r} over {other!r}"


def test_where_no_baseline_fits_there_is_nothing_to_gain(points, memory):
    large = points[points["kv_extension_factor"].isna()]
    shown = SHOWN | {"models": ["Snowflake-Arctic-480B"]}
    assert_nothing_is_clipped({"large": frontier.draw(large, memory, STYLE, **shown)})
    assert "no configuration fits" in frontier.findings(large, memory, **shown)


def test_findings_are_computed(points, memory):
    text = frontier.findings(points, memory, **SHOWN)
    assert "nan" not in text.lower()
    gained = frontier.gains(points, SHOWN["claimed_slowdown"])
    for name, label in STRATEGIES.items():
        assert f"{gained[name].mean():.3f} ({label}; {(gained[name] > 1).mean():.0%} gain anything)" in text
    assert "the report claims 1.125" in text
    halved = points.assign(slowdown=1 + (points["slowdown"] - 1) / 100)
    assert frontier.findings(halved, memory, **SHOWN) != text
    elsewhere = frontier.findings(points, memory, **SHOWN | {"models": ["Mixtral-8x7B"]})
    assert "no baseline fits" in elsewhere


def test_strategies_look_as_in_the_other_figures():
    for name in STRATEGIES:
        look = strategy_look(STYLE, name)
        assert {key: frontier._look(STYLE, name)[key] for key in look} == look


def test_the_columns_are_those_of_the_table(points):
    assert points.columns.tolist() == COLUMNS


def test_the_figure_needs_neither_numba_nor_scipy():
    code = "import sys, prophet_moe.present.figures.frontier, prophet_moe.routing.rows, prophet_moe.present.save\n"
    code += "print({'numba', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
