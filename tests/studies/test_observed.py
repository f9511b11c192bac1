"""Predictions against observations: what is held out, how errors are summed up, and the figure of both."""

import numpy as np
import pandas as pd
import pytest

from prophet_moe.observed.context import load_context
from prophet_moe.observed.schema import KINDS, read_observations
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table
from studies.observed.compute import GIVEN_POOL, GOALS, observed_rows, summary
from studies.observed.figure import PANELS, draw, drawn, engine_of, errors_of, findings, headline
from studies.observed.study import OBSERVED, ROWS
from tests.conftest import ROOT
from tests.drawings import assert_no_texts_touch, assert_nothing_is_clipped, visible_texts


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    """Read the predictions of all observations as they are committed."""
    return read_table(ROOT / ROWS.path, ROWS)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Some rows of every kind, predicted."""
    wanted = {"memory": ["m004", "m006", "m063"], "times": ["T1-001", "T1-544"], "routing": ["RO-001"]}
    wanted["hit_rates"] = ["EC-004", "EC-006", "EC-103", "EC-016"]
    found = {}
    for name, ids in wanted.items():
        observations = read_observations(ROOT / f"resources/observations/{name}.csv", KINDS[name])
        found[name] = observations[observations["id"].isin(ids)].reset_index(drop=True)
    return observed_rows(found, load_context(ROOT))


def of(rows: pd.DataFrame, name: str, quantity: str) -> pd.Series:
    """The one row of an observation and quantity."""
    return rows[(rows["id"] == name) & (rows["quantity"] == quantity)].iloc[0]


def test_rows_that_fixed_a_constant_are_not_held_out(rows):
    assert not of(rows, "EC-004", "hit_rate")["held_out"], "a point of the calibrated curve"
    assert of(rows, "EC-006", "hit_rate")["held_out"]
    assert of(rows, "EC-004", "hit_rate_of_other_models")["held_out"]
    assert of(rows, "T1-001", "step_time")["held_out"]
    assert not of(rows, "T1-544", "layer_time")["held_out"], "its table was fitted"
    assert not of(rows, "RO-001", "u_8_own_cv")["held_out"]
    assert of(rows, "RO-001", "u_8_pooled_cv")["held_out"]
    fixing = {
        name for engine in load_context(ROOT).engines.values() for e in engine.evidence.values() for name in e.rows
    }
    assert of(rows, "m004", "kv_pool")["held_out"] == ("m004" not in fixing)


def test_errors_of_hit_rates_are_in_points(rows):
    rate = of(rows, "EC-103", "hit_rate")
    assert rate["error_unit"] == "points"
    assert rate["error"] == pytest.approx(100 * (rate["predicted"] - rate["measured"]))
    step = of(rows, "T1-001", "step_time")
    assert step["error_unit"] == "%" and step["error"] == step["error_pct"]


def test_tokens_of_a_known_pool_have_the_error_of_a_token(rows):
    bytes_of, tokens = (of(rows, "m004", name) for name in ("kv_bytes_per_token", GIVEN_POOL))
    assert tokens["predicted"] / tokens["measured"] == pytest.approx(bytes_of["measured"] / bytes_of["predicted"])


def test_rows_that_do_not_count_say_why_and_have_sources(rows):
    assert (rows["clean"] == (rows["left_out"] == "")).all()
    assert (rows["source"] != "").all()
    assert not of(rows, "EC-016", "hit_rate")["clean"]


def test_summary_counts_clean_rows_by_engine_and_by_gpu(rows):
    table = summary(rows)
    for _, group in table.groupby(["kind", "quantity"]):
        whole = group[(group["engine"] == "") & (group["gpu"] == "")]
        assert len(whole) == 1
        for column in ("engine", "gpu"):
            parts = group[group[column] != ""]
            assert parts["n"].sum() <= whole["n"].item()
    steps = table[table["quantity"] == "step_time"].iloc[0]
    assert steps["goal"] == GOALS["step_time"] == "20 %" and steps["n"] == steps["held_out"] == 1


def test_committed_table_is_the_summary_of_committed_rows(committed):
    table, made = read_table(ROOT / OBSERVED.path, OBSERVED), summary(committed)
    pd.testing.assert_frame_equal(made.astype(table.dtypes), table, rtol=1e-4)
    known = made.dropna(subset=["p90_error"])
    assert (known["worst_error"].abs() >= known["p90_error"] - 1e-9).all()


def test_engines_keep_their_colour_and_forks_their_engine():
    assert engine_of("llama.cpp PR 27861") == engine_of("ik_llama.cpp") == "llama.cpp and forks"
    assert engine_of("gpt-fast") == "others"


def test_panels_print_how_many_points_they_show(committed):
    shown = drawn(committed)
    for panel in PANELS:
        lines = errors_of(panel, shown[shown["quantity"].isin(panel.quantities)])
        for quantity, line in zip(panel.quantities, lines[::2], strict=True):
            assert line.startswith(f"n = {(shown['quantity'] == quantity).sum()}")
    assert "nan" not in findings(committed) and "nan" not in headline(committed)


def test_texts_of_observed_can_be_read(committed):
    figure = draw(committed, Style())
    assert_nothing_is_clipped({"observed": figure})
    assert_no_texts_touch({"observed": figure})
    assert min(text.get_fontsize() for text in visible_texts(figure)) >= 6


def test_every_point_lies_inside_its_panel(committed):
    figure = draw(committed, Style())
    for ax in figure.axes:
        for line in ax.get_lines():
            x, y = line.get_data()
            assert (np.asarray(x) >= ax.get_xlim()[0]).all() and (np.asarray(y) <= ax.get_ylim()[1]).all()
