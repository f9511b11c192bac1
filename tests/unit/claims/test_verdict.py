"""One rule judges all claims: every verdict, from what is stated and found."""

import pandas as pd
import pytest

from prophet_moe.claims.claimed import parse_claimed
from prophet_moe.claims.evaluators import Tables
from prophet_moe.claims.ledger import Claim, Corrected
from prophet_moe.claims.verdict import VERDICTS, as_rows, judge_all

RIGHT, WRONG = ({"take": "number", "value": value} for value in (4.0, 5.0))
NONE = {"take": "cell", "table": "t", "column": "gain", "where": {"model": "a"}, "empty": "the baseline does not fit"}
ABSENT = {"take": "cell", "table": "t", "column": "gain", "where": {"model": "b"}}
TABLES = Tables({"t": pd.DataFrame({"model": ["a"], "gain": [None]})}.__getitem__)


def judged(**values):
    """The verdict on a claim of 4.0 with these values, and its reason."""
    claim = Claim(id="c", family="f", says="It is so.", claimed="4.0", stated=parse_claimed("4.0"), **values)
    [found] = judge_all([claim], TABLES, 0.01)
    return found.verdict, found.reason


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"calibrated": RIGHT}, "reproduced"),
        ({"calibrated": RIGHT, "reported": WRONG, "evidence": "law"}, "reproduced"),
        ({"calibrated": WRONG, "observed": RIGHT}, "reproduced"),
        ({"calibrated": RIGHT, "observed": WRONG}, "contradicted"),
        ({"calibrated": WRONG}, "contradicted"),
        ({"calibrated": NONE}, "contradicted"),
        ({"calibrated": WRONG, "reported": RIGHT, "evidence": "fitted"}, "contradicted"),
        ({"calibrated": NONE, "reported": RIGHT, "evidence": "forced"}, "reproduced-by-fit"),
        ({"calibrated": NONE, "reported": RIGHT, "evidence": "law"}, "contradicted"),
        ({"calibrated": WRONG, "reported": WRONG, "evidence": "fitted"}, "contradicted"),
        ({"calibrated": WRONG, "reported": WRONG, "evidence": "law"}, "self-contradictory"),
        ({"calibrated": WRONG, "against": WRONG}, "self-contradictory"),
        ({"against": WRONG}, "self-contradictory"),
        ({"calibrated": WRONG, "corrected": Corrected(by="elsewhere", value=RIGHT)}, "corrected"),
        ({"reported": RIGHT, "evidence": "fitted"}, "reproduced-by-fit"),
        ({"reported": RIGHT, "evidence": "forced"}, "reproduced-by-fit"),
        ({"reported": RIGHT, "evidence": "arithmetic"}, "reproduced"),
        ({"reported": WRONG, "evidence": "fitted"}, "contradicted"),
        ({"definition": True}, "definition"),
        ({"definition": True, "calibrated": RIGHT}, "definition"),
        ({"definition": True, "calibrated": WRONG}, "contradicted"),
        ({"needs": "the logs of a service"}, "not-evaluable"),
        ({"needs": "the logs of a service", "observed": WRONG}, "contradicted"),
        ({"calibrated": ABSENT}, "not-evaluable"),
        ({}, "not-evaluable"),
    ],
)
def test_verdict_follows_from_what_was_found(values, verdict):
    assert judged(**values)[0] == verdict
    assert verdict in VERDICTS


def test_estimates_agree_within_their_tolerance():
    near = {"take": "number", "value": 4.03}
    claim = {"id": "c", "family": "f", "says": "s", "claimed": "4.00", "stated": parse_claimed("4.00")}
    counted, estimated = (Claim(**claim, calibrated=near, rests_on=basis) for basis in ("counted", "estimated"))
    verdicts = [found.verdict for found in judge_all([counted, estimated], TABLES, 0.01)]
    assert verdicts == ["contradicted", "reproduced"]


def test_reasons_name_values_and_corrections():
    assert judged(calibrated=NONE)[1] == "Calibrated: no value, the baseline does not fit."
    assert "elsewhere: 4." in judged(calibrated=WRONG, corrected=Corrected(by="elsewhere", value=RIGHT))[1]
    assert judged(observed=WRONG, observed_on="four traces")[1] == "Observed (four traces): 5."
    told = judged(calibrated=RIGHT, reported=WRONG, evidence="law")[1]
    assert told == "Calibrated: 4. By the report's own constants: 5."
    assert "fitted to it" in judged(calibrated=WRONG, reported=RIGHT, evidence="fitted")[1]


def test_rows_have_every_value_as_text():
    claim = Claim(
        id="c", family="f", says="s", claimed="4.0", stated=parse_claimed("4.0"), lines=["000:24"], calibrated=WRONG
    )
    [row] = as_rows(judge_all([claim], TABLES, 0.01)).to_dict("records")
    assert row["document"] == "000" and row["claimed"] == "4.0" and row["calibrated"] == "5"
    assert all(isinstance(value, str) for value in row.values())
