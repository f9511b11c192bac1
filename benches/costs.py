"""What each step of ARTIFACT.md costs in a fresh clone, and what the experiments of each study need.

usage: python benches/costs.py steps [--only STEP ...]
       python benches/costs.py studies

`steps` clones the checked-out commit and runs each step there, about 10 minutes on two idle cores. `studies` reads what
the last build in this checkout left, after `make`.

Both write to resources/costs/, from which `make docs` makes ARTIFACT.md.
"""

import argparse
import csv
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from prophet_moe.present.artifact_page import STEP_COSTS, STUDY_COSTS, StepCost, StudyCost
from prophet_moe.provenance.sidecar import sidecar_of
from prophet_moe.study import Study, load_studies
from prophet_moe.validation import read_json

STEPS = {
    "setup": "make setup",
    "kick_the_tires": "make kick_the_tires",
    "everything": "make",
    "verify": "make verify",
    "no_change": "make",
}
"""Steps in their order, each in the state that the ones before it leave."""


def main() -> None:
    """Record the steps or the studies into this checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steps", "studies"])
    parser.add_argument("--only", choices=STEPS, nargs="+", default=list(STEPS), help="some steps alone, in this order")
    arguments = parser.parse_args()
    if arguments.what == "steps":
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["git", "clone", "--quiet", ".", folder], check=True)
            _write(STEP_COSTS, [_cost_of(name, STEPS[name], Path(folder)) for name in arguments.only])
    else:
        memory = memory_of_rules(Path("benchmarks"))
        costs = [cost_of_study(study, Path(), memory) for study in load_studies().values()]
        _write(STUDY_COSTS, [cost for cost in costs if cost.disk_mb])


def _cost_of(name: str, command: str, clone: Path) -> StepCost:
    """Run a command in the clone: wall and CPU seconds, load, the largest process, and how much the folder grows."""
    began, before = time.monotonic(), _megabytes(clone)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "VIRTUAL_ENV"))}
    process = subprocess.Popen(command.split(), cwd=clone, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"error: {command}: failed in {clone}. Run it there by hand.")
    wall = time.monotonic() - began
    print(f"{command}: {wall:.0f} s")
    cpu, largest = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    load, written = os.getloadavg()[1], _megabytes(clone) - before
    return StepCost(name, command, round(wall), round(cpu), round(load), round(largest), round(written))


def _megabytes(folder: Path) -> float:
    """Disk that a folder takes, in MB of 10^6 bytes."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_dir()) / 1e6


def memory_of_rules(benchmarks: Path) -> dict[str, float]:
    """Return the largest resident memory of a job in MiB, by every word of its benchmark's path.

    One of these words is the name of the rule.
    """
    largest: dict[str, float] = {}
    for path in benchmarks.rglob("*.tsv"):
        (row,) = csv.DictReader(path.read_text().splitlines(), delimiter="\t")
        for word in re.split(r"[/.]", str(path.relative_to(benchmarks))):
            largest[word] = max(largest.get(word, 0.0), float(row["max_rss"]))
    return largest


def cost_of_study(study: Study, root: Path, memory: dict[str, float]) -> StudyCost:
    """Return the largest job of the default scenario's outputs of a study and of all that they are made from, and the
    disk of these files."""
    declared = [table.path for table in study.tables]
    declared += [f"{figure.path}.{kind}" for figure in study.figures for kind in ("pdf", "png")]
    made = dict(_made([path.format(scenario_dir="") for path in declared], root))
    largest = max((memory.get(rule, 0.0) for rule in made.values()), default=0.0)
    disk = sum((root / path).stat().st_size for path in made) / 1e6
    return StudyCost(study.id, round(largest), round(disk, 2))


def _made(outputs: list[str], root: Path) -> Iterator[tuple[str, str]]:
    """Every file that was made, of the outputs and of what they are made from, with its rule, as the sidecars say."""
    waiting, seen = list(outputs), set()
    while waiting:
        path = waiting.pop()
        sidecar = sidecar_of(root / path)
        if path in seen or not sidecar.exists():
            continue
        seen.add(path)
        told = read_json(sidecar)
        waiting += told["inputs"]
        yield path, told["rule"]


def _write(path: Path, costs: list) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(costs[0]._fields)
        writer.writerows(costs)


if __name__ == "__main__":
    main()
