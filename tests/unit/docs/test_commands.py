"""The commands that README, ARTIFACT, CONTRIBUTING, docs/ and pages of studies show: each could be run as written.

Nothing is run: programs, subcommands, options, targets and files exist, and values are accepted.
"""

import re
import shlex
from collections.abc import Callable

import pytest
from snakemake.cli import get_argument_parser

from prophet_moe.cli.main import command_line
from prophet_moe.collect.__main__ import command_line as collector
from prophet_moe.errors import UserError
from tests.conftest import ROOT
from tests.workflow.rules import FILES, RULES, STUDIES

PAGES = [
    *(ROOT / name for name in ("README.md", "ARTIFACT.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/examples").rglob("*.md")),
    *sorted((ROOT / "workflow/studies").glob("*/README.md")),
]
FENCED = re.compile(r"^ *```\w*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
PLACEHOLDERS = {
    "FORMAT": "counts",
    "OUTPUT": "tables/table2_average_extension.csv",
    "mine.yaml": "config/overlays/small.yaml",
    "...": "MODEL --prompts prompts.jsonl --out DIR",
}
"""What stands for something that has to exist, and what it may stand for."""
OF_EXAMPLES = {"followers": "on_demand", "token_lines": "lines"}
"""Names that a reader of CONTRIBUTING.md adds, and others of their kind."""


def written(text: str) -> list[str]:
    """What may be a command on a page: lines of code, joined where they go on, and code within sentences."""
    blocks = FENCED.findall(text)
    prose = FENCED.sub("", text)
    indented = re.findall(r"^    (.+)$", prose, re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [*lines, *indented, *(" ".join(code.split()) for code in INLINE.findall(prose))]


def commands(text: str) -> list[list[str]]:
    """The commands of a page that begin with one of PROGRAMS, as words; what `&&` joins is taken apart."""
    found = []
    for code in written(text):
        for part in code.split(" && "):
            words = re.sub(r"^(?:\w+=\S* )*(?:\.venv(?:-gpu)?/bin/)?", "", part)
            if re.match(rf"(?:{'|'.join(PROGRAMS)})\b(?![./-])", words):
                filled = " ".join(PLACEHOLDERS.get(word, word) for word in words.split())
                found.append(shlex.split(filled, comments=True))
    return found


def of_library(words: list[str], parser: Callable) -> None:
    """Parse the words after the program; a command that is only named, without its arguments, may lack them."""
    try:
        parser().parse_args([OF_EXAMPLES.get(word, word) for word in words])
    except UserError as error:
        named = not any(word.startswith("-") for word in words)
        assert named and "the following arguments are required" in str(error), error
    except SystemExit as end:
        assert end.code == 0, words


def of_prophet_moe(words: list[str]) -> None:
    """Check a command of `prophet-moe`."""
    of_library(words, command_line)


def of_python(words: list[str]) -> None:
    """Check a script, or a subcommand of the collector; other modules are checked in test_docs_pages.py."""
    if words[:2] == ["-m", "prophet_moe.collect"]:
        of_library(words[2:] if len(words) > 3 else [*words[2:], "--help"], collector)
    elif words[0] not in ("-m", "-c"):
        assert (ROOT / words[0]).is_file(), words


def of_make(words: list[str]) -> None:
    """Check the targets and variables of `make`."""
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, given, _ = word.partition("=")
        pattern = rf"\$\(?{name}\b|^(?:export )?{name} [:?]=" if given else rf"^{re.escape(name)}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"make knows no {word}"


def of_snakemake(words: list[str]) -> None:
    """Check options, overlays and targets: rules, outputs of studies, and paths that a rule names."""
    try:
        given = get_argument_parser().parse_args(words)
    except SystemExit:
        raise AssertionError(words) from None
    for overlay in given.configfile:
        assert (ROOT / overlay).is_file(), overlay
    for target in given.targets:
        assert target in {*TARGETS, "all", "essentials"} or any(re.fullmatch(path, target) for path in PATHS), target


def of_pytest(words: list[str]) -> None:
    """Check that the tests exist."""
    for word in words:
        assert word.startswith("-") or (ROOT / word).exists(), word


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "prophet-moe": of_prophet_moe,
    "python": of_python,
    "make": of_make,
    "snakemake": of_snakemake,
    "pytest": of_pytest,
}
TARGETS = set(RULES) | {
    path.format(scenario_dir="")
    for study in STUDIES.values()
    for path in (
        *(table.path for table in study.declared),
        *(f"{figure.path}.{kind}" for figure in study.figures for kind in ("pdf", "png")),
    )
}
NAMED = {path for file in FILES for path in re.findall(r'"((?:tables|figures|paper|results)/[^"]+)"', file.read_text())}
PATHS = {re.sub(r"\\{\w+\\}", "[^/]*/?", re.escape(path)) for path in NAMED}
"""Paths in the rules, as patterns: a wildcard may be a folder, or nothing."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_exist(page):
    for program, *words in commands(page.read_text()):
        PROGRAMS[program](words)


def test_commands_are_found_in_code_and_sentences():
    text = "Run `make lint` or\n`snakemake\n--cores 2 verify`, not `make_it`.\n\n    prophet-moe models  # all\n\n"
    text += "```\nPYTHONPATH=workflow python -m prophet_moe.collect memory --out DIR\ngit status && pytest tests\n```\n"
    found = [" ".join(words) for words in commands(text)]
    assert found == [
        "python -m prophet_moe.collect memory --out DIR",
        "pytest tests",
        "prophet-moe models",
        "make lint",
        "snakemake --cores 2 verify",
    ]


@pytest.mark.parametrize(
    "command",
    [
        "prophet-moe modl",
        "prophet-moe capacity --model X --gpus Y",
        "prophet-moe trace import parquet SOURCE --model X --out DIR",
        "prophet-moe sim run --trace X",
        "python -m prophet_moe.collect hardwar --out DIR",
        "python benches/none.py",
        "make everything",
        "make fuzz FUZZ_FACTORS=5",
        "snakemake --core 8 figures/frontier.png --unlok",
        "snakemake --cores 8 figures/frontier.svg",
        "snakemake --cores 8 --configfile config/overlays/none.yaml",
        "pytest tests/none.py",
    ],
)
def test_a_command_that_does_not_exist_is_found(command):
    ((program, *words),) = commands(f"`{command}`")
    with pytest.raises(AssertionError):
        PROGRAMS[program](words)
