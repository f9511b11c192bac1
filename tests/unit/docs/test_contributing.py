"""CONTRIBUTING.md as written: its files are put where it says, and its commands are run in a copy of the project."""

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

from prophet_moe.routing.store import read_trace
from tests.conftest import ROOT

PAGE = ROOT / "CONTRIBUTING.md"
COPIED = ("config", "docs", "workflow", "tables", "resources/traces", "resources/predictors", "resources/routing")
COPIED += ("resources/observations", "resources/operators")
FOLDERS = {
    "followers.py": "workflow/prophet_moe/offload/strategies",
    "token_lines.py": "workflow/prophet_moe/routing/importers",
}
"""Where the page says that its modules belong."""
BLOCK = re.compile(r"^( *)```(bash|python)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """The text of a section of the page."""
    return PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(title: str) -> list[tuple[str, str]]:
    """The code blocks of a section in their order: language and lines."""
    return [(language, textwrap.dedent(lines)) for _, language, lines in BLOCK.findall(section(title))]


@pytest.fixture
def copy(tmp_path) -> Path:
    """What the commands of the page need of the project; compiled kernels come along."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def follow(copy: Path, title: str) -> str:
    """Do what a section says, and return what its commands print."""
    environment = os.environ | {"PYTHONPATH": str(copy / "workflow"), "COLUMNS": "200"}
    printed = ""
    for language, lines in blocks(title):
        if language == "python":
            (name,) = (name for name in FOLDERS if f"`{name}`" in section(title))
            (copy / FOLDERS[name] / name).write_text(lines)
            continue
        done = subprocess.run(["bash", "-ec", lines], cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}"
        printed += done.stdout
    return printed


def test_steps_for_a_model_list_it_and_answer_for_it(copy):
    printed = follow(copy, "Add a model")
    assert "My-MoE" in printed
    assert "the model fits" in printed


def test_steps_for_a_gpu_answer_for_it(copy):
    assert "My-GPU-48GB" in follow(copy, "Add a GPU")


def test_steps_for_a_strategy_run_it(copy):
    assert "small-6x8-top2: Followers, 4 experts in each layer" in follow(copy, "Add a strategy")


def test_steps_for_an_importer_read_its_sample(copy):
    follow(copy, "Add an import format")
    trace = read_trace(copy / "results/token-lines")
    assert trace.experts.tolist() == [[[0, 1], [2, 3]], [[1, 3], [0, 2]], [[0, 2], [1, 3]]]
    assert trace.sequence.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("line", "problem"),
    [("0 0,1", "line 1: is '0 0,1', expected 2 layers of 2 experts"), ("0 0,x 1,2", "expected whole numbers")],
)
def test_importer_of_the_page_refuses_a_wrong_line(copy, line, problem):
    follow(copy, "Add an import format")
    (copy / "wrong.txt").write_text(line + "\n")
    command = "prophet-moe trace import token_lines wrong.txt --model made-up --out results/wrong"
    environment = os.environ | {"PYTHONPATH": str(copy / "workflow")}
    done = subprocess.run(["bash", "-c", command], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("title", ["Add a strategy", "Add an import format"])
def test_modules_of_the_page_pass_the_linter(title):
    for _, lines in (block for block in blocks(title) if block[0] == "python"):
        for check in (["check"], ["format", "--check"]):
            command = ["ruff", *check, "--config", str(ROOT / "pyproject.toml"), "-"]
            done = subprocess.run(command, input=lines, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


def test_paths_of_the_page_exist():
    named = set(re.findall(r"`((?:workflow|tests|docs|config|benches)/[\w./-]+)`", PAGE.read_text()))
    expected = {"docs/examples/study/", "tests/workflow/test_example_study.py"}
    assert {path for path in named if not (ROOT / path).exists()} <= expected
