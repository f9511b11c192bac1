"""README shows the headlines and the claims of the committed tables, in one screen."""

from collections.abc import Mapping

import pandas as pd
import pytest

from prophet_moe.capacity.record import RECORD
from prophet_moe.present.artifact_page import committed_tables
from prophet_moe.present.claims_table import claims_table, paper_claims, reported_claims
from prophet_moe.present.quoted_numbers import headlines
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.study import Study, load_studies
from prophet_moe.tables import read_table
from studies.observed.figure import headline
from studies.observed.study import ROWS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
LIMIT = DecodeStep().claimed_slowdown


@pytest.fixture(scope="module")
def studies() -> dict[str, Study]:
    """Every study by its id."""
    return load_studies(ROOT / "workflow/studies")


@pytest.fixture(scope="module")
def shown(studies) -> Mapping[str, pd.DataFrame]:
    """The committed tables behind README, by name."""
    return committed_tables(studies)


def test_readme_shows_the_headlines_of_the_tables(shown):
    records = {"calibrated": shown[RECORD.name], "reported": shown[f"reported/{RECORD.name}"]}
    text = headlines(records, shown["table11_context_gained"], shown["prefill"])
    block = README.split("```\n")
    assert any(part.rstrip("\n") == text for part in block), f"put results/headlines.txt into README:\n{text}"


def test_readme_shows_the_claims_of_the_tables(shown, studies):
    text = claims_table(reported_claims(shown, LIMIT), {name: study.minutes for name, study in studies.items()})
    assert text in README, f"put this table into README:\n{text}"


def test_readme_begins_with_the_finding_and_its_price(shown):
    first_screen = " ".join(README.partition("\n## ")[0].split())
    for claim in paper_claims(shown, LIMIT):
        assert claim.id not in ("C2", "C3") or claim.found in first_screen, f"put this into README:\n{claim.found}"


def test_readme_shows_the_errors_against_observations():
    text = headline(read_table(ROOT / ROWS.path, ROWS))
    assert text in " ".join(README.split()), f"put this sentence into README:\n{text}"


def test_readme_leads_with_observations_in_1000_words():
    assert README.index("(figures/observed.png)") < README.index("(figures/frontier.png)")
    assert len(README.split()) <= 1000
