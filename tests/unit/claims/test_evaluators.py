"""Evaluators of claims: what they take out of tables."""

import pandas as pd
import pytest

from prophet_moe.claims.evaluators import Tables, Undefined, quotients

ROWS = pd.DataFrame({"copied_mb": [10.0, 30.0, 5.0, None], "ms": [1.0, 2.0, 0.0, 4.0], "gpu": ["a", "a", "b", "b"]})


@pytest.fixture
def tables():
    """One table of copies, some of them without a quotient."""
    return Tables({"copies": ROWS}.__getitem__)


def test_quotients_are_the_least_and_the_largest(tables):
    assert quotients(tables, "copies", "copied_mb", "ms") == (10.0, 15.0)
    assert quotients(tables, "copies", "copied_mb", "ms", times=100) == (1000.0, 1500.0)


def test_quotients_without_a_divisor_scale_the_column(tables):
    assert quotients(tables, "copies", "copied_mb", where={"gpu": "a"}, times=0.1) == pytest.approx((1.0, 3.0))


def test_no_row_with_a_quotient_is_undefined(tables):
    with pytest.raises(Undefined, match="no row has a quotient"):
        quotients(tables, "copies", "copied_mb", "ms", where={"gpu": "b"})
