"""How studies are found, and what a folder that is none is told."""

import pytest

import studies
from prophet_moe.errors import UserError
from prophet_moe.files import write_text
from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import PARTS, Figure, Study, check_drawn, load_studies, shown
from prophet_moe.tables import Table
from tests.conftest import ROOT

FOLDER = ROOT / "workflow/studies"
DECLARATION = """\
from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import Table

STUDY = Study(id="{id}", question="Why?", settings=StudySettings, tables=(Table("{table}", ()),))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of studies that Python finds."""
    monkeypatch.setattr(studies, "__path__", [str(tmp_path)])
    return tmp_path


def add_study(folder, name: str, study_id: str = "", table: str = "") -> None:
    """Write a study whose files hold no more than they must."""
    for part in PARTS:
        write_text(folder / name / part, "")
    write_text(folder / name / "study.py", DECLARATION.format(id=study_id or name, table=table or name))


def test_load_studies_finds_every_folder_in_order():
    found = load_studies(FOLDER)
    assert list(found) == sorted(path.parent.name for path in FOLDER.glob("*/study.smk"))
    assert all(study.id == name for name, study in found.items())


def test_load_studies_finds_a_folder_that_is_added(folder):
    add_study(folder, "added_second")
    add_study(folder, "added_first")
    (folder / "__pycache__").mkdir()
    assert list(load_studies(folder)) == ["added_first", "added_second"]


@pytest.mark.parametrize("part", PARTS)
def test_load_studies_refuses_a_folder_without_a_part(folder, part):
    add_study(folder, "lacking")
    (folder / "lacking" / part).unlink()
    with pytest.raises(UserError, match=rf"lacking/{part}: no such file"):
        load_studies(folder)


def test_load_studies_refuses_another_id_than_the_folder(folder):
    add_study(folder, "renamed", study_id="before")
    with pytest.raises(UserError, match=r"renamed/study.py: id: got 'before', expected the name of the folder"):
        load_studies(folder)


def test_load_studies_refuses_an_output_declared_twice(folder):
    add_study(folder, "one_of_two", table="same")
    add_study(folder, "other_of_two", table="same")
    problem = r"other_of_two/study.py: declares tables/data/same.csv, which study one_of_two declares too"
    with pytest.raises(UserError, match=problem):
        load_studies(folder)


def test_paths_of_outputs_hold_the_scenario_where_there_is_one():
    assert Figure("a", 1, 1).path == "figures/a"
    assert Figure("a", 1, 1, by_scenario=True).path == "figures/{scenario_dir}a"
    assert Table("table1_a", (), by_scenario=True).path == "tables/{scenario_dir}table1_a.csv"
    assert Table("a", ()).path == "tables/data/a.csv"


@pytest.fixture
def drawn_study():
    """A study with a figure in every scenario."""
    figure = Figure("drawn", 1, 1, by_scenario=True)
    return {"s": Study(id="s", question="Why?", settings=StudySettings, figures=(figure,))}


def test_check_drawn_passes_a_figure_that_is_not_offered(drawn_study):
    check_drawn(drawn_study, [], [])


def test_check_drawn_refuses_a_figure_without_drawing(drawn_study):
    with pytest.raises(UserError, match=r"s/study.smk: does not say what figure drawn shows"):
        check_drawn(drawn_study, ["figures/drawn.png"], [])


def test_check_drawn_refuses_a_figure_without_notebook(drawn_study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"notebooks/drawn.ipynb: no such file"):
        check_drawn(drawn_study, ["figures/drawn.png"], ["drawn"])
    write_text(tmp_path / "notebooks/drawn.ipynb", "{}")
    check_drawn(drawn_study, ["figures/drawn.png"], ["drawn"])


def test_shown_takes_wanted_then_default_then_any_models():
    assert shown(["c", "a", "x"], ["b"], ["a", "b", "c"]) == ["c", "a"]
    assert shown(["x"], ["b", "y"], ["a", "b"]) == ["b"]
    assert shown(["x"], ["y", "z"], ["a", "b", "c"]) == ["a", "b"]
