"""Published routing held against the law, as observations are."""

import json

import pandas as pd
import pytest

from prophet_moe.cli.main import main
from prophet_moe.errors import UserError
from prophet_moe.observed.context import load_context
from prophet_moe.observed.routing import predicted
from prophet_moe.observed.schema import RESULT_COLUMNS, ROUTING, read_observations
from prophet_moe.routing.published import BATCHES, PUBLISHED
from tests.conftest import ROOT

CONTEXT = load_context(ROOT)
ROWS = read_observations(ROOT / PUBLISHED, ROUTING)
TABLE = predicted(ROWS, CONTEXT)
MINE = {"id": "mine-1", "model": "Mine", "experts": 8, "top_k": 2, "source": "mine"}
MINE |= {"u_2": 3.4, "u_4": 5.2, "u_8": 6.9, "u_16": 7.7, "u_32": 7.9, "u_64": 8.0}


def mine(path, **changes):
    """A user's file of one row with the columns that are required."""
    pd.DataFrame([MINE | changes]).to_csv(path, index=False)
    return path


def error(observation, quantity):
    (found,) = TABLE[(TABLE["id"] == observation) & (TABLE["quantity"] == quantity)]["error_pct"]
    return found


def test_predicted_has_three_ways_at_every_batch_size():
    assert len(TABLE) == len(ROWS) * len(BATCHES) * 3
    assert list(TABLE.columns) == [column.name for column in RESULT_COLUMNS]
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


def test_an_own_model_is_predicted_from_the_published_ones(tmp_path):
    table = predicted(read_observations(mine(tmp_path / "mine.csv"), ROUTING), CONTEXT)
    assert set(table["id"]) == {"mine-1"} and len(table) == 18 and table["clean"].all()


def test_a_model_under_another_name_is_not_its_own_evidence(tmp_path):
    """Counts of OLMoE under the name of its checkpoint are predicted as those of the file are."""
    row = ROWS[ROWS["id"] == "RO-001"][[*MINE, "balancing"]].assign(id="mine-1", model="OLMoE-1B-7B-0924")
    row.to_csv(tmp_path / "mine.csv", index=False)
    table = predicted(read_observations(tmp_path / "mine.csv", ROUTING), CONTEXT)
    expected = TABLE[TABLE["id"] == "RO-001"]
    assert table["predicted"].tolist() == pytest.approx(expected["predicted"].tolist(), rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"u_8": 7.5}, r"mine-1: u_8: got 7.5, expected 5.2 \(u of a smaller batch\) to 7.1991 \(even popularity\)"),
        ({"top_k": 9}, "mine-1: top_k: got 9, expected at most the 8 experts"),
        ({"source": ""}, "line 2: source: is empty"),
        ({"u_2": ""}, "line 2: u_2: is empty"),
    ],
)
def test_impossible_rows_of_a_user_are_refused(tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        predicted(read_observations(mine(tmp_path / "mine.csv", **changes), ROUTING), CONTEXT)


def test_observe_check_prints_errors_of_routing(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["prophet-moe", "observe", "check", str(PUBLISHED), "--kind", "routing", "--json"])
    main()
    found = json.loads(capsys.readouterr().out)
    assert {error["quantity"] for error in found["errors"]} >= {"u_2_own_cv", "u_64_pooled_cv", "u_8_uniform"}
    assert len(found["left_out"]) == 2
