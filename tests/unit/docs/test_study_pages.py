"""Pages of docs/ about studies: each study has one, with its command, its minutes and its picture."""

import re
from functools import cache

import pytest

from tests.conftest import ROOT
from tests.unit.docs.test_commands import commands
from tests.workflow.rules import STUDIES

GENERATED = ("reproduce.md", "data.md", "configuration.md", "models.md")
"""Pages that are made from the code."""
LINE = re.compile(
    r"^\[Study `(\w+)`\]\(\.\./workflow/studies/(\w+)/README\.md\), ([\d.]+) minutes? on two cores after set-up:\n"
    r"(`[^`]+`\.|\n```\w*\n.*?^```)$",
    re.MULTILINE | re.DOTALL,
)
TIMED = pytest.mark.parametrize("study", [study for study in STUDIES.values() if study.minutes is not None])
"""Studies whose builds were timed."""


@cache
def told() -> dict[str, tuple[str, str, str]]:
    """Name of the page, minutes and command of every study that a page tells of."""
    found = {}
    for page in sorted((ROOT / "docs").glob("*.md")):
        for name, linked, minutes, command in LINE.findall(page.read_text()):
            assert name == linked and name not in found, f"{page.name}: {name}"
            found[name] = page.name, minutes, command
    return found


def targets(command: str) -> list[str]:
    """The outputs that a command of a page asks for."""
    return [word for words in commands(command) for word in words if word.startswith(("figures/", "tables/"))]


def embedded(page: str) -> set[str]:
    """The pictures that a page embeds."""
    return set(re.findall(r"^!\[[^\]]+\]\(\.\./([^)]+)\)$", (ROOT / "docs" / page).read_text(), re.MULTILINE))


def test_every_line_of_a_study_is_written_alike():
    for page in (page for page in (ROOT / "docs").glob("*.md") if page.name not in GENERATED):
        assert page.read_text().count("[Study `") == len(LINE.findall(page.read_text())), page.name


@TIMED
def test_page_of_a_study_has_its_minutes_and_its_command(study):
    _, minutes, command = told()[study.id]
    made = {output.path.format(scenario_dir="") for output in study.declared}
    made |= {f"{figure.path.format(scenario_dir='')}.pdf" for figure in study.figures}
    assert float(minutes) == study.minutes
    assert targets(command) and set(targets(command)) <= made


@TIMED
def test_page_of_one_study_embeds_each_of_its_figures(study):
    page = told()[study.id][0]
    alone = [name for name, (where, *_) in told().items() if where == page] == [study.id]
    pictures = {f"{figure.path.format(scenario_dir='')}.png" for figure in study.figures}
    assert not alone or pictures <= embedded(page)


def test_a_study_without_minutes_is_linked_with_its_command():
    page = (ROOT / "docs/reproduce.md").read_text()
    for study in (study for study in STUDIES.values() if study.minutes is None):
        assert f"(../workflow/studies/{study.id}/README.md)" in page
        assert all(f"`snakemake --cores 8 {table.path.format(scenario_dir='')}`" in page for table in study.tables)
