"""Mistakes in config/claims.yaml end in one line, and families pass on what they say."""

import pytest

from prophet_moe.claims.bindings import tables_read
from prophet_moe.claims.ledger import read_ledger
from prophet_moe.errors import UserError
from prophet_moe.printed import PRINTED_FILE, read_printed
from tests.conftest import ROOT

PRINTED = read_printed(ROOT / PRINTED_FILE)
FAMILY = """families:
- family: savings
  says: "{model} saves {claimed} % at batch size {batch}."
  unit: "%"
  calibrated: {take: cell, table: record, column: savings, where: {model: "{model}", batch_size: "{batch}"}}
  claims:
"""


def read(tmp_path, text):
    """The claims of a file with this text."""
    path = tmp_path / "claims.yaml"
    path.write_text(text, encoding="utf-8")
    return read_ledger(PRINTED, path)


def test_families_fill_in_the_words_of_their_claims(tmp_path):
    entry = '  - {id: a, claimed: "9.0", model: OLMoE, batch: 4, lines: ["000:24"]}\n'
    [claim] = read(tmp_path, FAMILY + entry)
    assert claim.says == "OLMoE saves 9.0 % at batch size 4."
    assert claim.calibrated["where"] == {"model": "OLMoE", "batch_size": 4}
    assert claim.tables == ["record"] and tables_read(tmp_path / "claims.yaml") == ["record"]


def test_printed_claims_take_value_and_place_from_there(tmp_path):
    row = PRINTED.iloc[0]
    text = f"families:\n- family: f\n  says: s\n  claims:\n  - {{id: a, printed: {[row.table, row.row, row.column]}}}\n"
    [claim] = read(tmp_path, text)
    assert claim.claimed == row.printed and claim.lines == [row.source] and claim.model == row.model
    assert set(claim.bindings) == {"reported", "calibrated"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{id: a, claimed: "1", model: m, batch: 1, colour: red}', "colour: unknown key"),
        ("{id: a, claimed: 1, model: m, batch: 1}", "claimed: got 1"),
        ("{id: a, model: m, batch: 1}", "both or neither of claimed and printed"),
        ("{id: a, printed: [x, y, z]}", "expected a table, row and column"),
        ('{id: a, claimed: "1", calibrated: {take: guess}}', "take: got 'guess', expected one of cell"),
        ('{id: a, claimed: "1", calibrated: {take: cell, tabel: x}}', "cell: missing a required argument"),
        ('{id: a, claimed: "1", calibrated: {claim: b}}', "refers to claim b"),
        ('{id: a, claimed: "1", says: "{who}"}', "'who' stands in braces"),
    ],
)
def test_mistakes_name_the_claim_and_the_key(tmp_path, entry, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, f"{FAMILY}  - {entry}\n")
    assert message in str(error.value) and "claims.yaml: a" in str(error.value)


def test_an_id_is_there_once(tmp_path):
    entry = '  - {id: a, claimed: "1", model: m, batch: 1}\n'
    with pytest.raises(UserError, match="a: is there twice"):
        read(tmp_path, FAMILY + entry + entry)
