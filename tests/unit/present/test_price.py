"""The KV extension within a limit of slowdown: table 11 in a few numbers, against plain loops."""

import statistics

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as some

from prophet_moe.present.price import STRATEGIES, by_model, gains, limits_of, native_gain_rows, summary

LIMITS = (1.05, 1.2, 2.0)
EXTENSION = some.one_of(some.just(float("nan")), some.floats(1, 50))


def made(extensions: list[list[float]], strategies: tuple[str, ...] = tuple(STRATEGIES)) -> pd.DataFrame:
    """A table 11 with a configuration per entry, whose numbers are the gains of its strategies at the limits.

    Models alternate. Columns that are no gain, intervals among them, stand beside.
    """
    rows = []
    for number, values in enumerate(extensions):
        for place, strategy in enumerate(strategies):
            row = {"model": f"M{number % 2}", "gpu": f"G{number}", "batch_size": 1, "strategy": strategy, "trace": "t"}
            for at, limit in enumerate(LIMITS):
                value = values[place * len(LIMITS) + at]
                row[f"max_context_at_{limit:g}x"] = 7
                row[f"kv_extension_at_{limit:g}x"] = value
                row[f"kv_extension_at_{limit:g}x_low"] = row[f"kv_extension_at_{limit:g}x_high"] = -1
                row[f"kv_extension_at_{limit:g}x_bound"] = 2 * value
            rows.append(row)
    return pd.DataFrame(rows)


def defined(table: pd.DataFrame, strategy: str, limit: float, model: str | None = None) -> list[float]:
    """The gains of a strategy at a limit where the baseline fits, by a plain loop."""
    return [
        row[f"kv_extension_at_{limit:g}x"]
        for row in table.to_dict("records")
        if row["strategy"] == strategy
        and model in (None, row["model"])
        and not np.isnan(row[f"kv_extension_at_{limit:g}x"])
    ]


TABLES = some.lists(some.lists(EXTENSION, min_size=9, max_size=9), min_size=1, max_size=6).map(made)


def test_limits_are_those_of_the_columns_ascending():
    columns = ["kv_extension_at_2x", "kv_extension_at_1.05x", "kv_extension_at_10x", "kv_extension_at_1.05x_low"]
    assert limits_of(pd.DataFrame(columns=[*columns, "max_context_at_3x", "kv_extension_at_4x_bound"])) == [1.05, 2, 10]


@given(TABLES)
def test_gains_equal_a_plain_loop(table):
    found = {
        (row.model, row.gpu, row.batch_size, row.strategy, row.limit): row.extension
        for row in gains(table).itertuples()
    }
    expected = {
        (row["model"], row["gpu"], row["batch_size"], row["strategy"], limit): row[f"kv_extension_at_{limit:g}x"]
        for row in table.to_dict("records")
        for limit in LIMITS
        if not np.isnan(row[f"kv_extension_at_{limit:g}x"])
    }
    assert found == expected


@given(TABLES)
def test_price_by_model_equals_a_plain_loop(table):
    found = by_model(table)
    order = [f"mean_{name}_at_{limit:g}x" for limit in LIMITS for name in STRATEGIES]
    assert list(found.columns) == order
    for model in ("M0", "M1"):
        of = {(name, limit): defined(table, name, limit, model) for name in STRATEGIES for limit in LIMITS}
        assert (model in found.index) == any(of.values())
        for (name, limit), values in of.items():
            cell = found[f"mean_{name}_at_{limit:g}x"].get(model, np.nan)
            assert cell == pytest.approx(statistics.fmean(values) if values else np.nan, nan_ok=True)


@given(TABLES)
def test_summary_equals_plain_statistics(table):
    found = summary(table).to_dict("index")
    expected = {
        (name, limit): {
            "median": statistics.median(values),
            "median_bound": 2 * statistics.median(values),
            "geomean": statistics.geometric_mean(values),
            "mean": statistics.fmean(values),
            "configurations": len(values),
        }
        for name in STRATEGIES
        for limit in LIMITS
        if (values := defined(table, name, limit))
    }
    assert found.keys() == expected.keys()
    for key, numbers in expected.items():
        assert found[key] == pytest.approx(numbers)


def test_a_strategy_that_was_not_simulated_has_no_price():
    table = made([[1.1, 1.2, 1.3, 1.4, 1.5, 1.6]], ("on_demand", "prophet"))
    found = by_model(table)
    assert found.filter(like="perfect_prefetch").isna().all(axis=None)
    assert found.loc["M0", "mean_prophet_at_1.05x"] == 1.4
    assert set(summary(table).index.get_level_values("strategy")) == {"on_demand", "prophet"}


def test_price_where_no_baseline_fits_is_empty():
    table = made([[np.nan] * 9, [np.nan] * 9])
    assert gains(table).empty and by_model(table).empty and summary(table).empty
    assert list(by_model(table).columns) == list(by_model(made([[1.0] * 9])).columns)


def test_native_gains_are_counted_row_by_row():
    gained = pd.DataFrame(
        {
            "model": ["M", "M", "M", "N"],
            "gpu": ["a", "b", "c", "a"],
            "batch_size": 1,
            "strategy": "prophet",
            "baseline_max_context": [100, 900, 0, 500],
            "max_context_at_2x": [150, 1200, 300, 500],
            "kv_extension_at_2x": [1.5, 4 / 3, np.nan, 1.0],
        }
    )
    assert native_gain_rows(gained, {"M": 800, "N": 800})["prophet", 2.0] == 1
    assert native_gain_rows(gained, {"M": 1000, "N": 800})["prophet", 2.0] == 2
