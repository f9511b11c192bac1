"""Code versions, sidecars and verification."""

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from prophet_moe.errors import UserError
from prophet_moe.files import write_csv, write_text
from prophet_moe.present import execution
from prophet_moe.provenance.code import code_of
from prophet_moe.provenance.job import run
from prophet_moe.provenance.sidecar import code_version, origin, sidecar_of, write_sidecar
from prophet_moe.provenance.verify import compare, remedies, verify
from tests.conftest import ROOT

LOADS = """
import ast, importlib, runpy, sys

def loaded():
    return {module.__file__ for name, module in sys.modules.items() if name.startswith(("prophet_moe", "studies"))}

runpy.run_path(sys.argv[1])
seen = set()
while found := loaded() - seen:
    seen |= found
    for path in found:
        tree = ast.parse(open(path).read())
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and node.module.startswith("prophet_moe"):
                    package = importlib.import_module(node.module)
                    for alias in node.names:
                        if not hasattr(package, alias.name):
                            importlib.import_module(f"{node.module}.{alias.name}")
print(list(seen))
"""
"""Runs a script, then what the functions of the modules that it loaded import."""
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_code_of_a_script_is_what_python_imports(script):
    """The import graph holds every library module that gets loaded when the script runs, also from inside functions."""
    shown = subprocess.run(
        [sys.executable, "-c", LOADS, str(script)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {Path(path).relative_to(ROOT / "workflow") for path in ast.literal_eval(shown.stdout)}
    declared = {Path(path).relative_to("workflow") for path in code_of(script, Path("workflow"))[1:]}
    assert loaded == declared


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("none.py", None, "none.py: no such file"),
        ("wrong.py", "def", "wrong.py: is no Python: invalid syntax"),
        ("null.py", "\0", "null.py: is no Python: source code"),
        ("no.ipynb", "x", "no.ipynb: line 1: malformed JSON"),
        ("other.ipynb", "{}", "other.ipynb: is no notebook"),
        ("list.ipynb", "[1]", "list.ipynb: is no notebook"),
        ("cell.ipynb", '{"cells": [{"cell_type": "code", "source": "def"}]}', "cell.ipynb: is no Python"),
    ],
)
def test_code_of_what_is_none_is_one_line(tmp_path, name, content, problem):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=problem):
        code_of(tmp_path / name, Path("workflow"))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A git checkout with one committed output and its sidecar."""
    monkeypatch.chdir(tmp_path)
    write_text(Path("input.txt"), "input\n")
    write_csv(Path("out.csv"), pd.DataFrame({"model": ["a", "b"], "value": [1.0, 2.5]}))
    write_sidecar(Path("out.csv"), origin("rule", [Path("input.txt")], [], {"batch": 4}))
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "outputs"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


def test_an_untouched_output_passes(project):
    check = verify(Path("out.csv"), {})
    assert check.passed
    assert check.committed == "identical"


def test_sidecars_with_an_absolute_path_are_refused(project):
    (project / "other.csv").write_text("a\n")
    with pytest.raises(UserError, match=r"rule rule: input /.*input\.txt is absolute, expected a path from"):
        write_sidecar(Path("other.csv"), origin("rule", [Path("input.txt").absolute()], [], {}))
    assert not sidecar_of(Path("other.csv")).exists()


def test_committed_outputs_are_made_from_relative_paths():
    sidecars = [path for part in ("figures", "tables", "paper") for path in (ROOT / part).rglob("*.prov.json")]
    assert len(sidecars) > 50
    named = {path.name: json.loads(path.read_text()) for path in sidecars}
    told = {name: [at for at in (*held["inputs"], *held["code"]) if at[0] == "/"] for name, held in named.items()}
    assert {name: paths for name, paths in told.items() if paths} == {}, "build the outputs again"


def test_sidecars_hold_no_absolute_path_and_no_time(project):
    told = json.loads(sidecar_of(Path("out.csv")).read_text())
    assert str(project) not in json.dumps(told)
    assert set(told) == {"output", "sha256", "config_hash", "rule", "inputs", "parameters", "code", "packages"}
    assert origin("rule", [Path("input.txt")], [], {"batch": 4})["config_hash"] == told["config_hash"]
    assert origin("rule", [Path("input.txt")], [], {"batch": 8})["config_hash"] != told["config_hash"]


def test_the_code_version_changes_with_code_alone(tmp_path):
    code, data = tmp_path / "a.py", tmp_path / "a.csv"
    code.write_text("x = 1\n")
    data.write_text("1\n")
    first = code_version(origin("rule", [data], [code], {"a": 1}))
    data.write_text("2\n")
    assert code_version(origin("other", [data], [code], {})) == first
    assert len(first) == 8 and int(first, 16) >= 0
    code.write_text("x = 2\n")
    assert code_version(origin("rule", [data], [code], {"a": 1})) != first


def test_a_changed_input_fails(project):
    write_text(Path("input.txt"), "other\n")
    assert "made from another version of input.txt" in verify(Path("out.csv"), {}).sidecar
    assert not verify(Path("out.csv"), {}).passed


def test_an_edited_output_fails(project):
    Path("out.csv").write_text("model,value\na,1\nb,2.6\n")
    check = verify(Path("out.csv"), {})
    assert check.sidecar == "FAIL: the file was changed after it was made"
    assert check.committed.startswith("FAIL: column value differs")


def test_sidecar_names_the_files_of_a_folder_given(tmp_path, monkeypatch):
    """An input that is a folder is told by its files; the hidden ones, which Snakemake writes, are left out."""
    monkeypatch.chdir(tmp_path)
    for name in ("drawn/a.pdf", "drawn/.stamp"):
        write_text(Path(name), name)
    write_text(Path("joined.py"), "def build(files, parameters):\n    files.out.write_text('made')\n")
    sidecar = str(sidecar_of(Path("out.txt")))
    named = {"inputs": {"code": ["joined.py"], "drawn": "drawn"}, "outputs": {"out": "out.txt", "prov": [sidecar]}}
    run(Path("joined.py"), named, {})
    assert list(json.loads(Path(sidecar).read_text())["inputs"]) == ["drawn/a.pdf"]


def test_a_missing_sidecar_fails(project):
    sidecar_of(Path("out.csv")).unlink()
    check = verify(Path("out.csv"), {})
    assert check.sidecar == "FAIL: no sidecar"
    assert remedies([check, check]) == ["snakemake --cores 8 --force out.csv"]


def test_a_missing_input_fails_and_says_how_to_make_it(project):
    Path("input.txt").unlink()
    check = verify(Path("out.csv"), {})
    assert check.sidecar == "FAIL: input.txt is missing"
    assert remedies([check]) == ["snakemake --cores 8 input.txt"]


def test_an_output_that_holds_needs_no_remedy(project):
    assert remedies([verify(Path("out.csv"), {})]) == []


TABLE = b"model,batch_size,kv_extension_factor\nx,4,1.25\ny,8,\n"


@pytest.mark.parametrize(
    ("ours", "passes"),
    [
        (b"model,batch_size,kv_extension_factor\nx,4,1.250001\ny,8,\n", True),
        (b"model,batch_size,kv_extension_factor\nx,4,1.2501\ny,8,\n", False),
        (b"model,batch_size,kv_extension_factor\nx,5,1.25\ny,8,\n", False),
        (b"model,batch_size,kv_extension_factor\nz,4,1.25\ny,8,\n", False),
        (b"model,batch_size,kv_extension_factor\nx,4,1.25\ny,8,1\n", False),
        (b"model,batch_size,kv_extension_factor\nx,4,1.25\n", False),
        (b"model,batch,kv_extension_factor\nx,4,1.25\ny,8,\n", False),
    ],
)
def test_tables_are_compared_column_by_column(tmp_path, ours, passes):
    (tmp_path / "t.csv").write_bytes(ours)
    assert compare(tmp_path / "t.csv", TABLE, {}).startswith("FAIL") is not passes


@pytest.mark.parametrize(
    ("ours", "passes"),
    [
        ("% config 0123456789ab\nMean & 1.50 \\\\\n", True),
        ("% config ffffffffffff\nMean & 1.51 \\\\\n", False),
        ("% config ffffffffffff\nBest & 1.50 \\\\\n", False),
    ],
)
def test_latex_is_compared_by_its_numbers(tmp_path, ours, passes):
    (tmp_path / "t.tex").write_text(ours)
    assert (
        compare(tmp_path / "t.tex", b"% config ba9876543210\nMean & 1.50 \\\\\n", {}).startswith("FAIL") is not passes
    )


@pytest.mark.parametrize(("shade", "size", "passes"), [(201, 20, True), (230, 20, False), (200, 21, False)])
def test_images_are_compared_by_their_pixels(tmp_path, shade, size, passes):
    for name, value, side in (("a.png", shade, size), ("b.png", 200, 20)):
        Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(tmp_path / name)
    result = compare(tmp_path / "a.png", (tmp_path / "b.png").read_bytes(), {})
    assert result.startswith("FAIL") is not passes


def test_notebook_parameters_are_alike_where_black_is_installed():
    assert find_spec("black"), "else this shows nothing"
    parameters = {"claimed": {str(number): float(number) for number in range(64)}, "traces": ["a"]}
    written = execution.papermill_translators.find_translator("python3", "python").codify(parameters)
    assert written.splitlines() == ["# Parameters", f"claimed = {json.dumps(parameters['claimed'])}", 'traces = ["a"]']
