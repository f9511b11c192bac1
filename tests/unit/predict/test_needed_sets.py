"""How large a predicted set must be, against plain Python, and for predictors that know all or nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.predict.needed_sets import chosen_of, needed_set, predicted_sets
from prophet_moe.predict.network import read_network
from prophet_moe.routing.store import read_trace
from tests.conftest import ROOT


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 4), st.integers(1, 5))
def test_needed_set_equals_plain_python(seed, experts, batch, steps):
    """Rank the experts by the chance that any token chooses them, and count until all of the step are named."""
    rng = np.random.default_rng(seed)
    top_k = int(rng.integers(1, experts + 1))
    chance = rng.random((steps, batch, experts)) * 0.98
    choices = rng.random((steps, batch, experts)).argsort(axis=2)[:, :, :top_k]
    found = needed_set(np.log1p(-chance).sum(axis=1), chosen_of(choices, experts))
    for step in range(steps):
        needed = set(choices[step].ravel().tolist())
        used = [1 - np.prod([1 - chance[step, token, expert] for token in range(batch)]) for expert in range(experts)]
        ranking = sorted(range(experts), key=lambda expert: -used[expert])
        size = next(size for size in range(1, experts + 1) if needed <= set(ranking[:size]))
        assert found[step] == size


def test_needed_set_of_equals_names_them_all():
    chosen = np.array([[True, False, False, False]])
    assert needed_set(np.full((1, 4), -1.0), chosen).tolist() == [4]
    assert needed_set(np.array([[-9.0, -1.0, -1.0, -1.0]]), chosen).tolist() == [1]


@pytest.fixture(scope="module")
def sets():
    """The table of the smallest trace."""
    name = "small-6x8-top2"
    trace, network = read_trace(ROOT / "resources/traces" / name), read_network(ROOT / "resources/predictors" / name)
    return predicted_sets(name, trace, network).set_index("batch_size")


def test_predicted_sets_hold_at_least_what_is_needed(sets):
    assert sets.index.tolist() == [1, 4, 16]
    assert sets.loc[1, "mean_distinct"] == sets.loc[1, "distinct_p99"] == 2
    assert (sets["predicted_set_p99"] >= sets["distinct_p99"]).all()
    assert (sets["predicted_set_p99"] <= sets["num_experts"]).all()
    assert (sets["predicted_set_p50"] <= sets["predicted_set_p90"]).all()
    assert sets["mean_distinct"].is_monotonic_increasing


def test_predicted_sets_of_one_token_are_the_audits(sets):
    """3, 5 and 7 experts name both of a token's in 50, 90 and 99 % of layer-steps; one apart is another draw."""
    found = sets.loc[1, ["predicted_set_p50", "predicted_set_p90", "predicted_set_p99"]].tolist()
    np.testing.assert_allclose(found, [3, 5, 7], atol=1)
