"""The command `kick-the-tires`: what each step finds, and that one that fails is told and ends it with exit code 1.

A whole run takes more than a minute; .ci/run has one.
"""

import shutil
import sys

import pytest

from prophet_moe.cli import kick_the_tires as tires
from tests.conftest import ROOT

ALLOWED = {"t.csv": {"a": 0.01, "b": 0.0}}
"""Tolerances of the columns of a table."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder without git, the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_other_version_than_locked_is_named():
    forked = "pandas==2.3.0 ; python_version < '3.12'\npandas==2.3.1 ; python_version >= '3.12'\n"
    lock = f"numpy==2.4.6 \\\n    --hash=sha256:0\n{forked}"
    installed = {"python": "3.11", "numpy": "2.4.5", "pandas": "2.3.1", "unlocked": "1"}
    assert tires.other_versions(installed, lock) == ["numpy 2.4.5, locked 2.4.6"]


def test_environment_of_the_tests_is_the_locked_one():
    passed, found = tires.environment()
    assert passed, found
    assert found.startswith(f"Python {sys.version_info.major}.{sys.version_info.minor}, ")


@pytest.mark.parametrize(
    ("rows", "passed", "found"),
    [
        ("a,b\n1,2\n", True, "identical"),
        ("a,b\n1.001,2\n", True, "ok within tolerance, 0.001"),
        ("a,b\n1.1,2\n", False, "FAIL: column a differs by 0.091, tolerance 0.01"),
        ("a,b\n1,3\n", False, "FAIL: column b differs by 0.33, tolerance 0"),
    ],
)
def test_output_is_held_against_the_one_that_is_there(folder, rows, passed, found):
    (folder / "t.csv").write_text("a,b\n1,2\n")
    (folder / "run").mkdir()
    (folder / "run/t.csv").write_text(rows)
    assert tires.as_committed(folder / "run/t.csv", folder.joinpath("t.csv"), ALLOWED) == (passed, found)


def test_new_and_changed_files_are_found():
    assert tires.unchanged(" M a\n", " M a\n") == (True, "git status is as before")
    assert tires.unchanged(" M a\n", " M a\n M b\n?? c\n") == (False, " M b\n?? c")
    assert tires.unchanged(None, None) == (True, "not checked: this is no git repository")


def test_outputs_and_tests_of_the_steps_exist():
    for path in (*tires.DRAWN, *tires.REBUILT, *tires.TESTS, tires.SMALL[1]):
        assert (ROOT / path).is_file(), path


def test_failed_steps_are_told_and_end_with_exit_code_1(folder, command):
    """In a folder that has neither a workflow nor tests every command fails, and the later steps run all the same."""
    for name in ("config/experiment.yaml", "envs/analysis.txt"):
        (folder / name).parent.mkdir()
        shutil.copy(ROOT / name, folder / name)
    code, out, problem = command("kick-the-tires", folder=folder)
    assert code == 1
    assert "2 PASS, 3 FAIL in " in out
    assert problem.startswith(
        "error: kick-the-tires: failed: A small grid builds, with its figures; Outputs built again"
    )
    assert "Decisive tests pass" in problem and problem.count("\n") == 0
    written = {path.parts[0] for path in (found.relative_to(folder) for found in folder.rglob("*"))}
    assert written <= {"config", "envs", "logs", "results", ".snakemake"}
    assert sorted(path.name for path in (folder / "logs/kick_the_tires").iterdir()) == [
        "kick_the_tires.log",
        "kick_the_tires_small.log",
        "tests.log",
    ]
