"""README shows the headlines of the committed tables."""

from prophet_moe.capacity.limits import CONTEXT_GAINED
from prophet_moe.capacity.record import RECORD
from prophet_moe.present.quoted_numbers import headlines
from prophet_moe.tables import read_table
from studies.prefill.study import PREFILL
from tests.conftest import ROOT


def test_readme_shows_the_headlines_of_the_tables():
    names = {"calibrated": "", "reported": "reported/"}
    path = "data/prophet_kv_extension_data.csv"
    records = {name: read_table(ROOT / "tables" / at / path, RECORD) for name, at in names.items()}
    gained, prefill = (read_table(ROOT / table.path, table) for table in (CONTEXT_GAINED, PREFILL))
    text = headlines(records, gained, prefill)
    block = (ROOT / "README.md").read_text().split("```\n")
    assert any(part.rstrip("\n") == text for part in block), f"put results/headlines.txt into README:\n{text}"
