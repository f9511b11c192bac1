"""Published routing predicted from other models, beside uniform occupancy."""

import numpy as np
import pytest

from prophet_moe.routing.published import BATCHES, PUBLISHED, read_published
from prophet_moe.routing.published_law import BASES, predictions
from tests.conftest import ROOT

ROWS = read_published(ROOT / PUBLISHED)
BY_ID = {row.id: row for row in ROWS}


def found(name, rows=ROWS):
    return {prediction.basis: prediction for prediction in predictions(BY_ID[name], rows)}


def test_bases_come_in_order_and_count_their_models():
    of = found("RO-001")
    assert tuple(of) == BASES
    assert [of[basis].models for basis in BASES] == [0, 9, 5, 4, 0]


def test_predictions_do_not_see_the_model_itself():
    """Whatever its own rows say, also on other texts, what others predict of it stays."""
    changed = [row.model_copy(update={"effective_cv": 2.0}) if row.known_as == "OLMoE-1B-7B" else row for row in ROWS]
    before, after = found("RO-001"), found("RO-001", changed)
    for basis in BASES[:-1]:
        assert np.array_equal(before[basis].unique, after[basis].unique)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_predictions_are_possible_and_own_ones_are_near(row):
    of = found(row.id)
    limit = np.minimum(row.experts, row.top_k * np.array(BATCHES))
    for prediction in of.values():
        assert (prediction.unique >= row.top_k - 1e-9).all() and (prediction.unique <= limit + 1e-9).all()
        assert (prediction.unique <= of["uniform_occupancy"].unique + 1e-9).all()
        assert np.isnan(prediction.low) or prediction.low <= prediction.parameter <= prediction.high
    assert np.abs(of["own"].unique / row.unique - 1).max() < 0.06


def test_a_model_alone_has_uniform_occupancy_and_its_own():
    assert tuple(found("RO-005", [BY_ID["RO-005"]])) == ("uniform_occupancy", "own")


def test_uniform_occupancy_of_mixtral_is_the_golden_value():
    assert found("RO-005")["uniform_occupancy"].unique == pytest.approx(
        [3.5, 5.469, 7.199, 7.920, 7.999, 8.0], abs=6e-4
    )
