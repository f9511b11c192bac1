"""The commands `observe check` and `observe add`: what they print, write and refuse."""

import json

import pytest

from tests.conftest import ROOT
from tests.unit.observed.builders import ROW, SGLANG, VLLM_V1, csv_of

MEMORY = ROOT / "resources/observations/memory.csv"


@pytest.fixture
def ask(command):
    """Run prophet-moe; returns what it printed, and what it told on standard error."""
    return lambda *arguments, **given: command(*arguments, **given)[1:]


def test_check_prints_errors_misses_and_reasons(ask):
    printed, _ = ask("observe", "check", MEMORY, "--kind", "memory")
    for expected in ("errors by quantity and gpu", "kv_bytes_per_token", "rows beyond their goal", "left out", "m004"):
        assert expected in printed


def test_check_as_json_has_every_row(ask):
    printed, _ = ask("observe", "check", MEMORY, "--json")
    content = json.loads(printed)
    assert {row["id"] for row in content["beyond_goal"]} == {"m004", "m064"}
    weights = next(group for group in content["errors"] if group["quantity"] == "weights")
    assert weights["n"] == 15 and weights["median_pct"] <= 0.02
    assert len(content["rows"]) > 150


def test_check_of_facts_without_our_columns_works(ask, tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text(csv_of(ROW))
    printed, told = ask("observe", "check", path, "--json")
    assert json.loads(printed)["errors"][0]["within_goal"] == 1, told


def test_check_takes_a_model_of_the_user(ask, tmp_path):
    model = tmp_path / "My-MoE.yaml"
    model.write_text(
        (ROOT / "config/models/current/Qwen3-30B-A3B.yaml")
        .read_text()
        .replace("name: Qwen3-30B-A3B", "name: My-MoE", 1)
    )
    path = tmp_path / "mine.csv"
    path.write_text(csv_of(ROW | {"model": "My-MoE"}))
    assert "not in the catalogue" in ask("observe", "check", path)[0]
    printed, told = ask("observe", "check", path, "--model-file", model, "--json")
    assert json.loads(printed)["errors"][0]["n"] == 1, told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "malformed CSV"),
        ("id,engine,model\n", "column 'source' is missing"),
        (csv_of(ROW | {"source": ""}), "source: is empty"),
        (csv_of({**ROW, "weights_gib_per_gpu": ""}), "has no measured quantity"),
    ],
)
def test_check_of_a_bad_file_ends_in_one_line(text, told, ask, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    _, error = ask("observe", "check", path)
    assert told in error and len(error.splitlines()) == 1


def test_add_of_a_log_shows_what_was_read_and_can_be_checked(ask, tmp_path):
    log, path = tmp_path / "server.log", tmp_path / "mine.csv"
    log.write_text(VLLM_V1)
    _, told = ask("observe", "add", log, "--to", path, "--gpu", "48 GB card", "--source", "mine")
    assert "read: weights_gib_per_gpu: 27.72" in told
    _, told = ask("observe", "add", log, "--to", path, "--source", "mine", "--set", "weight_dtype=fp8 (block 128)")
    assert "which has 2 rows" in told
    rows = json.loads(ask("observe", "check", path, "--json")[0])["rows"]
    weights = [row for row in rows if row["quantity"] == "weights"]
    assert [row["id"] for row in weights] == ["mine-1", "mine-2"]
    assert abs(weights[1]["error_pct"]) < 0.02


def test_add_reads_a_log_from_standard_input(ask, tmp_path):
    path = tmp_path / "mine.csv"
    options = ("--to", path, "--source", "mine", "--engine-version", "0.5.2", "--gpu", "H100 80GB")
    _, told = ask("observe", "add", "-", *options, given=SGLANG)
    assert "Added to" in told
    rows = json.loads(ask("observe", "check", path, "--json")[0])["rows"]
    assert all(row["quantity"] != "kv_pool" or abs(row["predicted"] - 16.46) < 0.3 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "given", "told"),
    [
        (("-",), SGLANG, "does not say its version"),
        (("-",), VLLM_V1.replace("0.10.2", "7.0.0"), "an unknown version"),
        (("-",), "nothing of the kind", "no engine that is known"),
        (("missing.log",), "", "no such file"),
        ((), "", "engine: is missing"),
        (("--set", "engine=vllm", "model=OLMoE-1B-7B", "tp=0"), "", "tp: got 0"),
        (("--set", "engine=vllm", "model=OLMoE-1B-7B", "colour=red"), "", "expected COLUMN=VALUE"),
        (("--set", "engine"), "", "expected COLUMN=VALUE"),
    ],
)
def test_add_that_is_refused_writes_nothing(arguments, given, told, ask, tmp_path):
    path = tmp_path / "mine.csv"
    _, error = ask("observe", "add", *arguments, "--to", path, "--source", "mine", given=given)
    assert told in error.splitlines()[-1]
    assert not path.exists()


def test_add_keeps_a_broken_file_as_it_is(ask, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("id,colour\n1,red\n")
    _, error = ask("observe", "add", "--to", path, "--source", "mine", "--set", "engine=vllm", "model=OLMoE-1B-7B")
    assert "column 'colour' is unknown" in error
    assert path.read_text() == "id,colour\n1,red\n"
