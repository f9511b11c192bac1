"""docs/promised.md: what the reports promise has a row each, whose outputs are declared and exist."""

import re
from fnmatch import fnmatch
from itertools import product

import pandas as pd
import pytest

from prophet_moe.present.reproduction import STAGES
from tests.conftest import ROOT
from tests.workflow.rules import SCENARIO_DIRS, STUDIES

PAGE = ROOT / "docs/promised.md"
OUTPUT = re.compile(r"\]\(\.\./((?:figures|tables|paper/generated)/[^)#]+)\)")
NONE = "none"
IDS = {
    "Figures": [*(f"FIG{n}" for n in (1, "1D", *range(2, 13))), "FIG-FMT"],
    "Tables and data": [
        *("DATA-CSV", "DATA-JSON", "TAB1", "TAB2", "TAB3", "TAB4", "TAB-CRIT", "TAB-MODELS", "TAB-PERF", "TAB-EXT"),
        *("TAB-UNIQ", "TAB-ALPHA", "TAB-BATCH", "TAB-SAT", "TAB-WL", "TAB-TARGET", "TAB-CITE", "TAB-OFF3", "TAB-OFF5"),
        *(f"M-T{n}" for n in range(1, 10)),
        *("TAB-LATEX", "C4-CSV1", "C4-CSV2", "C4-T1", "C4-T2", "C4-T3"),
    ],
    "Experiments and scenarios": [*(f"EXP{n}" for n in range(1, 20)), "TREE"],
}
"""What the reports describe, by section of the page."""


def rows(section: str) -> list[list[str]]:
    """The cells of every row of a section: id, promise, place, and how it differs."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]


ROWS = [row for section in IDS for row in rows(section)]
EVERY = pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])


def expanded(pattern: str) -> list[str]:
    """A path with its first braces written out."""
    before, braces, rest = pattern.partition("{")
    choices, _, after = rest.partition("}")
    return [before + choice + after for choice in choices.split(",")] if braces else [pattern]


def declared() -> set[str]:
    """Paths of all figures and tables that studies declare, in every scenario."""
    found = set()
    for study, folder in product(STUDIES.values(), SCENARIO_DIRS):
        found |= {table.path.format(scenario_dir=folder) for table in study.declared}
        found |= {figure.path.format(scenario_dir=folder) + end for figure in study.figures for end in (".pdf", ".png")}
    return found


def shared() -> list[str]:
    """Paths and patterns of the files that the shared stages make."""
    named = [name for *_, output, _ in STAGES for name in re.findall(r"`((?:tables|paper)/[^`]*[^`/])`", output)]
    return [path for name in named for path in expanded(name)]


@pytest.mark.parametrize("section", IDS)
def test_each_promise_has_one_row_in_order(section):
    assert [row[0] for row in rows(section)] == IDS[section]


@EVERY
def test_row_cites_the_report_and_names_outputs_or_says_why(row):
    _, promise, where, how = row
    assert re.search(r"\(reports\.md#00[0-4]-[\d-]+\)", promise)
    assert OUTPUT.search(where) or where == NONE
    assert how.endswith(".") and len(how.split()) >= 2


@EVERY
def test_outputs_of_a_row_are_declared_and_exist(row):
    named = OUTPUT.findall(" ".join(row[2:]))
    made, patterns = declared(), shared()
    assert not [path for path in named if path not in made and not any(fnmatch(path, each) for each in patterns)]
    assert not [path for path in named if not (ROOT / path).is_file()]


def test_rows_that_name_a_report_table_find_it_in_table_21():
    named = {name for row in ROWS for name in re.findall(r"rows `([^`]+)`", row[2])}
    found = set(pd.read_csv(ROOT / "tables/table21_report_tables.csv", usecols=["report_table"])["report_table"])
    assert len(named) > 15 and named <= found


def test_columns_that_rows_name_are_columns_of_their_tables():
    text = " ".join(how for *_, how in ROWS)
    for column, table in (
        ("step_ms", "table8_strategies"),
        ("predictor_gb", "data/prophet_kv_extension_extended"),
        ("predictor_mb", "table6_prediction"),
    ):
        assert f"`{column}`" in text
        assert column in pd.read_csv(ROOT / f"tables/{table}.csv", nrows=0).columns
    levels = pd.read_csv(ROOT / "tables/table22_sensitivity.csv", usecols=["input"])["input"]
    assert "`report_activations`" in text and "report_activations" in set(levels)


def test_share_of_the_predictor_is_as_low_as_the_row_says():
    (row,) = (row for row in ROWS if row[0] == "EXP17")
    said = float(re.search(r"below ([\d.]+) % of all memory", row[3])[1])
    record = pd.read_csv(ROOT / "tables/data/prophet_kv_extension_extended.csv")
    share = 100 * (record["predictor_gb"] / record["prophet_total_gb"]).max()
    assert said / 10 < share < said


def test_each_trace_has_as_many_runs_as_the_report():
    runs = pd.read_csv(ROOT / "tables/data/comparative_results.csv")
    six = ["on_demand", "pre_gated", "expertflow", "top_k", "multi_look_ahead", "intelligent"]
    described = runs[runs["as_described"] & runs["strategy"].isin(six) & (runs["routing"] == "recorded")]
    assert set(described.groupby("trace").size()) == {210}
    drawn = pd.read_csv(ROOT / "tables/data/expert_deduplication_results.csv")
    assert set(drawn.groupby("trace").size()) == {560}


def test_every_figure_is_there_as_pdf_and_png():
    drawn = {path for path in declared() if path.startswith("figures/")}
    assert len(drawn) > 40 and not [path for path in drawn if not (ROOT / path).is_file()]


def test_memory_saved_does_not_depend_on_the_context():
    table = pd.read_csv(ROOT / "tables/data/memory_by_context.csv")
    saved = (table["baseline_total_gb"] - table["prophet_total_gb"]).groupby(table["model"])
    assert (saved.max() - saved.min()).max() < 0.01


def test_files_of_shared_stages_are_listed_one_by_one():
    assert {"tables/data/model_catalog.csv", "tables/data/prophet_kv_extension_data.json"} <= set(shared())
    assert not any(fnmatch("tables/data/frontier.csv", pattern) for pattern in shared())
