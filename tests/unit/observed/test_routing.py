"""Published routing held against the law, as observations are."""

import pytest

from prophet_moe.observed.routing import predicted
from prophet_moe.routing.published import BATCHES, PUBLISHED, read_published
from tests.conftest import ROOT

ROWS = read_published(ROOT / PUBLISHED)
TABLE = predicted(ROWS, ROWS)


def error(observation, quantity):
    (found,) = TABLE[(TABLE["id"] == observation) & (TABLE["quantity"] == quantity)]["error_pct"]
    return found


def test_predicted_has_three_ways_at_every_batch_size():
    assert len(TABLE) == len(ROWS) * len(BATCHES) * 3
    assert set(TABLE["kind"]) == {"routing"} and set(TABLE["unit"]) == {"experts"}
    assert not TABLE[["measured", "predicted", "error_pct"]].isna().any().any()


def test_predicted_says_why_a_row_is_left_out():
    told = TABLE.groupby("id")[["clean", "left_out"]].first()
    assert (told["clean"] == (told["left_out"] == "")).all()
    assert told["left_out"]["RO-038"].startswith("layer 0 of 24 only")


@pytest.mark.parametrize(
    ("observation", "quantity", "expected"),
    [("RO-002", "u_64_uniform", 40.7), ("RO-028", "u_16_uniform", 21.6), ("RO-012", "u_64_own_cv", -0.33)],
)
def test_predicted_errors_are_golden_values(observation, quantity, expected):
    assert error(observation, quantity) == pytest.approx(expected, abs=0.1)


def test_pooled_cv_beats_uniform_occupancy_over_all_models():
    clean = TABLE[TABLE["clean"]]
    size = clean["error_pct"].abs().groupby(clean["quantity"].str.split("_", n=2).str[2]).mean()
    assert size["own_cv"] < size["pooled_cv"] < size["uniform"]


def test_an_own_model_is_predicted_from_the_published_ones():
    mine = ROWS[4].model_copy(update={"id": "mine", "model": "Mine", "stands_for": ""})
    table = predicted([mine], ROWS)
    assert set(table["id"]) == {"mine"} and len(table) == 18
