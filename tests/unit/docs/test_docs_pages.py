"""The pages of docs/ and those beside it: the start page lists them all, and their links lead somewhere."""

import re
from importlib.util import find_spec

import pytest

from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
STUDIES = sorted((ROOT / "workflow/studies").glob("*/README.md"))
LINKED = [
    *PAGES,
    *(ROOT / f"{name}.md" for name in ("README", "ARTIFACT", "CONTRIBUTING", "CHANGELOG", "resources/README")),
    *STUDIES,
]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page) -> set[str]:
    """The anchors of a page: its own, and those that its headings have on GitHub."""
    text = page.read_text()
    headings = (title.lower() for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    made = {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


def test_start_page_lists_every_page_once():
    listed = re.findall(r"^\* \[(\w+\.md)\]\((\w+\.md)\)", (ROOT / "docs/index.md").read_text(), re.MULTILINE)
    assert sorted(name for name, _ in listed) == [page.name for page in PAGES if page.name != "index.md"]
    assert all(name == target for name, target in listed)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files_and_anchors(page):
    for target in LINK.findall(page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_modules_that_commands_run_exist():
    files = [
        ROOT / "Makefile",
        *LINKED,
        *sorted((ROOT / "workflow").rglob("*.py")),
        *sorted((ROOT / "docs").glob("*.py")),
    ]
    named = {name for file in files for name in re.findall(r"python -m (prophet_moe[\w.]*\w)", file.read_text())}
    assert "prophet_moe.compile_kernels" in named
    assert [name for name in named if find_spec(name) is None] == []
