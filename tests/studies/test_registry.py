"""What every study owes: its files, a caption for each output, a notebook for each figure, rules that make them all."""

import re

import pytest

from prophet_moe.captions import captions
from prophet_moe.validation import read_json
from tests.conftest import ROOT
from tests.workflow.rules import STUDIES

FOLDER = ROOT / "workflow/studies"
EVERY = pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)


@EVERY
def test_study_asks_one_question_everywhere_alike(study):
    assert re.fullmatch(r"[A-Z][^.?]*\?", study.question)
    assert (FOLDER / study.id / "README.md").read_text().startswith(f"# {study.question}\n")
    assert (FOLDER / study.id / "study.smk").read_text().startswith(f'"""{study.question}')


@EVERY
def test_study_has_one_caption_for_each_output(study):
    assert set(captions(study.id, FOLDER)) == {output.path for output in (*study.tables, *study.figures)}


@EVERY
def test_study_has_settings_of_its_own_that_have_defaults(study):
    assert study.settings.__module__ == f"studies.{study.id}.study"
    study.settings()


@EVERY
def test_study_names_models_by_keys_of_its_settings(study):
    assert set(study.settings.named_models) <= set(study.settings.model_fields)


@EVERY
def test_study_cites_lines_that_the_page_of_reports_has(study):
    page = (ROOT / "docs/reports.md").read_text()
    assert [lines for lines in study.reports if f'<a id="{lines.replace(":", "-")}">' not in page] == []


@EVERY
def test_study_draws_each_figure_with_a_notebook_of_its_own(study):
    for figure in study.figures:
        cells = read_json(ROOT / f"notebooks/{figure.name}.ipynb")["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        imported = {name for source in sources for name in re.findall(r"^from studies\.(\w+)\.", source, re.MULTILINE)}
        assert imported == {study.id}


@EVERY
def test_study_makes_each_table_by_a_rule(study):
    rules = (FOLDER / study.id / "study.smk").read_text()
    assert [table.name for table in study.tables if f'=table("{table.name}")' not in rules] == []


@EVERY
def test_study_imports_no_other_study(study):
    for path in (FOLDER / study.id).iterdir():
        if path.suffix in (".py", ".smk"):
            assert set(re.findall(r"^(?:from|import) studies\.(\w+)", path.read_text(), re.MULTILINE)) <= {study.id}


def test_notebooks_are_those_of_figures():
    drawn = {figure.name for study in STUDIES.values() for figure in study.figures}
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == drawn
