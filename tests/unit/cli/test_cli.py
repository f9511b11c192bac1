"""The command line: what it prints, and its errors."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prophet_moe.present.latex import TABLES, TexColumn, columns_of, escape, macros, table
from prophet_moe.present.quoted_numbers import headlines, scenario_numbers
from tests.conftest import ROOT

COMMAND = Path(sys.executable).with_name("prophet-moe")


def run(*arguments: str) -> subprocess.CompletedProcess:
    """Run prophet-moe in the project."""
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


PRINTING = {
    "help of a format": (COMMAND, "trace", "import", "counts", "--help"),
    "version": (COMMAND, "--version"),
    "table": (COMMAND, "models"),
    "JSON": (COMMAND, "capacity", "--model", "OLMoE-1B-7B", "--gpu", "A100-80GB", "--json"),
    "help of the collector": (sys.executable, "-m", "prophet_moe.collect", "--help"),
}
"""What prints something."""


def lost(arguments: tuple, stdout: Any) -> subprocess.CompletedProcess:
    """Run a command whose output cannot be written. Python buffers it, as it does unless told otherwise."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(arguments, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


@pytest.mark.parametrize("arguments", PRINTING.values(), ids=PRINTING)
def test_output_that_nobody_reads_ends_without_a_word(arguments):
    read, write = os.pipe()
    os.close(read)
    done = lost(arguments, write)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("arguments", PRINTING.values(), ids=PRINTING)
def test_output_onto_a_full_disk_ends_in_one_line(arguments):
    with open("/dev/full", "w") as full:
        done = lost(arguments, full)
    assert done.returncode == 1
    assert done.stderr.startswith("error: output: could not be written: the disk is full")
    assert done.stderr.count("\n") == 1


def test_models_lists_the_catalogue(models):
    shown = run("models").stdout
    assert all(name in shown for name in models)


def test_capacity_agrees_with_the_record(records):
    row = records["calibrated"].set_index(["model", "gpu", "batch_size"]).loc["Switch-Base-128", "A100-80GB", 16]
    shown = run("capacity", "--model", "Switch-Base-128", "--gpu", "A100-80GB", "--batch", "16").stdout
    assert f"{row['baseline_max_context']:,}" in shown
    assert f"{row['prophet_max_context']:,}" in shown


@pytest.mark.parametrize(
    ("model", "gpu", "batch", "scenario", "problem"),
    [
        (
            "Jamba-1.5-Large",
            "A100-80GB",
            "1",
            "calibrated",
            "non-expert weights take 101.3 GB, expected at most the 85.1 GB",
        ),
        (
            "Jamba-1.5-Lage",
            "A100-80GB",
            "1",
            "calibrated",
            "unknown model 'Jamba-1.5-Lage'; did you mean 'Jamba-1.5-Large'",
        ),
        ("DBRX-132B", "A100", "1", "calibrated", "unknown GPU 'A100'"),
        ("DBRX-132B", "A100-80GB", "0", "calibrated", "--batch: got 0, expected a whole number of 1 to 1,000,000"),
        ("DBRX-132B", "A100-80GB", "1", "measured", "--scenario: unknown scenario 'measured'"),
    ],
)
def test_mistakes_are_one_line(model, gpu, batch, scenario, problem):
    done = run("capacity", "--model", model, "--gpu", gpu, "--batch", batch, "--scenario", scenario)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


def test_latex_escapes_and_marks_missing_numbers(records):
    frame = records["calibrated"][["model", "kv_extension_factor"]].iloc[[0]]
    columns = [TexColumn("model", "Model"), TexColumn("kv_extension_factor", "Extension", 2, 2)]
    text = table(frame, columns, "A 50 % gain_", "tab:x")
    assert r"A 50 \% gain\_" in text
    assert "{--}" in text
    assert escape("a_b & c%") == r"a\_b \& c\%"


def test_latex_columns_exist(records):
    from studies.kv_extension import compute as tables

    record = records["calibrated"]
    gained = pd.read_csv(ROOT / "tables/table11_context_gained.csv")
    made = {
        "table1": tables.kv_extension(record, "A100-80GB", 16),
        "table2": tables.average_extension(record, False, gained),
        "table3": tables.by_expert_count(record),
        "table4": tables.max_context(record, "A100-80GB", 16),
    }
    for name, frame in made.items():
        body = table(frame, columns_of(name, frame, 1.2), "caption", "label")
        assert body.count(" \\\\\n") == len(frame) + 1
        assert ("at 1.2$" in body) == (name == "table2")
    assert columns_of("table2", made["table2"], 1.7) == TABLES["table2"], "no price was simulated at that limit"


def test_macros_have_names_that_latex_allows(records):
    numbers = scenario_numbers("int8_weights", records["calibrated"])
    names = [line.split("{")[1].strip("\\}") for line in macros(numbers).splitlines()]
    assert all(name.isalpha() for name in names), names


def test_headlines_survive_a_scenario_in_which_nothing_fits(records):
    never = records["calibrated"].query("model == 'Grok-1-314B'")
    assert "0.00x" in headlines({"never": never})


