"""The command `kick-the-tires`: whether this checkout works here and makes the committed numbers, within minutes."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from prophet_moe.cli.terminal import console
from prophet_moe.errors import UserError
from prophet_moe.files import write_text
from prophet_moe.runs import folder_of

LOCK = Path("envs/analysis.txt")
"""The locked requirements that the set-up installs."""
LOGS = Path("logs/kick_the_tires")
RUN, SMALL_RUN = "kick_the_tires", "kick_the_tires_small"
"""Names of the two runs: each builds in a folder of its own."""
SMALL = ("--configfile", "config/overlays/small.yaml")
DRAWN = (
    "figures/figure2_kv_extension_by_model.png",
    "figures/comparative_evaluation.png",
    "tables/table8_strategies.csv",
)
"""Built from the small grid: memory model, replays of a recorded trace, and the notebooks that draw them."""
REBUILT = (
    "tables/data/model_catalog.csv",
    "tables/data/prophet_kv_extension_data.csv",
    "tables/table14_observed.csv",
)
"""Built in full and compared: counts of every model, the whole record, predictions beside what others measured."""
TESTS = (
    "tests/golden/test_counts.py",
    "tests/golden/test_reported.py",
    "tests/golden/test_observed_memory.py",
    "tests/unit/offload/test_invariants.py",
    "tests/unit/offload/test_break_even.py",
)
"""Counts against Transformers classes, the report's printed numbers, memory that servers printed, bounds of time."""
TAIL = 12
"""Lines of a log that a failure shows."""

Finding = tuple[bool, str]
"""Whether a step passed, and a line or lines that say what was found."""


class Step(NamedTuple):
    """A step: what it does in a few words, and the function that does it."""

    title: str
    run: Callable[[], Finding]


def add_command(commands: Any) -> None:
    """Add the command `kick-the-tires` to the parser."""
    parser = commands.add_parser(
        "kick-the-tires",
        help="build a little, compare it with what is committed, and run a few tests",
        epilog="It changes no file that git knows. `make kick_the_tires` installs the packages of the tests first.",
    )
    parser.set_defaults(run=kick_the_tires)


def kick_the_tires(_: argparse.Namespace) -> None:
    """Run every step, whatever became of the others, and end with a summary; a step that failed is a UserError."""
    before = changes()
    steps = (
        Step("The environment is the locked one", environment),
        Step("A small grid builds, with its figures", small_build),
        Step("Outputs built again are the committed ones", rebuilt),
        Step("Decisive tests pass", decisive_tests),
        Step("The checkout is as it was", lambda: unchanged(before, changes())),
    )
    findings = [_told(step) for step in steps]
    table = Table("", "step", "seconds", "found")
    for step, (passed, found, seconds) in zip(steps, findings, strict=True):
        table.add_row("PASS" if passed else "FAIL", step.title, f"{seconds:.0f}", found)
    console().print(table)
    failed = [step.title for step, (passed, *_) in zip(steps, findings, strict=True) if not passed]
    print(f"{len(steps) - len(failed)} PASS, {len(failed)} FAIL in {sum(found[2] for found in findings):.0f} s")
    if failed:
        advice = f"See {LOGS}/ and docs/troubleshooting.md. If the set-up was interrupted: make setup"
        raise UserError("kick-the-tires", f"failed: {'; '.join(failed)}", advice)
    print('Next: judge one claim (ARTIFACT.md, "Judge one claim yourself"), or build everything: make')


def _told(step: Step) -> tuple[bool, str, float]:
    """Run a step, and say so while it runs."""
    print(f"{step.title} ...", flush=True)
    began = time.monotonic()
    passed, found = step.run()
    return passed, found, time.monotonic() - began


def environment() -> Finding:
    """Whether every package that the project names has a locked version; what the machine has is told, not judged."""
    # The metadata of all packages is read only for this step.
    from prophet_moe.provenance.sidecar import package_versions

    installed = package_versions()
    other = other_versions(installed, LOCK.read_text())
    tools = ", ".join(f"{name}{'' if shutil.which(name) else ' not'} found" for name in ("git", "latexmk"))
    free = shutil.disk_usage(".").free / 1e9
    machine = f"Python {installed['python']}, {os.cpu_count()} cores, {free:.0f} GB of disk free, {tools}"
    return not other, "\n".join([machine, *other])


def other_versions(installed: Mapping[str, str], lock: str) -> list[str]:
    """Return a line for each package whose installed version is none of those that the text of a lock file allows."""
    allowed: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ \\;]+)", lock, re.MULTILINE):
        allowed.setdefault(name, []).append(version)
    return [
        f"{name} {version}, locked {' or '.join(allowed[name])}"
        for name, version in installed.items()
        if name in allowed and version not in allowed[name]
    ]


def small_build() -> Finding:
    """Build DRAWN from the small grid."""
    return _built(SMALL_RUN, (*SMALL, "--config", f"name={SMALL_RUN}"), DRAWN)


def rebuilt() -> Finding:
    """Build REBUILT with the default settings, and compare every number with the committed one."""
    # Comparing needs pandas, whose import takes a while.
    from prophet_moe.present.documentation import declared_tables
    from prophet_moe.tables import tolerances

    passed, found = _built(RUN, ("--config", f"name={RUN}"), REBUILT)
    if not passed:
        return passed, found
    allowed = tolerances(declared_tables())
    verdicts = {path: as_committed(folder_of(RUN) / path, Path(path), allowed) for path in REBUILT}
    return all(same for same, _ in verdicts.values()), "\n".join(
        f"{path}: {told}" for path, (_, told) in verdicts.items()
    )


def as_committed(ours: Path, path: Path, allowed: Mapping[str, Mapping[str, float]]) -> Finding:
    """Whether a file equals the one committed at `path`, or the one that lies there where git knows none."""
    from prophet_moe.provenance.verify import committed, compare

    theirs = committed(path) or path.read_bytes()
    told = "identical" if ours.read_bytes() == theirs else compare(ours, theirs, allowed)
    return not told.startswith("FAIL"), told


def decisive_tests() -> Finding:
    """Run TESTS, which write nothing beside their temporary folders."""
    return _run("tests", [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *TESTS])


def changes() -> str | None:
    """What git says of changed and new files; None where this is no git repository."""
    try:
        told = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return told.stdout if told.returncode == 0 else None


def unchanged(before: str | None, after: str | None) -> Finding:
    """Whether no file was changed or added, but for those that git ignores: results, logs and caches."""
    if before is None:
        return True, "not checked: this is no git repository"
    new = sorted(set((after or "").splitlines()) - set(before.splitlines()))
    return not new, "\n".join(new) or "git status is as before"


def _built(run: str, options: Sequence[str], outputs: Sequence[str]) -> Finding:
    """Build outputs in a new folder of their own, even those that are there already."""
    shutil.rmtree(folder_of(run), ignore_errors=True)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--forceall", *options, "--", *outputs]
    passed, found = _run(run, command)
    missing = [path for path in outputs if not (folder_of(run) / path).exists()]
    if passed and missing:
        return False, f"not there: {', '.join(missing)}"
    return passed, f"{len(outputs)} outputs in {folder_of(run)}" if passed else found


def _run(name: str, command: Sequence[str]) -> Finding:
    """Run a command, keep what it prints in LOGS, and return its last line, or several if it failed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    write_text(LOGS / f"{name}.log", done.stdout)
    lines = done.stdout.strip().splitlines()[-1 if done.returncode == 0 else -TAIL :]
    return done.returncode == 0, "\n".join(lines)
