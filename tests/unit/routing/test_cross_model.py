"""Pooling over traces: intervals against SciPy, and no trace that is left out says anything about itself."""

from dataclasses import asdict
from math import inf, sqrt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from prophet_moe.errors import UserError
from prophet_moe.routing import law
from prophet_moe.routing.cross_model import exponent_of, leave_one_out, pooled, popularity_cvs
from prophet_moe.routing.intervals import CONFIDENCE
from prophet_moe.routing.law_fit import SATURATION_SHARE, Fit, Residual
from prophet_moe.routing.popularity_cv import PopularityCV, read_popularity_cvs

BATCHES = (1, 2, 4, 8, 16)
TRACES = (("a", "A", 64, 6), ("b", "B", 128, 1), ("c", "C", 8, 2), ("c2", "C", 8, 2))
"""Name of the trace, its model, E and k; two are of one model."""
VALUES = {
    "dirichlet_occupancy": {"a": 0.5, "b": 0.9, "c": 0.3, "c2": 0.4},
    "power_law": {"a": 0.8, "b": 0.9, "c": 0.6, "c2": 0.7},
    "uniform_occupancy": dict.fromkeys(["a", "b", "c", "c2"], np.nan),
}
HELD_OUT = {name: 1.05 for name in ["a", "b", "c", "c2"]} | {"b": 0.9}
"""Measured u(B > 1) over uniform occupancy."""


