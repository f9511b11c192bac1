"""README shows the headlines and the claims of the committed tables, in one screen."""

import pandas as pd

from prophet_moe.capacity.limits import CONTEXT_GAINED
from prophet_moe.capacity.record import RECORD
from prophet_moe.present.claims_table import claims_table
from prophet_moe.present.quoted_numbers import headlines
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.study import load_studies
from prophet_moe.tables import read_table
from studies.comparison.study import SAVINGS, STRATEGIES
from studies.observed.figure import headline
from studies.observed.study import ROWS
from studies.prefill.study import PREFILL
from studies.routing_law.study import EXPONENTS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def shown() -> dict[str, pd.DataFrame]:
    """The committed tables behind README, by name."""
    records = {
        f"{at}{RECORD.name}": read_table(ROOT / RECORD.path.format(scenario_dir=at), RECORD) for at in ("", "reported/")
    }
    tables = (EXPONENTS, STRATEGIES, SAVINGS, CONTEXT_GAINED, PREFILL)
    return records | {table.name: read_table(ROOT / table.path, table) for table in tables}


def test_readme_shows_the_headlines_of_the_tables():
    tables = shown()
    records = {"calibrated": tables[RECORD.name], "reported": tables[f"reported/{RECORD.name}"]}
    text = headlines(records, tables["table11_context_gained"], tables["prefill"])
    block = README.split("```\n")
    assert any(part.rstrip("\n") == text for part in block), f"put results/headlines.txt into README:\n{text}"


def test_readme_shows_the_claims_of_the_tables():
    minutes = {name: study.minutes for name, study in load_studies(ROOT / "workflow/studies").items()}
    text = claims_table(shown(), DecodeStep().claimed_slowdown, minutes)
    assert text in README, f"put this table into README:\n{text}"


def test_readme_shows_the_errors_against_observations():
    text = headline(read_table(ROOT / ROWS.path, ROWS))
    assert text in " ".join(README.split()), f"put this sentence into README:\n{text}"


def test_readme_leads_with_observations_in_1000_words():
    assert README.index("(figures/observed.png)") < README.index("(figures/frontier.png)")
    assert len(README.split()) <= 1000
