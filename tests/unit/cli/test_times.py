"""The command `times`: estimates held against published times, and fits where the tables are."""

import json

import pytest

from prophet_moe.cli import main
from prophet_moe.cli.times import OBSERVED
from prophet_moe.observed.times import OPERATORS as FITS
from prophet_moe.routing.datasets import data_folders, load_datasets, located
from tests.conftest import ROOT


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command in the project's folder and return what it prints."""

    def command(*words: str) -> str:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr("sys.argv", ["prophet-moe", *words])
        main()
        return capsys.readouterr().out

    return command


def test_check_prints_laws_groups_and_reasons(run):
    printed = run("times", "check")
    assert "operators and a constant per layer" in printed
    assert "no prediction for rows of kind 'GPU link'" in printed


def test_check_as_json_meets_the_goals(run):
    told = json.loads(run("times", "check", "--json"))
    (estimate,) = [law for law in told["laws"] if law["law"] == "estimate"]
    assert estimate["within_20_pct"] >= 0.8 and estimate["within_30_pct"] >= 0.9
    assert told["groups"] and told["left_out"]


def test_check_of_a_missing_file_ends_in_one_line(run):
    with pytest.raises(SystemExit, match=r"^error: missing.csv: no such file"):
        run("times", "check", "missing.csv")


def test_check_of_a_file_without_columns_names_one(run, tmp_path):
    (tmp_path / "mine.csv").write_text("id,kind\n1,e2e decode\n")
    with pytest.raises(SystemExit, match="has no column 'quantity'"):
        run("times", "check", str(tmp_path / "mine.csv"))


def test_check_of_a_file_without_steps_says_so(run, tmp_path):
    header, first, *_ = (ROOT / OBSERVED).read_text().splitlines()
    (tmp_path / "mine.csv").write_text(f"{header}\n{first.replace('e2e decode', 'GPU link')}\n")
    with pytest.raises(SystemExit, match="has no clean row that can be predicted"):
        run("times", "check", str(tmp_path / "mine.csv"))


def test_check_of_one_row_uses_the_observations(run, tmp_path):
    """A file of one's own is predicted from the committed rows, so that one row is enough."""
    lines = (ROOT / OBSERVED).read_text().splitlines()[:2]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    told = json.loads(run("times", "check", str(tmp_path / "mine.csv"), "--json"))
    assert [law["rows"] for law in told["laws"]] == [1] * 7
    assert told["groups"][0]["model"] == "DeepSeek-V3-671B"


def test_fit_without_tables_says_how_to_get_them(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PROPHET_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="prophet-moe data fetch aiconfigurator-operators"):
        run("times", "fit", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_fit_with_tables_writes_what_is_committed(run, tmp_path):
    listed = load_datasets(ROOT / "config/datasets.yaml").datasets["aiconfigurator-operators"]
    if located("aiconfigurator-operators", listed, data_folders()) is None:
        pytest.skip("the tables are not available locally: set PROPHET_DATA")
    run("times", "fit", "--out", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in (ROOT / "resources/operators").glob("*.json")
    )
    again, committed = (json.loads((folder / "constants.json").read_text()) for folder in (tmp_path, ROOT / FITS))
    assert again["with_operators"]["layer_us"] == pytest.approx(committed["with_operators"]["layer_us"], rel=1e-3)