def columns(experts: int, top_k: int, batches=BATCHES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E, k and B as arrays of one shape."""
    batch = np.array(batches, float)
    return np.full_like(batch, experts), np.full_like(batch, top_k), batch


def predicted(name: str, experts: int, top_k: int, parameter: float, batches=BATCHES) -> np.ndarray:
    """u(B) of the law called `name`."""
    wide = columns(experts, top_k, batches)
    if name == "uniform_occupancy":
        return law.uniform_occupancy(*wide)
    if name == "power_law":
        return law.power_law(*wide[:2], parameter, wide[2])
    return law.dirichlet_occupancy(*wide[:2], np.full(len(batches), parameter), wide[2])


def tables(values=VALUES, traces=TRACES, batchings=("staggered",)) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fits and residuals of `traces`, as they are written."""
    fits, residuals = [], []
    for batching in batchings:
        for trace, model, experts, top_k in traces:
            measured = law.uniform_occupancy(*columns(experts, top_k)) * ([1] + [HELD_OUT[trace]] * 4)
            for name, value in values.items():
                own = value[trace]
                described = (trace, model, experts, top_k, batching, name, "parameter")
                fits.append(Fit(*described, own, own - 0.1, own + 0.1, 16, 1.0, 0.0, 0.0))
                rows = zip(BATCHES, predicted(name, experts, top_k, own), measured, strict=True)
                residuals += [Residual(trace, experts, top_k, batching, name, *row, 0.0) for row in rows]
    return pd.DataFrame(fits), pd.DataFrame(residuals)


def test_the_interval_is_students_by_hand():
    """Mean 0.5, variance 0.13; 97.5 % quantile of t with two degrees of freedom: sqrt(2) 0.95 / sqrt(1 - 0.95^2)."""
    mean, low, high = pooled([0.2, 0.4, 0.9], least=-inf)
    half = sqrt(2) * 0.95 / sqrt(1 - 0.95**2) * sqrt(0.13) * sqrt(4 / 3)
    assert (mean, low, high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert pooled([0.2, 0.4, 0.9])[1] == 0


@given(values=st.lists(st.floats(0, 5), min_size=2, max_size=9), least=st.floats(-3, 0))
def test_the_interval_is_scipys(values, least):
    mean, low, high = pooled(values, least)
    scale = np.std(values, ddof=1) * sqrt(1 + 1 / len(values))
    expected = stats.t(len(values) - 1, np.mean(values), scale).ppf((0.025, 0.975)) if scale else [np.mean(values)] * 2
    assert mean == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx((max(least, expected[0]), expected[1]), abs=1e-12)


def test_the_next_model_lies_in_the_interval_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(10, 2, (2500, 5))
    inside = [low <= following <= high for *seen, following in draws for _, low, high in [pooled(seen)]]
    assert np.mean(inside) == pytest.approx(CONFIDENCE, abs=4 * sqrt(0.95 * 0.05 / len(draws)))


def test_models_with_traces_get_their_fits_and_others_the_pool():
    """A model's traces are averaged first, so that it counts once; all are named as sources."""
    fits, _ = tables()
    models = {"B": (128, 1), "C": (8, 2), "new": (64, 2)}
    found = {row.model: row for row in popularity_cvs(fits, models, "staggered")}
    assert list(found) == list(models)
    assert (found["B"].value, found["B"].low, found["B"].high) == pytest.approx((0.9, 0.8, 1.0))
    assert (found["B"].batching, found["B"].source) == ("staggered", "fitted to b")
    assert (found["C"].value, found["C"].low, found["C"].high) == pytest.approx((0.35, 0.25, 0.45))
    assert found["C"].source == "fitted to c, c2"
    new = found["new"]
    assert (new.value, new.low, new.high) == pytest.approx(pooled([0.5, 0.9, 0.35]))
    assert new.source == "pooled from a, b, c, c2"


def test_fits_of_other_batches_and_laws_do_not_count():
    fits, _ = tables(batchings=("staggered", "prefill"))
    fits.loc[fits["batching"] == "prefill", "value"] += 1
    staggered, prefill = (
        popularity_cvs(fits, {"new": (10_000, 1)}, batching)[0] for batching in ("staggered", "prefill")
    )
    assert prefill.value == pytest.approx(staggered.value + 1)
    assert prefill.batching == "prefill"


@settings(deadline=None, max_examples=30)
@given(experts=st.integers(1, 300), data=st.data())
def test_no_model_varies_more_than_it_can(experts, data):
    """And where there is but one trace, the interval is all that it can vary by."""
    top_k = data.draw(st.integers(1, experts))
    fits, _ = tables()
    (found,) = popularity_cvs(fits, {"new": (experts, top_k)}, "staggered")
    assert 0 <= found.low <= found.value <= found.high <= sqrt(experts / top_k - 1)
    single, _ = tables(traces=TRACES[1:2])
    (found,) = popularity_cvs(single, {"new": (experts, top_k)}, "staggered")
    most = sqrt(experts / top_k - 1)
    assert (found.low, found.value, found.high) == pytest.approx((0, min(0.9, most), most))
    assert pooled([0.9]) == (0.9, 0.0, inf)


def test_leave_one_out_by_hand():
    predictions = {(row.law, row.trace): row for row in leave_one_out(*tables(), "staggered")}
    assert set(predictions) == {(name, trace) for name in VALUES for trace in HELD_OUT}
    others = {"a": ["b", "c"], "b": ["a", "c"], "c": ["a", "b"], "c2": ["a", "b"]}
    for (name, trace), row in predictions.items():
        pool = {own: VALUES[name][own] for own in others[trace]}
        if "c" in pool:
            pool["c"] = (VALUES[name]["c"] + VALUES[name]["c2"]) / 2
        parameter = pooled(list(pool.values()))
        assert (row.parameter, row.low, row.high) == pytest.approx(
            (np.nan,) * 3 if name == "uniform_occupancy" else parameter, nan_ok=True
        )
        assert row.own == pytest.approx(VALUES[name][trace], nan_ok=True)
        _, _, experts, top_k = next(described for described in TRACES if described[0] == trace)
        measured = predicted("uniform_occupancy", experts, top_k, np.nan) * ([1] + [HELD_OUT[trace]] * 4)
        relative = [
            100 * (p / m - 1) for p, m in zip(predicted(name, experts, top_k, parameter[0]), measured, strict=True)
        ]
        assert row.error_pct == pytest.approx(sqrt(sum(r**2 for r in relative[1:]) / 4))
        assert row.worst_residual_pct == pytest.approx(max(relative, key=abs))


@pytest.mark.parametrize("left", ["a", "c"])
@pytest.mark.parametrize("name", ["dirichlet_occupancy", "power_law"])
def test_what_is_left_out_says_nothing_about_itself(left, name):
    """Changing all fits of the model left out changes its `own` value, and no number of its prediction."""
    fits, residuals = tables()
    model = next(described[1] for described in TRACES if described[0] == left)
    changed = fits.copy()
    changed.loc[changed["model"] == model, ["value", "low", "high"]] += 0.2
    fitted_anew = residuals.copy()
    fitted_anew["predicted"] += 1

    def row(*given_tables):
        return next(row for row in leave_one_out(*given_tables, "staggered") if (row.law, row.trace) == (name, left))

    before, after = asdict(row(fits, residuals)), asdict(row(changed, fitted_anew))
    assert after.pop("own") == pytest.approx(before.pop("own") + 0.2)
    assert after == before
    fits.loc[fits["model"] != model, "value"] += 0.2
    assert row(fits, residuals).parameter == pytest.approx(before["parameter"] + 0.2)


def test_one_model_alone_is_not_predicted_from_itself():
    assert leave_one_out(*tables(traces=TRACES[2:]), "staggered") == []


@settings(deadline=None, max_examples=50)
@given(experts=st.integers(2, 300), top_k=st.integers(1, 8), share=st.floats(0, 1))
def test_exponent_of_is_least_squares_below_saturation(experts, top_k, share):
    top_k = min(top_k, experts)
    popularity_cv = share * sqrt(experts / top_k - 1)
    unique = predicted("dirichlet_occupancy", experts, top_k, popularity_cv)
    below = [(b, u) for b, u in zip(BATCHES, unique, strict=True) if u <= SATURATION_SHARE * experts]
    exponent, largest = exponent_of(experts, top_k, popularity_cv, BATCHES)
    assert largest == max([1, *(b for b, _ in below)])
    if largest == 1:
        assert np.isnan(exponent)
    else:
        x, y = np.log(np.array(below) / [1, top_k]).T
        assert exponent == pytest.approx(np.linalg.lstsq(x[:, None], y)[0][0], abs=1e-9)


def test_popularity_cvs_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "variation.csv"
    written = [
        PopularityCV("A", "staggered", 0.5, 0.25, 0.75, "fitted to a"),
        PopularityCV("B", "staggered", 0.75, 0.0, 2.0, "pooled from a"),
        PopularityCV("A", "prefill", 1.5, 1.25, 1.75, "fitted to a"),
    ]
    pd.DataFrame(written).to_csv(path, index=False)
    assert read_popularity_cvs(path, "staggered") == {"A": written[0], "B": written[1]}
    assert read_popularity_cvs(path, "prefill") == {"A": written[2]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        ("model,batching,value\n", "has 3 columns, expected 6"),
    ],
)
def test_a_missing_or_other_table_is_refused_in_one_line(tmp_path, content, problem):
    path = tmp_path / "variation.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=problem) as caught:
        read_popularity_cvs(path, "staggered")
    assert str(caught.value).startswith(f"{path}: ")
    assert "snakemake --cores 8" in str(caught.value)
    assert "\n" not in str(caught.value)
