"""Copies of the project in folders of their own, and a way to run Snakemake in them."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from prophet_moe.provenance.tracked import MANIFEST, tracked_files
from tests.conftest import ROOT

OUTPUTS = ("figures", "tables", "paper/generated", "results/notebooks", "results/headlines.txt")


@dataclass(frozen=True)
class Project:
    """A copy of the project."""

    root: Path

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment in which the copy runs its own library, and sees no data of others."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if name != "PROPHET_DATA"}
        return kept | {"PYTHONPATH": str(self.root / "workflow"), "PATH": path} | extra

    def snakemake(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Run Snakemake in the copy; standard error and output are in .stdout."""
        return subprocess.run(
            ["snakemake", *arguments],
            cwd=self.root,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def build(self, *arguments: str, **environment: str) -> None:
        """Run the main job; fail with its output when it fails."""
        done = self.snakemake(*arguments, "--cores", "2", **environment)
        assert done.returncode == 0, done.stdout

    def jobs(self, *arguments: str) -> set[str]:
        """The jobs that a dry run would run, as 'rule wildcards', without the rules that only gather, and the paper."""
        done = self.snakemake("--dry-run", *arguments, "--quiet", "host")
        assert done.returncode == 0, done.stdout
        found = set()
        for block in re.split(r"\n(?=\[)|\n\n", done.stdout):
            rule = re.search(r"^(?:local)?rule (\w+):$", block, re.MULTILINE)
            if rule and rule[1] not in ("all", "essentials", "paper", "paper_numbers"):
                wildcards = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
                found.add(f"{rule[1]} {wildcards[1]}" if wildcards else rule[1])
        return found

    def outputs(self) -> dict[str, bytes]:
        """Every output, by its path, sidecars included."""
        paths = [path for name in OUTPUTS for path in [self.root / name, *(self.root / name).rglob("*")]]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths if path.is_file()}


def copy_project(folder: Path) -> Project:
    """Copy what git would commit, and the list of it, without the outputs, so that a build starts from nothing."""
    names = tracked_files(ROOT, with_new=True)
    for name in names:
        if not name.startswith(("figures/", "tables/", "paper/generated/")) and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / MANIFEST).write_text("".join(f"{name}\n" for name in names))
    # What Numba compiled at set-up: valid here too, for the sources keep their times.
    for path in (ROOT / "workflow").rglob("*.nb[ic]"):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy2(path, copy)
    return Project(folder)


@pytest.fixture
def project(tmp_path) -> Project:
    """A fresh copy, not built."""
    return copy_project(tmp_path / "project")


SMALL = ("--configfile", "config/overlays/small.yaml")
"""The overlay of a small grid, as options."""


@pytest.fixture(scope="session")
def with_routing(tmp_path_factory) -> Project:
    """A copy in which, for the small grid, what rests on traces alone is built."""
    project = copy_project(tmp_path_factory.mktemp("routing") / "project")
    project.build("tables/data/routing_variation.csv", *SMALL)
    return project


@pytest.fixture
def small_project(with_routing, tmp_path) -> Project:
    """A copy of that, to change."""
    return Project(shutil.copytree(with_routing.root, tmp_path / "project"))


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Project:
    """A copy with the main job done, in other surroundings than usual; tests leave it as they found it."""
    project = copy_project(tmp_path_factory.mktemp("built") / "a folder with spaces")
    home = tmp_path_factory.mktemp("home")
    # Python itself does not start in locale C where its environment lies in a folder whose name is not ASCII.
    locale = "C" if f"{ROOT}{sys.prefix}".isascii() else "C.UTF-8"
    project.build(HOME=str(home), TZ="Asia/Tokyo", LC_ALL=locale, PYTHONHASHSEED="7")
    return project
