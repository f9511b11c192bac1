"""README shows the headlines and the claims of the committed tables, in one screen."""

import pandas as pd

from prophet_moe.capacity.record import read_record
from prophet_moe.present.claims_table import claims_table
from prophet_moe.present.quoted_numbers import headlines
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.study import load_studies
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
RECORD = "prophet_kv_extension_data"
SHOWN = (
    "table5_routing_exponents",
    "table8_strategies",
    "table9_expert_deduplication",
    "table11_context_gained",
    "data/prefill",
)


def shown() -> dict[str, pd.DataFrame]:
    """The committed tables behind README, by name."""
    records = {f"{at}{RECORD}": read_record(ROOT / f"tables/{at}data/{RECORD}.csv") for at in ("", "reported/")}
    return records | {name: pd.read_csv(ROOT / f"tables/{name}.csv") for name in SHOWN}


def test_readme_shows_the_headlines_of_the_tables():
    tables = shown()
    records = {"calibrated": tables[RECORD], "reported": tables[f"reported/{RECORD}"]}
    text = headlines(records, tables["table11_context_gained"], tables["data/prefill"])
    block = README.split("```\n")
    assert any(part.rstrip("\n") == text for part in block), f"put results/headlines.txt into README:\n{text}"


def test_readme_shows_the_claims_of_the_tables():
    minutes = {name: study.minutes for name, study in load_studies(ROOT / "workflow/studies").items()}
    text = claims_table(shown(), DecodeStep().claimed_slowdown, minutes)
    assert text in README, f"put this table into README:\n{text}"


def test_readme_has_at_most_a_thousand_words():
    assert len(README.split()) <= 1000
