"""A study is one folder and a notebook: those of docs/examples/study/, copied into a project, need no other edit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.workflow.conftest import SMALL, Project

EXAMPLE = ROOT / "docs/examples/study"
STUDY = "needed_experts"
TABLE, FIGURE = f"tables/data/{STUDY}.csv", f"figures/{STUDY}.png"


def add_example(project: Project) -> None:
    """Copy the folder of the example study and its notebook."""
    shutil.copytree(EXAMPLE / STUDY, project.root / "workflow/studies" / STUDY)
    shutil.copy(EXAMPLE / f"{STUDY}.ipynb", project.root / "notebooks")


@pytest.fixture(scope="module")
def extended(with_routing, tmp_path_factory) -> Project:
    """A copy with the example study, its table and its figure built."""
    project = Project(shutil.copytree(with_routing.root, tmp_path_factory.mktemp("example") / "project"))
    add_example(project)
    project.build(TABLE, FIGURE, *SMALL)
    return project


def test_example_study_gives_table_and_figure_with_sidecars(extended):
    needed = pd.read_csv(extended.root / TABLE)
    assert set(needed["model"]) == {"DeepSeek-MoE-16B", "Mixtral-8x7B", "Switch-Base-128"}
    assert needed.groupby("model")["law"].nunique().eq(3).all()
    for name in (TABLE, FIGURE, FIGURE.replace(".png", ".pdf")):
        told = json.loads((extended.root / f"{name}.prov.json").read_text())
        assert told["output"] == name
        assert f"workflow/studies/{STUDY}/study.py" in told["code"]
        assert not [path for path in (*told["inputs"], *told["code"]) if Path(path).is_absolute()]
    page = (extended.root / f"results/notebooks/{STUDY}.html").read_text()
    assert "The laws differ most for" in page and "What it does not show" in page


def test_example_study_has_captions_in_the_report(extended):
    done = extended.snakemake("--report", "report.html", TABLE, FIGURE, *SMALL)
    assert done.returncode == 0, done.stdout
    page = (extended.root / "report.html").read_text()
    assert "Distinct experts that a batch of 16 sequences needs in a layer of each model" in page
    assert "experts that 16 sequences need, by model and law. All are estimated. Scenario calibrated:" in page


def test_example_study_appears_in_the_docs(extended):
    done = subprocess.run(
        ["prophet-moe", "config", "write"], cwd=extended.root, env=extended.environment(), check=True, text=True
    )
    assert done.returncode == 0
    data, keys, commands = (
        (extended.root / f"docs/{name}.md").read_text() for name in ("data", "configuration", "reproduce")
    )
    assert f"## {STUDY}\n\nHow many experts does a batch need by each law?" in data
    assert f"`{TABLE}`" in data and "| `needed` | number | experts | Distinct experts" in data
    assert f"| `studies.{STUDY}.batch_size` | whole number, > 0, <= 1000000 | `16` |" in keys
    assert f"`snakemake --cores 8 {TABLE}`" in commands
    schema = json.loads((extended.root / "workflow/schemas/experiment.schema.json").read_text())
    assert STUDY in schema["$defs"]["Studies"]["properties"]


def pass_tests_of_readmes(project: Project) -> None:
    """Hold the README and the notebooks of the example to what those of all studies are held to."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/studies/test_readmes.py", "-k", STUDY]
    done = subprocess.run(command, cwd=project.root, env=project.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


def test_readme_of_the_example_is_as_those_of_studies(extended):
    pass_tests_of_readmes(extended)


def test_second_figure_needs_no_edit_of_the_rules(extended, tmp_path):
    project = Project(shutil.copytree(extended.root, tmp_path / "project"))
    folder = project.root / "workflow/studies" / STUDY
    with (folder / "figure.py").open("a") as file:
        file.write("\n\ndraw_again = draw\n")
    added = '(FIGURE, Figure("needed_again", 3.33, 2.8, table=NEEDED.name))'
    declared = (folder / "study.py").read_text()
    (folder / "study.py").write_text(declared.replace("(FIGURE,)", added))
    caption = "### figures/needed_again\n\nThe same share once more. All are estimated.\n\n## Columns\n"
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(text.replace("## Columns\n", caption))
    notebook = (EXAMPLE / f"{STUDY}.ipynb").read_text().replace("import draw,", "import draw_again as draw,")
    (project.root / "notebooks/needed_again.ipynb").write_text(notebook)
    pass_tests_of_readmes(project)
    project.build("figures/needed_again.png", *SMALL)
    told = json.loads((project.root / "figures/needed_again.png.prov.json").read_text())
    assert TABLE in told["inputs"]


def test_figure_of_an_unknown_table_is_a_users_mistake(extended, tmp_path):
    project = Project(shutil.copytree(extended.root, tmp_path / "project"))
    declared = project.root / "workflow/studies" / STUDY / "study.py"
    declared.write_text(declared.read_text().replace("table=NEEDED.name", 'table="none"'))
    done = project.snakemake("--dry-run", FIGURE, *SMALL)
    assert done.returncode == 1
    assert f"workflow/studies/{STUDY}/study.py: figure {STUDY}: no table 'none'. Name a table" in done.stdout


def test_example_study_is_verified_and_built_by_default(extended):
    done = extended.snakemake("--dry-run", "verify", "--quiet", "host", *SMALL)
    assert done.returncode == 0, done.stdout
    verified = next(line for line in done.stdout.splitlines() if "workflow/scripts/verify.py" in line)
    assert {TABLE, FIGURE, FIGURE.replace(".png", ".pdf")} <= set(verified.split(": ")[1].split(", "))


def test_example_study_setting_reruns_the_example_alone(extended):
    (extended.root / "mine.yaml").write_text(f"studies: {{{STUDY}: {{batch_size: 32}}}}\n")
    again = {STUDY, f"figure scenario_dir=, figure={STUDY}"}
    others = extended.jobs(*SMALL)
    assert extended.jobs(*SMALL, "mine.yaml") - others == again


def test_example_study_has_the_contracts_of_others(extended):
    done = subprocess.run(
        ["lint-imports"], cwd=extended.root, env=extended.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
