"""Errors by group, rows beyond their goal, and rows left out."""

import pytest

from prophet_moe.observed.errors import grouped_errors, left_out, missed
from prophet_moe.observed.schema import result_frame, result_row


def goal(row):
    return None if row["quantity"] == "graphs" else abs(row["error_pct"]) <= 2.5


ROWS = result_frame(
    [
        *(result_row(id=f"a{n}", quantity="weights", measured=100.0, predicted=100.0 + n) for n in range(11)),
        result_row(id="b", quantity="weights", measured=100.0, predicted=150.0, left_out="a copy"),
        result_row(id="c", quantity="graphs", measured=1.0, predicted=2.0),
    ]
)  # fmt: skip


def test_errors_of_clean_rows_are_grouped():
    weights, graphs = grouped_errors(ROWS, ("quantity",), goal)
    assert (weights["n"], weights["median_pct"], weights["worst_id"]) == (11, pytest.approx(5), "a10")
    assert (weights["p90_pct"], weights["worst_pct"]) == (pytest.approx(9), pytest.approx(10))
    assert (weights["within_goal"], weights["with_goal"]) == (3, 11)
    assert (graphs["within_goal"], graphs["with_goal"]) == (None, 0)


def test_rows_beyond_their_goal_are_clean_ones():
    assert [row["id"] for row in missed(ROWS, goal)] == [f"a{n}" for n in range(3, 11)]


def test_reasons_of_rows_left_out_name_them():
    assert left_out(ROWS) == [{"reason": "a copy", "n": 1, "quantities": ["weights"], "ids": ["b"]}]
