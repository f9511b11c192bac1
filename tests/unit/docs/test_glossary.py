"""The glossary: each word once, in order, and every word of a result can be looked up."""

import csv
import re

from tests.conftest import ROOT

PAGE = ROOT / "docs/glossary.md"
ENTRY = re.compile(r"^\* \*\*([^*]+)\*\*([.:]) (.+)$", re.MULTILINE)
WORDS = [
    *("access", "baseline", "capacity", "deduplication factor", "distinct experts", "effective CV", "expert savings"),
    *("fit state", "hit rate", "KV extension", "on-demand offload", "popularity CV", "prefetch request", "Prophet"),
    *("recall@K", "request deduplication", "routed expert", "shared expert", "slot", "slowdown"),
]
"""What the project's results are told in."""
OLD_WORDS = ("ask", "frontier", "place", "resident rule", "round", "stand-in", "timed as", "variation", "waves", "wish")
"""Words of this project alone, which lead to the field's."""


def entries() -> dict[str, str]:
    """What the page says of every word."""
    return {word: text for word, _, text in ENTRY.findall(PAGE.read_text())}


def test_words_are_in_alphabetical_order_and_once_each():
    words = [word.lower() for word, *_ in ENTRY.findall(PAGE.read_text())]
    assert words == sorted(set(words))
    assert len(words) == PAGE.read_text().count("\n* ")


def test_words_of_results_are_defined():
    assert not {*WORDS, *OLD_WORDS} - entries().keys()
    assert all(len(entries()[word].split()) >= 6 for word in WORDS)


def test_references_lead_to_a_word_of_the_page():
    named = [word for text in entries().values() for word in re.findall(r"\*\*([^*]+)\*\*", text)]
    assert named and not set(named) - entries().keys()


def test_columns_of_the_record_are_in_glossary_or_data():
    pages = PAGE.read_text() + (ROOT / "docs/data.md").read_text()
    with (ROOT / "tables/data/prophet_kv_extension_extended.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    assert len(columns) > 40
    assert not [name for name in columns if f"`{name}`" not in pages]
