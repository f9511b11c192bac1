"""The locked requirements, the conda file and pyproject.toml agree, and no address is recorded."""

import os
import re
import subprocess
import sys
import tomllib

import yaml

from tests.conftest import ROOT

ENVS = ROOT / "envs"
LOCKS = sorted(ENVS.glob("*.txt"))


def pins(name: str) -> dict[str, str]:
    """Version of every package in a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ \\;]+)", (ENVS / name).read_text(), re.MULTILINE))


def required() -> list[str]:
    """Names of the packages that the project asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [re.split(r"[<>=]", requirement)[0] for requirement in project["dependencies"]]


def test_locks_hold_hashes_and_no_address():
    for lock in LOCKS:
        text = lock.read_text()
        assert "://" not in text, lock
        assert "--index" not in text, lock
        for block in re.findall(r"^[a-z0-9-]+==.*(?:\n +.*)*", text, re.MULTILINE):
            assert "--hash=sha256:" in block, block


def test_every_requirement_is_locked():
    assert set(required()) <= set(pins("analysis.txt"))


def test_the_citation_has_the_version_and_licence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert len(cited["keywords"]) > 3


def test_the_conda_file_has_the_locked_versions():
    listed = yaml.safe_load((ENVS / "analysis.yaml").read_text())["dependencies"]
    named = {"matplotlib-base": "matplotlib", "ml_dtypes": "ml-dtypes"}
    pairs = [item.split("=") for item in listed if not item.startswith("python=")]
    conda = {named.get(name, name): version for name, version in pairs}
    locked = pins("analysis.txt")
    assert conda == {name: locked[name] for name in required()}


def test_the_development_packages_agree_with_the_locked_ones():
    main, dev = pins("analysis.txt"), pins("dev.txt")
    assert {name: dev[name] for name in dev if name in main} == {name: main[name] for name in dev if name in main}


def test_a_python_that_is_not_there_is_one_line(tmp_path):
    command = ["bash", ENVS / "install.sh", tmp_path / "venv", ENVS / "analysis.txt"]
    done = subprocess.run(command, env=os.environ | {"PYTHON": "/none"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: /none: not found. Run: make PYTHON=/path/to/python3.11\n"


def test_measuring_without_torch_is_one_line(tmp_path):
    """As in an environment that has the analysis packages alone."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    command = [sys.executable, "-m", "prophet_moe.collect", "hardware", "--out", str(tmp_path / "out")]
    path = f"{tmp_path}{os.pathsep}{ROOT / 'workflow'}"
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {sys.executable}: has no package 'torch'. Run: make gpu")
    assert len(done.stderr.splitlines()) == 1


def make(*arguments: str) -> str:
    """The commands that make would run by itself, not as part of the make that runs the tests."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-n", *arguments]
    return subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=True).stdout


def test_make_lab_takes_options_and_lets_root_in():
    told = make("lab", "LAB_ARGS=--no-browser --port 8999").splitlines()[-1]
    assert told.startswith("jupyter lab notebooks")
    assert told.endswith("--no-browser --port 8999")
    assert ("--allow-root" in told) is (os.geteuid() == 0)


def test_make_archive_builds_and_describes_first():
    told = make("archive").splitlines()
    assert [line for line in told if line.startswith(("snakemake", "python"))] == [
        "snakemake --cores 8",
        "snakemake --cores 8 crate",
        "python -m prophet_moe.provenance.archive",
    ]


def test_make_help_lists_every_target():
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^make ([\w-]+) ", shown, re.MULTILINE)
    assert sorted(["all", "help", *listed]) == sorted(phony)


def test_make_kick_the_tires_is_listed_and_runs_it():
    assert make("kick_the_tires").splitlines()[-1] == "prophet-moe kick-the-tires"
    assert "make kick_the_tires " in make("help")


def test_make_report_builds_first():
    told = make("report").splitlines()
    assert [line for line in told if line.startswith("snakemake")] == [
        "snakemake --cores 8",
        "snakemake --cores 8 report_page",
        "snakemake --report results/report.html",
    ]
