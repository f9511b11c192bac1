"""The samples of formats: each is imported, is what its example writes, and stands in the docs as in the help."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from prophet_moe.routing.datasets import load_datasets, router_named
from prophet_moe.routing.importers import FORMATS, about, import_source
from prophet_moe.routing.importers.reading import REMARKS
from prophet_moe.routing.trace import Counts, Origin
from tests.conftest import ROOT

SAMPLES = ROOT / "docs/samples"


def example(name: str) -> tuple[Path, str]:
    """The sample that the help of a format names, and the indented lines below."""
    head, _, lines = about(name).rpartition("docs/samples/")[2].partition("\n\n")
    return SAMPLES / head.split()[0], textwrap.dedent(lines)


@pytest.mark.parametrize("name", FORMATS)
def test_sample_of_a_format_is_imported(name):
    router = router_named("made-up", {}, load_datasets(ROOT / "config/datasets.yaml"))
    found = import_source(name, example(name)[0], router, Origin("a sample", "Apache-2.0"))
    assert REMARKS not in found.origin.notes
    assert found.counts.shape == (1, 2, 4) if isinstance(found, Counts) else len(found) > 1


@pytest.mark.parametrize("name", FORMATS)
def test_sample_of_a_format_is_its_example(name, tmp_path, monkeypatch):
    path, lines = example(name)
    assert len(lines.splitlines()) <= 9
    if path.suffix != ".npz":
        assert path.read_text().rstrip("\n") == lines.rstrip("\n")
        return
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    with np.load(path) as kept, np.load(tmp_path / path.name) as made:
        assert kept.files == made.files
        for held in kept.files:
            np.testing.assert_array_equal(kept[held], made[held])


@pytest.mark.parametrize("name", FORMATS)
def test_docs_show_the_example_of_a_format(name):
    path, lines = example(name)
    docs = (ROOT / "docs/formats.md").read_text()
    assert f"docs/samples/{path.name}" in docs
    assert textwrap.indent(lines.rstrip("\n"), "    ") in docs


def test_help_of_a_format_shows_its_example():
    command = [sys.executable, "-c", "from prophet_moe.cli.main import main; main()", "trace", "import"]
    shown = subprocess.run([*command, "prompt_csv", "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert example("prompt_csv")[1] in textwrap.dedent(shown.stdout.partition("holds\n\n")[2])
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "prophet-moe trace import FORMAT --help shows the format with an example" in shown.stdout
