"""Files are written whole or not at all, on a full disk too."""

import os
import subprocess
from pathlib import Path

import pytest

from prophet_moe.errors import UserError
from prophet_moe.files import atomic_write, canonical_hash, sha256, write_text


@pytest.fixture
def small_disk(tmp_path) -> Path:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_line_and_keeps_what_was_there(small_disk):
    path = small_disk / "record.csv"
    write_text(path, "old\n")
    with pytest.raises(UserError, match=r"record\.csv: could not be written: the disk is full") as raised:
        write_text(path, "x" * 200_000)
    assert "\n" not in str(raised.value)
    assert path.read_text() == "old\n"
    assert os.listdir(small_disk) == ["record.csv"]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    path = tmp_path / "record.csv"
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_way_is_one_line(tmp_path):
    (tmp_path / "record.csv").mkdir()
    with pytest.raises(UserError, match=r"record\.csv: could not be used"):
        write_text(tmp_path / "record.csv", "text")


def test_hashes(tmp_path):
    write_text(tmp_path / "empty", "")
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert canonical_hash({"a": 1, "b": [2]}) == canonical_hash({"b": [2], "a": 1})
    assert canonical_hash({"a": 1}) != canonical_hash({"a": 2})
    with pytest.raises(UserError, match="missing"):
        sha256(tmp_path / "missing")
