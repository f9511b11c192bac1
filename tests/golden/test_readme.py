"""README shows the headlines of the committed tables."""

import pandas as pd

from prophet_moe.capacity.record import read_record
from prophet_moe.present.quoted_numbers import headlines
from tests.conftest import ROOT


def test_readme_shows_the_headlines_of_the_tables():
    names = {"calibrated": "", "reported": "reported/"}
    records = {name: read_record(ROOT / f"tables/{at}data/prophet_kv_extension_data.csv") for name, at in names.items()}
    gained, prefill = (pd.read_csv(ROOT / f"tables/{name}.csv") for name in ("table11_context_gained", "data/prefill"))
    text = headlines(records, gained, prefill)
    block = (ROOT / "README.md").read_text().split("```\n")
    assert any(part.rstrip("\n") == text for part in block), f"put results/headlines.txt into README:\n{text}"