@pytest.fixture
def arrays(tmp_path):
    """Routing of a model of the catalogue, as another program's arrays."""
    random = np.random.default_rng(0)
    ids = random.random((30, 16, 64)).argsort(-1)[..., :8].astype(np.uint8)
    path = tmp_path / "routing.npz"
    np.savez(path, expert_ids=ids, seq_len=np.array([10, 20], np.int32), prompt_len=np.array([5, 7], np.int32))
    return path


def test_a_record_is_imported_and_described(arrays, tmp_path):
    out = str(tmp_path / "trace")
    done = run("trace", "import", "arrays", str(arrays), "--model", "OLMoE-1B-7B", "--out", out, "--licence", "MIT")
    assert done.stdout.split(": ", 1)[1] == "30 tokens x 16 layers x 8\n"
    shown = run("trace", "describe", out).stdout
    assert "OLMoE-1B-7B" in shown and "16 (0 to 15)" in shown and "MIT" in shown
    for statistic in ("load_skew", "consecutive_overlap", "next_layer_recall_k_naive_bayes", "lru_hit_rate"):
        assert statistic in shown


def test_counts_are_imported_and_described(tmp_path):
    out = str(tmp_path / "counts")
    np.save(tmp_path / "a.npy", np.tile(np.where(np.arange(64) % 2, 150, 50), (16, 1)))
    done = run("trace", "import", "counts", str(tmp_path / "a.npy"), "--model", "OLMoE-1B-7B", "--out", out)
    assert done.stdout.split(": ", 1)[1] == "counts only (the source has no token order), windows: 1\n"
    shown = run("trace", "describe", out).stdout
    assert "popularity CV" in shown and "law at 0.500 (popularity CV)" in shown
    assert "no interval: it takes counts of 20 windows or more, here are 1." in shown


def test_counts_that_are_doubted_are_told_twice(tmp_path):
    out, counts = str(tmp_path / "counts"), np.full((16, 64), 800)
    counts[3, 5] += 1
    np.save(tmp_path / "a.npy", counts)
    done = run("trace", "import", "counts", str(tmp_path / "a.npy"), "--model", "OLMoE-1B-7B", "--out", out)
    assert "note: window 0, layer 3 has 51201 choices, no multiple of top-k 8" in done.stdout
    assert "layer 3 has 51201 choices" in run("trace", "describe", out).stdout


def test_impossible_counts_leave_nothing_behind(tmp_path):
    counts = np.zeros((16, 64), int)
    counts[:, 0] = 800
    np.save(tmp_path / "a.npy", counts)
    out = tmp_path / "counts"
    done = run("trace", "import", "counts", str(tmp_path / "a.npy"), "--model", "OLMoE-1B-7B", "--out", str(out))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not out.exists()
    assert "expert 0 has 800 of 800 choices, expected at most 1/8 of them" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["none.npz", "--model", "OLMoE-1B-7B"], "none.npz: no such file or folder"),
        (["", "--model", "Mixtral-8x7B"], "shape (30, 16, 8), expected integers of shape (any, 32, 2)"),
        (["", "--model", "OLMoE"], "--model: unknown model 'OLMoE'; did you mean 'OLMoE-1B-7B'"),
    ],
)
def test_mistakes_about_traces_are_one_line(arrays, tmp_path, arguments, problem):
    source, *options = arguments
    done = run("trace", "import", "arrays", source or str(arrays), *options, "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert problem in done.stderr
    assert not (tmp_path / "out").exists()
    done = run("trace", "describe", str(tmp_path))
    assert done.stderr == f"error: {tmp_path}: holds no metadata.json: no trace. Make one: prophet-moe trace import\n"


def test_lines_of_an_unknown_model_are_imported(tmp_path):
    source, out = str(ROOT / "tests/unit/routing/lines" / "big_moe_on_edge.csv"), tmp_path / "trace"
    done = run("trace", "import", "lines", source, "--model", "New", "--out", str(out))
    first, *told = done.stdout.splitlines()
    assert first == f"{out}: 3 tokens x 2 layers x 2"
    assert told == [
        "note: big_moe_on_edge.csv: model 'New' is not in config/; taken from the file: E = 8, 2 MoE layers (0 to 1).",
        "note: big_moe_on_edge.csv: the run's own cache: 33.3% of 12 hit, prefill 0.0%, decode 50.0%.",
    ]
    assert "New" in run("trace", "describe", str(out)).stdout
    done = run(
        "trace", "import", "arrays", source, "--model", "OLMoE-1B-7B", "--top-k", "2", "--out", str(tmp_path / "b")
    )
    assert done.returncode == 1 and done.stderr.endswith("format arrays has no option top_k. Leave it out.\n")


def test_fit_curve_of_an_unknown_name_is_one_line(tmp_path):
    done = run("trace", "fit-curve", "olmoe", "--out", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: curve: got 'olmoe', expected one of deepseek-v4-flash, ")
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_data_lists_what_is_known_and_refuses_an_unknown_id():
    assert "azure-llm-2023" in run("data", "list").stdout
    assert "unknown dataset 'azure', expected one of gpt-oss-20b-decode" in run("data", "fetch", "azure").stderr
