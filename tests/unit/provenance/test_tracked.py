"""Which files belong to the project, in a git checkout and where it is unpacked."""

import subprocess

import pytest

from prophet_moe.errors import UserError
from prophet_moe.provenance.tracked import MANIFEST, tracked_files
from tests.conftest import ROOT


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with one file that is tracked, one that is new and one that is ignored."""
    for name, text in {".gitignore": "ignored\n", "ignored": "", "folder/new é": "", "folder/tracked": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for command in (["init", "-q"], ["add", ".gitignore", "folder/tracked"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_checkout_lists_what_git_tracks(checkout):
    assert tracked_files(checkout) == [".gitignore", "folder/tracked"]


def test_new_files_are_those_git_does_not_ignore(checkout):
    assert tracked_files(checkout, with_new=True) == [".gitignore", "folder/new é", "folder/tracked"]


def test_a_checkout_does_not_read_a_manifest(checkout):
    (checkout / MANIFEST).write_text("other\n")
    assert tracked_files(checkout) == [".gitignore", "folder/tracked"]


def test_without_git_the_manifest_is_the_list(tmp_path):
    (tmp_path / MANIFEST).write_text("README.md\nfolder/a file\n")
    (tmp_path / "new").write_text("")
    assert tracked_files(tmp_path) == tracked_files(tmp_path, with_new=True) == ["README.md", "folder/a file"]


def test_a_folder_inside_another_checkout_has_no_list(checkout):
    with pytest.raises(UserError, match=r"folder/MANIFEST: no such file, and no git checkout either.* Work in a clone"):
        tracked_files(checkout / "folder")


def test_a_broken_checkout_is_one_line(tmp_path):
    (tmp_path / ".git").write_text("gitdir: nowhere\n")
    with pytest.raises(UserError, match=r"\.git: not a git repository.*\. Mend the checkout\."):
        tracked_files(tmp_path)


def test_a_checkout_without_the_program_git_is_one_line(checkout, monkeypatch):
    monkeypatch.setenv("PATH", str(checkout))
    with pytest.raises(UserError, match="git: is not installed, but this is a git checkout"):
        tracked_files(checkout)


def test_files_of_this_project_are_all_here():
    files = tracked_files(ROOT)
    assert {"README.md", "Snakefile", "figures/observed.png", "tests/unit/provenance/test_tracked.py"} <= set(files)
    assert not [path for path in files if path.startswith(("results/", "resources/external/", "shared/"))]
