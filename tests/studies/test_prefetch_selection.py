"""Which measurements of the decode loop can be replayed."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from prophet_moe.collect.plan import read_as
from prophet_moe.errors import UserError
from prophet_moe.files import write_json
from prophet_moe.inventory import PREDICTOR_FILES, TRACE_FILES
from prophet_moe.offload.decode_loop.plan import PLAN_FILE, Plan
from studies.prefetch_validation.selection import missing, notes, recorded_plans, replayed_files
from tests.conftest import ROOT

WHOLE = read_as(Plan, ROOT / PLAN_FILE)
FOLDER = Path("resources/prefetch")


@pytest.fixture
def plan(tmp_path) -> Plan:
    """A plan of two workloads, one of them without predictor, whose files are there."""
    first, second, *_ = WHOLE.workloads.values()
    trace, predictor = str(tmp_path / "trace"), str(tmp_path / "predictor")
    workloads = {
        "with": replace(first, trace=trace, predictor=predictor),
        "without": replace(second, trace=trace, predictor=""),
    }
    for folder, names in ((trace, TRACE_FILES), (predictor, PREDICTOR_FILES)):
        Path(folder).mkdir()
        for name in names:
            (Path(folder) / name).touch()
    return replace(WHOLE, workloads=workloads)


def test_replayed_files_are_each_listed_once(plan, tmp_path):
    predictor = [tmp_path / "predictor" / name for name in PREDICTOR_FILES]
    assert replayed_files(plan) == sorted([*(tmp_path / "trace" / name for name in TRACE_FILES), *predictor])


def test_missing_files_are_those_that_are_not_there(plan, tmp_path):
    assert missing(plan) == []
    (tmp_path / "trace/metadata.json").unlink()
    assert missing(plan) == [tmp_path / "trace/metadata.json"]


def test_recorded_plans_are_those_of_complete_measurements(tmp_path):
    for name in ("A", "B"):
        write_json(tmp_path / name / "metadata.json", {"plan": asdict(WHOLE)})
    (tmp_path / "A/SHA256SUMS").touch()
    assert recorded_plans(tmp_path, ["A", "B", "C"]) == {"A": WHOLE}


def test_recorded_plan_that_cannot_be_read_names_its_file(tmp_path):
    write_json(tmp_path / "A/metadata.json", {"plan": {}})
    (tmp_path / "A/SHA256SUMS").touch()
    with pytest.raises(UserError, match=r"A/metadata.json"):
        recorded_plans(tmp_path, ["A"])


def test_notes_tell_how_to_measure_a_gpu(plan):
    (line,) = notes(plan, {"A": plan}, ["A", "B", "C"], FOLDER)
    assert "no simulated time was compared with measurements on B, C." in line
    assert line.endswith("python -m prophet_moe.collect prefetch --out resources/prefetch/NAME")
    assert notes(plan, {"A": plan}, ["A"], FOLDER) == []


def test_notes_tell_which_file_leaves_something_out(plan, tmp_path):
    absent = tmp_path / "predictor/metadata.json"
    absent.unlink()
    table = "tables/data/prefetch_validation.csv"
    _, measured, both = notes(plan, {"A": plan}, ["A"], FOLDER)
    assert measured == f"note: {absent} is missing, so {table} leaves out the measurement on A"
    assert both == f"note: {absent} is missing, so {table} and tables/table12_simulated_and_measured.csv are not built"
