"""Citations of the reports' lines: each is told in docs/reports.md, and can be checked against the reports."""

import hashlib
import os
import re
from pathlib import Path

import pytest

from prophet_moe.printed import PRINTED_FILE, read_printed
from prophet_moe.provenance.tracked import tracked_files
from tests.conftest import ROOT

PAGE = ROOT / "docs/reports.md"
CITATION = re.compile(r"\b(00[0-4]):(\d+(?:-\d+)?)\b")
ENTRY = re.compile(r'^\* <a id="(00[0-4])-([\d-]+)"></a>(00[0-4]):([\d-]+)\b', re.MULTILINE)
DOCUMENT = re.compile(r"^\| (00[0-4]) \|.*\| (\d+) \| `([^`]*)` \|$", re.MULTILINE)
SEEDS = os.environ.get("PROPHET_SEEDS")
LEDGER = [ROOT / "config/claims.yaml", ROOT / "tables/claims.csv", ROOT / "tables/claims.json"]
LEDGER += [ROOT / "paper/generated/paper_numbers.tex", ROOT / "paper/generated/supplement.tex"]
"""The ledger tells the lines of its claims itself, one sentence for each claim, and so does what is made of it."""
needs_reports = pytest.mark.skipif(SEEDS is None, reason="PROPHET_SEEDS names no folder with the reports")


def tracked() -> list[Path]:
    """Every file of the project, as git or the manifest of an archive lists them."""
    return [ROOT / name for name in tracked_files(ROOT)]


def text_of(path: Path) -> str:
    """The text of a file; nothing of one that is deleted or holds no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError, IsADirectoryError):
        return ""


def entries() -> list[tuple[str, str]]:
    """Document and lines of every entry of the page, in order."""
    return [(document, lines) for _, _, document, lines in ENTRY.findall(PAGE.read_text())]


def report(document: str) -> Path:
    """The file of one report in the folder that PROPHET_SEEDS names."""
    (path,) = Path(SEEDS).glob(f"{document}_*.md")
    return path


def test_citations_and_entries_are_the_same():
    apart = (PAGE, Path(__file__), *LEDGER)
    cited = {found for path in tracked() if path not in apart for found in CITATION.findall(text_of(path))}
    assert len(cited) > 90
    assert cited == set(entries())


def test_entries_have_anchors_and_are_in_order():
    found = ENTRY.findall(PAGE.read_text())
    assert all((anchor, at) == (document, lines) for anchor, at, document, lines in found)
    assert len(set(entries())) == len(found) == PAGE.read_text().count("<a id=")
    places = [(document, *map(int, lines.split("-"))) for document, lines in entries()]
    assert places == sorted(places)


def test_documents_have_hashes_and_hold_their_entries():
    documents = {name: int(lines) for name, lines, _ in DOCUMENT.findall(PAGE.read_text())}
    assert list(documents) == ["000", "001", "002", "003", "004"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for *_, digest in DOCUMENT.findall(PAGE.read_text()))
    assert all(int(lines.split("-")[-1]) <= documents[document] for document, lines in entries())


def test_links_to_reports_have_an_anchor():
    anchors = {f"{document}-{lines}" for document, lines in entries()}
    pages = [path for path in tracked() if path.suffix in (".md", ".ipynb")]
    linked = {found for path in pages for found in re.findall(r"reports\.md#([\w-]+)", text_of(path))}
    assert linked and linked <= anchors


def test_no_private_notes_are_cited():
    apart = (Path(__file__), ROOT / "workflow")
    private = [path for path in tracked() if not path.is_relative_to(apart[1]) and path != apart[0]]
    assert not [path for path in private if re.search(r"\bfacts/\w", text_of(path))]


@needs_reports
def test_documents_are_those_of_the_page():
    for name, lines, digest in DOCUMENT.findall(PAGE.read_text()):
        assert hashlib.sha256(report(name).read_bytes()).hexdigest() == digest
        assert len(report(name).read_text(encoding="utf-8").splitlines()) == int(lines)


@needs_reports
def test_lines_that_hold_the_text_are_not_blank():
    for document, lines, moved in re.findall(
        r"</a>(00[0-4]):([\d-]+)(?: \(stands in lines? ([\d-]+)\))?\.", PAGE.read_text()
    ):
        text = report(document).read_text(encoding="utf-8").splitlines()
        ends = {int(end) for end in (moved or lines).split("-")}
        assert all(text[end - 1].strip() for end in ends), f"{document}:{lines}"


@needs_reports
def test_printed_numbers_stand_in_their_lines():
    for cell in read_printed(ROOT / PRINTED_FILE).itertuples():
        document, line = cell.source.split(":")
        text = report(document).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        printed = re.escape(cell.printed)
        found = re.search(rf"(?<![\d.]){printed}(?![\d]|\.\d)", text.replace(",", "").replace("−", "-"))
        assert found, f"{cell.source}: {cell.printed} ({cell.column})"
