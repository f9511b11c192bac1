"""The command `times`: estimates held against published times, and fits where the tables are."""

import json

import pytest

from prophet_moe.cli.main import main
from prophet_moe.cli.times import OBSERVED
from prophet_moe.observed.times import LAWS
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
    assert [law["rows"] for law in told["laws"]] == [1] * len(LAWS)
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


def test_step_tells_bound_estimate_and_interval(run):
    words = ("--model", "gpt-oss-120b", "--gpu", "H200-141GB", "--gpus", "2", "--batch", "1", "16", "--json")
    one, sixteen = json.loads(run("times", "step", *words))
    for step in (one, sixteen):
        assert step["bound"] <= step["low"] <= step["estimate"] <= step["high"]
        assert sum(step["parts"].values()) == pytest.approx(step["estimate"])
    assert one["unique_experts"] == pytest.approx(4) and one["estimate"] < sixteen["estimate"]
    assert one["basis"] == "operators" and one["parts"]["all_reduce"] > 0


def test_step_prints_a_table_and_what_it_rests_on(run):
    printed = run("times", "step", "--model", "Mixtral-8x7B", "--gpu", "RTX4090-24GB", "--format", "int4_group128")
    assert "estimates rest on share of bandwidth" in printed and "int4_group128" in printed


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--gpu", "B900"), "unknown GPU 'B900'"),
        (("--gpu", "H100-80GB", "--batch", "0"), "--batch: got 0, expected a whole number"),
        (("--gpu", "H100-80GB", "--gpus", "16", "--whole-experts"), "expected at most 8"),
        (("--gpu", "H100-80GB", "--unique-experts", "9"), "expected above 0 and at most 2, the experts"),
        (("--gpu", "H100-80GB", "--kv-format", "fp8_sparse_mla"), "is a layout of latent attention"),
    ],
)
def test_step_refuses_impossible_words_in_one_line(run, words, problem):
    with pytest.raises(SystemExit, match=problem) as raised:
        run("times", "step", "--model", "Mixtral-8x7B", *words)
    assert str(raised.value).count("\n") == 0
