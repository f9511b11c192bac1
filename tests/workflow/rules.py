"""The rules of the workflow as their files write them: script, log, wildcards, and what a default build runs."""

import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from prophet_moe.study import load_studies
from tests.conftest import ROOT

FILES = sorted((ROOT / "workflow").rglob("*.smk"))
STUDIES = load_studies(ROOT / "workflow/studies")
SCENARIO_DIRS = ("", "reported/")
"""Folders of the outputs of the two scenarios: the default one's lie at the top."""
UNBUILT = ("counts_variation", "measure_discrimination", "memory_validation", "record_arrivals")
"""Rules of studies that the default build does not run: nothing here has counts, data of others, or measured memory."""


@dataclass(frozen=True)
class Rule:
    """A rule and the text of its body."""

    name: str
    file: Path
    body: str

    def path(self, directive: str) -> str:
        """The path of `log` or `benchmark`; empty where the rule has none."""
        found = re.search(rf'^    {directive}:\n        "([^"]+)"', self.body, re.MULTILINE)
        return found[1] if found else ""

    @property
    def script(self) -> str:
        """The script that it runs; empty where a function of the wildcards says which code it runs."""
        found = re.search(r'^        code=\w+\("([^"]+)"\),$', self.body, re.MULTILINE)
        return found[1] if found else ""


def rules_in(file: Path) -> list[Rule]:
    """The rules of a file, in order."""
    found = re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", file.read_text(), re.MULTILINE | re.DOTALL)
    return [Rule(name, file, body) for name, body in found]


RULES = {rule.name: rule for file in FILES for rule in rules_in(file)}
VALUES = {
    "scenario_dir": SCENARIO_DIRS,
    "scenario": ("calibrated", "reported"),
    "trace": sorted(path.parent.name for path in (ROOT / "resources/traces").glob("*/metadata.json")),
    "source": sorted(set(pd.read_csv(ROOT / "tables/data/frontier.csv", usecols=["trace"])["trace"])),
    "text": ("any",),
}
"""What each wildcard stands for in the default build."""


def jobs(*names: str, **given: str) -> set[str]:
    """The jobs of rules for every value of their wildcards, or those `given`, as `Project.jobs` writes them."""
    found = set()
    for name in names:
        wildcards = re.findall(r"{(\w+)}", RULES[name].path("log"))
        choices = [[given[wildcard]] if wildcard in given else VALUES[wildcard] for wildcard in wildcards]
        for values in product(*choices):
            told = ", ".join(f"{wildcard}={value}" for wildcard, value in zip(wildcards, values, strict=True))
            found.add(f"{name} {told}" if told else name)
    return found


def figures(*names: str, **given: str) -> set[str]:
    """The jobs that draw figures, by their names or by those of their studies; `scenario_dir` chooses among them."""
    drawn = {figure for study in STUDIES.values() for figure in study.figures if {study.id, figure.name} & set(names)}
    places = {figure.name: SCENARIO_DIRS if figure.by_scenario else ("",) for figure in drawn}
    return {
        f"figure scenario_dir={place}, figure={name}"
        for name, own in places.items()
        for place in own
        if given.get("scenario_dir", place) == place
    }


def study_jobs(*names: str) -> set[str]:
    """All jobs of studies in a default build: those of their rules, and their figures."""
    rules = [rule.name for name in names for rule in rules_in(ROOT / f"workflow/studies/{name}/study.smk")]
    return jobs(*(rule for rule in rules if rule not in UNBUILT)) | figures(*names)


def studies_that_read(*names: str) -> list[str]:
    """Studies whose rules name one of the shared inputs, such as GRID."""
    files = {study: (ROOT / f"workflow/studies/{study}/study.smk").read_text() for study in STUDIES}
    return [study for study, text in files.items() if re.search(rf"\b({'|'.join(names)})\b", text)]


def outputs() -> list[str]:
    """Paths of every table and figure that the studies of a default build declare."""
    built = [study for study in STUDIES.values() if study.id not in UNBUILT]
    tables = [table.path for study in built for table in study.tables]
    drawn = [f"{figure.path}.{kind}" for study in built for figure in study.figures for kind in ("pdf", "png")]
    return list(dict.fromkeys(path.format(scenario_dir=at) for path in (*tables, *drawn) for at in SCENARIO_DIRS))
