"""Values taken out of tables, each against what one reads off a small table."""

import pandas as pd
import pytest

from prophet_moe.claims.evaluators import EVALUATORS, Absent, Tables, Undefined, evaluated

FRAME = pd.DataFrame(
    {
        "model": ["a", "a", "b", "b"],
        "batch": [1, 16, 1, 16],
        "gain": [2.0, 1.0, 8.0, None],
        "fits": [True, True, True, False],
    }
)


def take(name, /, **arguments):
    """The value of an evaluator on FRAME, which is table `t`."""
    return evaluated({"take": name, **arguments}, Tables({"t": FRAME}.__getitem__), {"other": 3.0}.__getitem__)


@pytest.mark.parametrize(
    ("name", "arguments", "value"),
    [
        ("cell", {"column": "gain", "where": {"model": "a", "batch": 16}}, 1.0),
        ("cell", {"column": "fits", "where": {"model": "b", "batch": 16}}, False),
        ("count", {"where": {"gain": {"from": 2}}}, 2.0),
        ("count", {"where": {"model": "none"}}, 0.0),
        ("distinct", {"column": "model"}, 2.0),
        ("columns", {}, 4.0),
        ("listed", {"column": "batch"}, "1, 16"),
        ("aggregate", {"column": "gain", "how": "mean"}, 11 / 3),
        ("aggregate", {"column": "gain", "how": "mean", "zero_unless": "fits"}, 11 / 4),
        ("aggregate", {"column": "gain", "how": "geomean", "where": {"batch": 1}}, 4.0),
        ("aggregate", {"column": "gain", "how": "median", "only_if": "fits"}, 2.0),
        ("spread", {"column": "gain", "where": {"batch": [1, 16]}}, (1.0, 8.0)),
        ("quotients", {"column": "gain", "over": "batch", "where": {"model": "a"}}, (1 / 16, 2.0)),
        ("quotients", {"column": "gain", "where": {"model": "a"}, "times": 10}, (10.0, 20.0)),
        ("best", {"column": "gain", "name": ["model", "batch"]}, "b, 1"),
        ("best", {"column": "gain", "name": "model", "how": "min"}, "a"),
        ("rank", {"column": "gain", "where": {"model": "a", "batch": 1}}, 2.0),
        ("trend", {"column": "gain", "along": "batch", "where": {"model": "a"}}, "falls"),
        ("share", {"column": "gain", "holds": {"from": 2}}, 50.0),
    ],
)
def test_values_of_tables_are_what_one_reads_off(name, arguments, value):
    assert take(name, table="t", **arguments) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "arguments", "value"),
    [
        ("total", {"of": [1, 2, {"claim": "other"}]}, 6.0),
        ("difference", {"of": [5, 2, 1]}, 2.0),
        ("product", {"of": [2, 3, 4]}, 24.0),
        ("ratio", {"of": [12, 2, 3]}, 2.0),
        ("power", {"base": 2, "exponent": 3}, 8.0),
        ("mean", {"of": [1, 3]}, 2.0),
        ("least", {"of": [1, 3]}, 1.0),
        ("largest", {"of": [1, 3]}, 3.0),
        ("ends", {"of": [2, (1, 5)]}, (1.0, 5.0)),
        ("rounded", {"value": 2.5}, 3.0),
        ("floor", {"value": 2.9}, 2.0),
        ("fit", {"baseline": 0, "prophet": 1}, "prophet only"),
        ("compare", {"left": 1, "sign": "<", "right": 2}, True),
        ("compare", {"left": 1.0, "sign": "=", "right": 1.01}, True),
        ("every", {"of": [True, False]}, False),
        ("some", {"of": [True, False]}, True),
        ("joined", {"of": ["a", 1.0]}, "a, 1"),
    ],
)
def test_arithmetic_of_values_is_right(name, arguments, value):
    assert take(name, **arguments) == pytest.approx(value)


def test_trends_of_groups_have_to_agree():
    frame = pd.DataFrame({"model": list("aabb"), "batch": [1, 2, 1, 2], "gain": [2.0, 1.0, 3.0, 3.01]})
    tables = Tables({"t": frame}.__getitem__)
    each = {"take": "trend", "table": "t", "column": "gain", "along": "batch", "each": ["model"]}
    assert evaluated(each, tables, float) == "falls"
    frame.loc[3, "gain"] = 4.0
    assert evaluated(each, Tables({"t": frame}.__getitem__), float) == "mixed"


def test_empty_cells_and_missing_rows_have_a_reason():
    with pytest.raises(Undefined, match="does not fit"):
        take("cell", table="t", column="gain", where={"model": "b", "batch": 16}, empty="it does not fit")
    with pytest.raises(Absent, match="no row for model c"):
        take("cell", table="t", column="gain", where={"model": "c"})
    with pytest.raises(Undefined):
        take("ratio", of=[1, 0])
    with pytest.raises(Undefined, match="no row has a quotient"):
        take("quotients", table="t", column="gain", where={"model": "b", "batch": 16})


def test_unknown_columns_and_several_values_are_mistakes():
    with pytest.raises(KeyError, match="no column loss"):
        take("cell", table="t", column="loss", where={})
    with pytest.raises(ValueError, match=r"\d values"):
        take("cell", table="t", column="gain", where={})


def test_every_evaluator_says_what_it_returns():
    for name, function in EVALUATORS.items():
        assert function.__doc__.startswith("Return"), name
