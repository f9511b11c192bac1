"""The README of each study: its question, its sections, a caption of every output, and links that lead somewhere."""

import re
from pathlib import Path

import pytest

from prophet_moe.captions import captions, section
from prophet_moe.errors import UserError
from prophet_moe.settings.scenario import CALIBRATED, REPORTED
from prophet_moe.study import load_studies
from tests.conftest import ROOT
from tests.unit.docs.test_docs_pages import LINK, anchors

FOLDER = ROOT / "workflow/studies"
STUDIES = load_studies(FOLDER)
SECTIONS = ["Method", "Outputs", "Columns", "What it does not show"]
SHOWN = re.compile(r"section\('(\w+)', '([\w ]+)'\)")
"""The section that a notebook shows of its study's README."""
BASIS = re.compile(r"\b(are|is|was|were) ((\w+ )?(counted|estimated|measured|reported)|(lower |upper )?bounds?)\b")
"""What a caption says of what it shows: what that rests on (docs/findings.md)."""

pytestmark = pytest.mark.parametrize("name", STUDIES)


def readme(name: str) -> Path:
    """The README of a study."""
    return FOLDER / name / "README.md"


def test_readme_has_the_question_and_all_sections(name):
    text = readme(name).read_text()
    assert text.startswith(f"# {STUDIES[name].question}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


def test_readme_has_one_caption_per_output(name):
    outputs = [output.path for output in (*STUDIES[name].tables, *STUDIES[name].figures)]
    assert sorted(captions(name, FOLDER)) == sorted(outputs)


def test_captions_say_what_the_output_rests_on(name):
    """In a sentence of its own: counted, a bound, estimated, measured or reported."""
    for output, text in captions(name, FOLDER).items():
        for scenario in (CALIBRATED, REPORTED):
            assert BASIS.search(text.replace("{{ basis }}", scenario.basis)), (output, scenario.title)


def test_links_of_a_readme_lead_to_files_and_anchors(name):
    text = readme(name).read_text()
    assert "docs/data.md" in text
    targets = LINK.findall(text)
    for target in targets:
        path, _, anchor = target.partition("#")
        page = (readme(name).parent / path).resolve()
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), target


def test_notebooks_show_the_limits_that_the_readme_has(name):
    shown = set()
    for figure in STUDIES[name].figures:
        ((study, heading),) = SHOWN.findall((ROOT / f"notebooks/{figure.name}.ipynb").read_text())
        assert study == name
        shown.add(section(study, heading, FOLDER))
    assert all(text.startswith("* ") and "#" not in text for text in shown)


def test_section_that_a_readme_lacks_is_an_error(name):
    with pytest.raises(UserError, match="has no text below a heading 'Results'"):
        section(name, "Results", FOLDER)
