"""ARTIFACT.md: its walks give what it says when they are followed, and every part of it names its source."""

import csv
import re
import subprocess
import sys

import pytest
import yaml

from prophet_moe.errors import UserError
from prophet_moe.present.artifact_page import (
    DRAWN_MARGIN,
    STUDY_COSTS,
    artifact_page,
    committed_tables,
    counted_walk,
    drawn_walk,
    timed_walk,
)
from prophet_moe.present.claims_table import paper_claims, reported_claims
from prophet_moe.study import load_studies
from tests.conftest import ROOT

PAGE = (ROOT / "ARTIFACT.md").read_text()
WALKS = PAGE.partition("\n## Judge one claim yourself\n")[2].partition("\n## ")[0]
BLOCK = re.compile(r"^   ```(bash|python)\n(.*?)^   ```$", re.MULTILINE | re.DOTALL)


def printed(walk: str) -> list[str]:
    """What the blocks of a walk print, in their order."""
    section = WALKS.partition(f"\n### {walk}\n")[2].partition("\n### ")[0]
    found = []
    for language, lines in BLOCK.findall(section):
        code = re.sub("^   ", "", lines, flags=re.MULTILINE)
        start = ["bash", "-ec"] if language == "bash" else [sys.executable, "-c"]
        done = subprocess.run([*start, code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        found.append(done.stdout.strip())
    return found


@pytest.fixture(scope="module")
def studies():
    """Every study by its id."""
    return load_studies(ROOT / "workflow/studies")


@pytest.fixture(scope="module")
def tables(studies):
    """The committed tables that claims rest on."""
    return committed_tables(studies)


def test_count_by_hand_is_that_of_the_table(tables):
    row, by_hand = printed("A count, from an architecture")
    walk = counted_walk(tables)
    assert row.count("\n") == 0 and f",{walk['corrected']:g}," in row
    assert float(by_hand) == pytest.approx(walk["corrected"], rel=1e-5)
    assert walk["ratio"] > 2


def test_draws_of_a_trace_are_near_the_table(tables):
    row, by_hand = printed("Deduplication, from a trace")
    walk = drawn_walk(tables)
    assert row.count("\n") == 0 and f",{walk['request_dedup']:g}," in row
    assert float(by_hand) == pytest.approx(walk["request_dedup"], abs=DRAWN_MARGIN)
    assert abs(walk["request_dedup"] - walk["claimed_saving"]) > 5 * DRAWN_MARGIN


def test_time_by_hand_is_near_that_of_the_table(tables):
    row, by_hand = printed("A time")
    walk = timed_walk(tables)
    assert row.count("\n") == 0 and f",{walk['slowdown']:g}," in row
    assert float(by_hand) == pytest.approx(walk["slowdown"], rel=0.05)
    assert walk["slowdown_low"] < float(by_hand) < walk["slowdown_high"]


def test_claims_name_columns_of_their_tables_once(tables, studies):
    claims = [*paper_claims(tables, 1.2), *reported_claims(tables, 1.2)]
    assert len({claim.id for claim in claims}) == len(claims)
    for claim in claims:
        assert claim.column in (ROOT / claim.table).read_text().partition("\n")[0].split(","), claim.id
        assert studies[claim.study].minutes is not None, claim.id


def test_claims_of_the_reports_have_a_row_in_the_ledger(tables):
    with (ROOT / "tables/claims.csv").open() as ledger:
        ids = {row["id"] for row in csv.DictReader(ledger)}
    named = {claim.id for claim in reported_claims(tables, 1.2)} | set(
        re.findall(r"^Claim `([^`]+)`", PAGE, re.MULTILINE)
    )
    assert len(named) > 6
    assert named <= ids


def test_a_study_without_recorded_costs_is_one_line(studies, monkeypatch, tmp_path):
    for name in ("docs", "tables", "config", "resources"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resources").unlink()
    STUDY_COSTS.parent.mkdir(parents=True)
    for path in (ROOT / STUDY_COSTS.parent).iterdir():
        lines = path.read_text().splitlines(keepends=True)
        (tmp_path / STUDY_COSTS.parent / path.name).write_text(
            "".join(line for line in lines if not line.startswith("observed,"))
        )
    with pytest.raises(UserError, match="observed: no row of this study"):
        artifact_page(studies)


def test_inputs_and_data_of_others_have_a_licence():
    overview = (ROOT / "resources/README.md").read_text()
    folders = {path.name for path in (ROOT / "resources").iterdir() if path.is_dir()}
    assert set(re.findall(r"^\| `(\w+)/` \|", overview, re.MULTILINE)) >= folders - {"external", "campaign"}
    listed = yaml.safe_load((ROOT / "config/datasets.yaml").read_text())["datasets"]
    for name, data in listed.items():
        assert re.search(rf"^\| {name} \| .*{data['commit'][:8]} \| {data['licence']} \|$", PAGE, re.MULTILINE), name
