"""The ledger as a whole: every claim has a verdict, and every verdict depends on tables that could say otherwise."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prophet_moe.capacity.configured import Configured
from prophet_moe.claims.bindings import finished, nodes, tables_read
from prophet_moe.claims.claimed import agrees
from prophet_moe.claims.evaluators import REPORT_TABLES, Absent, Tables, Undefined, evaluated
from prophet_moe.claims.ledger import CLAIMS_FILE, Claim, read_ledger
from prophet_moe.claims.verdict import VERDICTS, as_rows, judge_all
from prophet_moe.printed import PRINTED_FILE, read_printed
from prophet_moe.settings.scenario import CALIBRATED, REPORTED
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table
from studies.claims.figure import by_document, draw, findings, headline
from studies.claims.study import CLAIMS, ClaimsSettings
from studies.report_tables.compute import report_tables, world_of
from studies.report_tables.study import ReportTablesSettings
from tests.conftest import ROOT
from tests.drawings import assert_no_texts_touch, assert_nothing_is_clipped
from tests.unit.docs.test_citations import DOCUMENT, PAGE

PRINTED = read_printed(ROOT / PRINTED_FILE)
TOLERANCE = ClaimsSettings().estimated_tolerance
LISTED = 922
"""Claims of the reports that were listed before any of them was judged."""
MOST_OPEN = 0.03
"""Largest share of claims that may stay without an answer."""
COUNTING = ("count", "distinct", "columns", "share", "listed")
"""Evaluators whose value depends on which rows or columns there are."""


@pytest.fixture(scope="module")
def claims() -> list[Claim]:
    return read_ledger(PRINTED, ROOT / CLAIMS_FILE)


FINISHED = finished(
    {
        path.relative_to(ROOT / "tables").as_posix().replace("data/", "").removesuffix(".csv"): path
        for path in (ROOT / "tables").rglob("*.csv")
    }
)
"""Every committed table, read once."""


@pytest.fixture(scope="module")
def tables() -> Tables:
    return FINISHED


@pytest.fixture(scope="module")
def ledger(claims, tables) -> pd.DataFrame:
    return as_rows(judge_all(claims, tables, TOLERANCE))


def test_every_claim_of_the_reports_has_a_verdict(ledger):
    assert len(ledger) == LISTED and ledger["id"].is_unique
    assert set(ledger["verdict"]) <= set(VERDICTS)
    assert (ledger["reason"] != "").all() and (ledger["says"] != "").all()
    assert set(ledger["document"]) == {"000", "001", "002", "003", "004"}


def test_few_claims_stay_without_an_answer(ledger):
    open_ones = ledger[ledger["verdict"] == "not-evaluable"]
    assert len(open_ones) <= MOST_OPEN * len(ledger)
    assert open_ones["reason"].str.startswith("It would need ").all(), "these lack a value, not evidence"


def test_committed_ledger_is_what_the_tables_give(ledger):
    assert read_table(ROOT / CLAIMS.path, CLAIMS).to_dict("records") == ledger.to_dict("records")
    assert json.loads((ROOT / CLAIMS.path).with_suffix(".json").read_text()) == ledger.to_dict("records")


def test_claims_speak_of_lines_and_models_that_exist(ledger, models):
    lengths = {document: int(lines) for document, lines, _ in DOCUMENT.findall(PAGE.read_text())}
    for lines in ledger["lines"]:
        for place in lines.split(", "):
            document, _, line = place.partition(":")
            assert 1 <= int(line) <= lengths[document], place
    named = {name for cell in ledger["model"] for name in cell.split(", ") if name}
    assert named <= set(models)


def changed(frame: pd.DataFrame, columns: set[str], kept: set[str], factor: Callable[[int], float]) -> pd.DataFrame:
    """The table with other values in `columns`: numbers times a factor of their cell, flags negated, words reversed.

    Columns that rows are selected by are kept, since another selection would only find no row.
    """
    other = {}
    for place, name in enumerate(sorted(columns - kept)):
        factors = np.array([factor(row + 3 * place) for row in range(len(frame))])
        values = frame[name]
        if values.dtype == bool:
            other[name] = ~values
        elif pd.api.types.is_numeric_dtype(values):
            other[name] = values * factors + 0.37 * factors
        else:
            other[name] = [each[::-1] if isinstance(each, str) else not each for each in values]
    return frame.assign(**other)


FACTORS = (
    lambda row: 1.9 + 0.31 * (row % 7),
    lambda row: 0.41 - 0.05 * (row % 5),
    lambda row: -2.3 + 0.17 * (row % 3),
    lambda row: 17.0 + 5.3 * (row % 4),
    lambda row: 1.0 + row,
)


def mutations(claim: Claim) -> Iterator[Tables]:
    """Tables that differ in what this claim reads: in values, and where it counts, in rows and columns."""
    taken = [node for binding in claim.bindings.values() for node in nodes(binding) if "take" in node]
    read: dict[str, set[str]] = {}
    kept: dict[str, set[str]] = {}
    for node in taken:
        table = REPORT_TABLES if node["take"] == "report_cell" else node.get("table")
        if table is None:
            continue
        named = [node.get("column"), node.get("zero_unless"), node.get("only_if"), node.get("along")]
        names = node.get("name", [])
        read.setdefault(table, set()).update(filter(None, [*named, *([names] if isinstance(names, str) else names)]))
        selected = {*node.get("where", {}), *(node.get("among") or {})}
        kept.setdefault(table, set()).update(
            selected or {"report_table", "row"} if table == REPORT_TABLES else selected
        )
    for factor in FACTORS:
        yield Tables(lambda name, f=factor: changed(FINISHED[name], read.get(name, set()), kept.get(name, set()), f))
    yield Tables(lambda name: upside_down(FINISHED[name], read.get(name, set()) - kept.get(name, set())))
    if any(node["take"] in COUNTING for node in taken):
        yield Tables(lambda name: FINISHED[name].iloc[::3, :-1])
        yield Tables(lambda name: pd.concat([FINISHED[name], FINISHED[name].map(_another)]))


def upside_down(frame: pd.DataFrame, columns: set[str]) -> pd.DataFrame:
    """The table with the values of some columns from the last row to the first."""
    return frame.assign(**{name: frame[name].to_numpy()[::-1] for name in columns})


def _another(value: Any) -> Any:
    return f"{value}'" if isinstance(value, str) else value * 3 + 1 if not isinstance(value, bool) else not value


def holds(claim: Claim, binding: Mapping[str, Any], tables: Tables, stated: Mapping[str, float]) -> bool:
    """Whether a binding gives what is claimed."""
    try:
        found = evaluated(binding, tables, stated.__getitem__)
    except (Absent, Undefined, KeyError, ValueError, ZeroDivisionError, OverflowError):
        return False
    return not isinstance(found, complex) and agrees(claim.stated, found, claim.tolerance or TOLERANCE, claim.within)


def reads_a_table(binding: Mapping[str, Any]) -> bool:
    """Whether a binding reads any table; others are arithmetic of claims."""
    return any("table" in node or node.get("take") == "report_cell" for node in nodes(binding))


def test_no_claim_agrees_whatever_the_tables_hold(claims, tables):
    """Every agreement ends when the values that it rests on change."""
    stated = {claim.id: claim.stated.value for claim in claims}
    stubborn = [
        f"{claim.id}: {name}"
        for claim in claims
        for name, binding in claim.bindings.items()
        if reads_a_table(binding)
        and holds(claim, binding, tables, stated)
        and all(holds(claim, binding, world, stated) for world in mutations(claim))
    ]
    assert not stubborn


def test_claims_that_are_judged_have_a_value_of_a_table(claims):
    """Arithmetic of claims alone decides only claims about arithmetic of the reports."""
    loose = [
        claim.id
        for claim in claims
        if not (claim.definition or claim.needs)
        and not any(reads_a_table(binding) for binding in claim.bindings.values())
        and not any(name in claim.bindings for name in ("against", "reported"))
    ]
    assert not loose


def test_another_exponent_changes_the_verdicts_that_rest_on_it(claims, models, gpus, experiment, popularity_cvs):
    """With another law in the scenario of the reports, its agreements on savings at several sequences end."""
    other = REPORTED.model_copy(update={"routing": REPORTED.routing.model_copy(update={"exponent": 0.8})})
    worlds = [
        [
            world_of(Configured(models, gpus, scenario, popularity_cvs), experiment.batch_sizes)
            for scenario in (own, CALIBRATED)
        ]
        for own in (REPORTED, other)
    ]
    tables = [report_tables(PRINTED, *pair, ReportTablesSettings()) for pair in worlds]
    chosen = [claim for claim in claims if claim.tables == [REPORT_TABLES] and claim.id.startswith("sav.")]
    before, after = (
        {found.claim.id: found for found in judge_all(chosen, Tables({REPORT_TABLES: table}.__getitem__), TOLERANCE)}
        for table in tables
    )
    value = {name: (before[name].found["reported"].value, after[name].found["reported"].value) for name in before}
    moved = {name for name, (one, two) in value.items() if one is not None and abs(one - two) > 0.1}
    several = {claim.id for claim in chosen if str(claim.batch) in ("4", "8", "16", "32")}
    assert several and several - moved <= {name for name in several if value[name][0] == 0}
    flipped = [name for name in moved if before[name].verdict != after[name].verdict]
    assert flipped and all(after[name].verdict == "self-contradictory" for name in flipped)


def test_the_ledger_reads_finished_tables_only(claims):
    read = {name for claim in claims for name in claim.tables}
    assert read <= set(tables_read(ROOT / CLAIMS_FILE))
    assert "claims" not in {name.rpartition("/")[2] for name in read}


def test_counts_of_the_figure_are_those_of_the_ledger(ledger):
    counts = by_document(ledger)
    assert counts.to_numpy().sum() == len(ledger)
    assert list(counts.columns) == list(VERDICTS)
    assert str(counts["reproduced"].sum()) in headline(ledger)
    assert all(f"Report {document}" in findings(ledger) for document in counts.index)


def test_texts_of_the_claims_figure_can_be_read(ledger):
    figure = draw(ledger, Style())
    assert_nothing_is_clipped({"claims": figure})
    assert_no_texts_touch({"claims": figure})
