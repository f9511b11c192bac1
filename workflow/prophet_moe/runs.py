"""Runs by name: a build whose outputs lie in a folder of its own, so that the committed ones stay as they are."""

import os
import shutil
from pathlib import Path

from prophet_moe.errors import from_os_error
from prophet_moe.files import temporary_path

RUNS = Path("results/runs")
BEGUN = ".begun"
"""An empty file: what is older was taken over from the default build, what is younger the run has built."""
LINKED = (
    "Snakefile",
    "config",
    "envs",
    "notebooks",
    "resources",
    "workflow",
    "paper/main.tex",
    "paper/references.bib",
    "paper/supplement.tex",
    ".venv-gpu",
)
"""What a run reads from the project; notebooks know their project by its Snakefile."""
TAKEN = ("results", "tables/data", ".snakemake/metadata")
"""What a run begins with: intermediate results and Snakemake's notes of what they were made from.

Where a parameter differs Snakemake makes them again, as it does in the default build.
"""
NOT_TAKEN = ("runs", "notebooks", "headlines.txt*", "*.html", ".partial.*")


def folder_of(name: str) -> Path:
    """Return the folder of a run, relative to the project's root; figures/, tables/ and paper/ lie below it."""
    return RUNS / name


def prepare(name: str) -> Path:
    """Make the folder of a run, relative to the project's root, unless it is there: whole or not at all."""
    try:
        return _prepared(folder_of(name))
    except OSError as error:
        raise from_os_error(folder_of(name), error) from None


def _prepared(folder: Path) -> Path:
    if not (folder / BEGUN).exists():
        partial = temporary_path(folder)
        for unfinished in (partial, folder):
            shutil.rmtree(unfinished, ignore_errors=True)
        partial.mkdir(parents=True)
        for path in TAKEN:
            if Path(path).is_dir():
                shutil.copytree(path, partial / path, ignore=shutil.ignore_patterns(*NOT_TAKEN), symlinks=True)
        (partial / BEGUN).touch()
        partial.rename(folder)
    for path in LINKED:
        link = folder / path
        if Path(path).exists() and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(path, link.parent))
    return folder


def built_by(name: str) -> list[Path]:
    """Return the figures and tables that a run has built, not taken over, relative to its folder and sorted."""
    folder = folder_of(name)
    begun = (folder / BEGUN).stat().st_mtime_ns
    outputs = [path for part in ("figures", "tables") for path in (folder / part).rglob("*")]
    kept = [path for path in outputs if path.suffix in (".csv", ".png") and path.stat().st_mtime_ns >= begun]
    return sorted(path.relative_to(folder) for path in kept)
