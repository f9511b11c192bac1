"""Runs by name: a folder of their own, and what differs from the committed outputs."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from prophet_moe.errors import UserError
from prophet_moe.files import write_csv
from prophet_moe.present.notebook import enter_project
from prophet_moe.provenance.compare import compare_run, differing, write_page
from prophet_moe.runs import built_by, folder_of, prepare

RECORD = pd.DataFrame(
    {
        "model": ["A", "A", "B", "B"],
        "gpu": ["X", "X", "X", "Y"],
        "batch_size": [1, 4, 1, 1],
        "factor": [1.0, 2.0, np.nan, 4.0],
        "fits": ["both", "both", "neither", "both"],
    }
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one committed table and figure and an intermediate result, as the current folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("config", "figures", "tables/data", "results/traces", "results/notebooks", ".snakemake/metadata"):
        (tmp_path / folder).mkdir(parents=True)
    write_csv(tmp_path / "tables/table.csv", RECORD)
    Image.new("RGB", (4, 4)).save(tmp_path / "figures/figure.png")
    (tmp_path / "results/traces/fits.csv").write_text("a\n1\n")
    (tmp_path / "results/notebooks/page.html").write_text("")
    (tmp_path / "tables/data/fits.csv").write_text("a\n1\n")
    (tmp_path / "Snakefile").write_text("")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "figures", "tables"], ["commit", "-qm", "Add"]):
        subprocess.run([*git, *command], check=True)
    for path in tmp_path.rglob("*.csv"):
        os.utime(path, (1, 1))
    return tmp_path


def test_prepare_links_inputs_and_takes_over_results(project):
    folder = prepare("talk")
    assert folder == folder_of("talk")
    assert (folder / "config").resolve() == project / "config"
    assert (folder / "results/traces/fits.csv").read_text() == "a\n1\n"
    assert not (folder / "results/notebooks").exists()
    assert not (folder / "figures").exists(), "a figure of other parameters would pass for one of this run"
    (folder / "results/traces/fits.csv").write_text("changed")
    assert (prepare("talk") / "results/traces/fits.csv").read_text() == "changed", "it is taken over only once"
    assert (project / "results/traces/fits.csv").read_text() == "a\n1\n"


def test_enter_project_stays_in_the_folder_of_a_run(project, monkeypatch):
    monkeypatch.chdir(prepare("talk"))
    enter_project()
    assert Path.cwd() == project / "results/runs/talk"


def test_prepare_begins_again_after_an_interruption(project):
    (project / "results/runs/.partial.talk/config").mkdir(parents=True)
    (project / "results/runs/talk/half").mkdir(parents=True)
    assert not (prepare("talk") / "half").exists()
    assert not (project / "results/runs/.partial.talk").exists()


def test_prepare_where_no_folder_can_be_is_one_line(project):
    (project / "results/runs").write_text("")
    with pytest.raises(UserError, match="results/runs/talk: could not be used"):
        prepare("talk")


def test_built_by_leaves_out_what_was_taken_over(project):
    folder = prepare("talk")
    write_csv(folder / "tables/table.csv", RECORD)
    assert [str(path) for path in built_by("talk")] == ["tables/table.csv"]


def test_compare_run_tells_numbers_and_figures(project):
    folder = prepare("talk")
    write_csv(folder / "tables/table.csv", RECORD.assign(factor=[1.0, 2.5, np.nan, 4.0]))
    write_csv(folder / "tables/new.csv", RECORD)
    (folder / "figures").mkdir()
    Image.new("RGB", (4, 4), "white").save(folder / "figures/figure.png")
    figure, new, table = compare_run("talk")
    assert figure.verdict == "drawn differently, RMS 255.0 of 255"
    assert (new.output, new.verdict) == ("tables/new.csv", "only in this run")
    assert table.verdict == "4 rows in both"
    assert [(c.name, c.rows, c.largest) for c in table.columns] == [("factor", 1, pytest.approx(0.2))]
    page = write_page("talk", [figure, new, table])
    assert page == folder / "compare/index.html"
    assert (page.parent / "committed/figures/figure.png").read_bytes() == (project / "figures/figure.png").read_bytes()
    assert 'src="../figures/figure.png"' in page.read_text()


def test_compare_run_without_that_run_names_the_others(project):
    prepare("talk")
    with pytest.raises(UserError, match="results/runs/tlak: no run of that name, there are: talk"):
        compare_run("tlak")


def test_differing_pairs_rows_by_their_keys():
    fewer = RECORD.iloc[[3, 0]].assign(factor=[4.0, np.nan], fits=["both", "neither"])
    verdict, columns = differing(fewer, RECORD)
    assert verdict == "2 rows in both, 2 only committed"
    assert [(c.name, c.rows, c.largest) for c in columns] == [("factor", 1, np.inf), ("fits", 1, np.inf)]


def test_differing_tells_of_other_columns_and_rows():
    verdict, columns = differing(RECORD.assign(extra=1), RECORD.drop(columns="fits").iloc[:3])
    assert verdict == "3 rows in both, 1 only here, other columns: extra, fits"
    assert columns == ()


def test_differing_without_keys_pairs_rows_in_order():
    verdict, columns = differing(pd.DataFrame({"a": [1, 0]}), pd.DataFrame({"a": [1, 2]}))
    assert verdict == "2 rows in both"
    assert [(c.name, c.rows, c.largest) for c in columns] == [("a", 1, 1.0)]
