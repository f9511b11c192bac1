"""The archive: what it holds, the same bytes each time, and the same archive again where it is unpacked."""

import gzip
import hashlib
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from prophet_moe.errors import UserError
from prophet_moe.files import write_json
from prophet_moe.provenance import archive
from prophet_moe.provenance.tracked import MANIFEST, tracked_files
from tests.conftest import ROOT
from tests.unit.provenance.conftest import OUTPUTS, SOURCES

ARCHIVE = archive.FOLDER / "prophet-moe-1.2.3.tar.gz"
MADE = "paper/main.pdf"
"""An output that git does not track."""


@pytest.fixture(scope="module")
def packed(small_project) -> Path:
    """The archive of the small project, in which git does not track two files, of which one is an output."""
    for path in (MADE, "notes.txt"):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(path)
    Path(f"{MADE}.prov.json").write_text("{}")
    entities = [(path, "File") for path in (*OUTPUTS, MADE, f"{MADE}.prov.json", "#results/measured.csv")]
    entities += [("Snakefile", ["File", "SoftwareSourceCode"]), ("tables/", "Dataset"), ("#run", "CreateAction")]
    write_json(archive.CRATE, {"@graph": [{"@id": name, "@type": kind} for name, kind in entities]})
    archive.main()
    return small_project / ARCHIVE


@pytest.fixture
def unpacked(packed, tmp_path, monkeypatch) -> Path:
    """The folder of the unpacked archive, as the current folder."""
    with tarfile.open(packed) as tar:
        tar.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path / "prophet-moe-1.2.3")
    return Path.cwd()


def test_archive_holds_project_outputs_crate_and_lists(unpacked):
    held = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    outputs = {path for output in (*OUTPUTS, MADE) for path in (output, f"{output}.prov.json")}
    assert held == {*SOURCES, *outputs, MANIFEST, archive.SUMS, "ro-crate-metadata.json"}


def test_archive_lists_its_files_and_their_hashes(unpacked):
    listed = dict(reversed(line.split("  ", 1)) for line in Path(archive.SUMS).read_text().splitlines())
    there = {str(path.relative_to(unpacked)): path for path in unpacked.rglob("*") if path.is_file()}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in there.items()}
    assert listed == {name: digest for name, digest in hashes.items() if name != archive.SUMS}
    assert set(tracked_files(unpacked)) == set(there) - {
        archive.SUMS, MANIFEST, "ro-crate-metadata.json", MADE, f"{MADE}.prov.json"
    }  # fmt: skip


def test_an_unpacked_archive_makes_the_same_archive(packed, unpacked):
    archive.CRATE.parent.mkdir(parents=True)
    shutil.copy("ro-crate-metadata.json", archive.CRATE)
    for path in unpacked.rglob("*"):
        os.utime(path)
    archive.main()
    assert ARCHIVE.read_bytes() == packed.read_bytes()


def test_archive_names_no_owner_and_no_time_of_day(packed):
    with tarfile.open(packed) as tar:
        members = {member.name.partition("/")[2]: member for member in tar}
    assert list(members) == sorted(members)
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members.values()} == {(0, 0, "", "")}
    executable = {name for name, member in members.items() if member.mode == 0o755}
    assert executable == {"run.sh"}
    released = members["README.md"].mtime
    assert released % (24 * 3600) == 0
    older = {name for name, member in members.items() if member.mtime == released - 1}
    assert older == {path for output in (*OUTPUTS, MADE) for path in (output, f"{output}.prov.json")}
    assert {member.mtime for member in members.values()} == {released, released - 1}
    with gzip.open(packed) as stream:
        stream.read(1)
        assert stream.mtime == 0


def test_archive_says_its_hash_and_what_it_leaves_out(packed, monkeypatch, capsys):
    monkeypatch.chdir(packed.parents[2])
    archive.main()
    said = capsys.readouterr()
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    assert said.out.endswith(f"SHA-256 {digest}\n")
    assert packed.with_name(f"{packed.name}.sha256").read_text() == f"{digest}  {packed.name}\n"
    assert said.err == "note: not tracked by git, so left out: notes.txt\n"


def test_a_file_that_is_tracked_but_gone_is_one_line(small_project):
    with pytest.raises(UserError, match=r"gone\.md: no such file, but it belongs to the project\. Restore it"):
        archive.archive_files(["README.md", "gone.md"], b"{}", [])


def test_archive_before_the_crate_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"results/crate/ro-crate-metadata\.json: no such file\. .*: make archive$"):
        archive.main()


def test_archive_of_this_project_has_no_file_of_others(monkeypatch):
    monkeypatch.chdir(ROOT)
    tracked = tracked_files()
    held = archive.archive_files(tracked, b"{}", [])
    assert set(held) - set(tracked) == {"ro-crate-metadata.json", MANIFEST, archive.SUMS}
