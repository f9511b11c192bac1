"""The paper's text: numbers are macros of generated files, floats are placed and told of, references are used."""

import re

import pandas as pd
import pytest

from prophet_moe.present.latex import in_letters
from prophet_moe.present.paper_numbers import CONSEQUENTIAL, made_lines
from tests.conftest import ROOT

PAPER, LEDGER = ROOT / "paper", ROOT / "tables/claims.csv"
TEXT = re.sub(r"(?<!\\)%.*", "", (PAPER / "main.tex").read_text())
PREAMBLE, BODY = TEXT.split(r"\begin{document}")
NAMES = {
    "NVLink-C2C": "a link",
    "S3-FIFO": "a policy of caches",
    "A100": "a GPU",
    "H100": "a GPU",
    "H200": "a GPU",
    "4-bit": "a format of numbers",
    "16-bit": "a format of numbers",
    "16 bits": "a format of numbers",
}
"""The only words with digits in the prose, and what each names: none is a result."""
COMMANDS = (
    *("label", "ref", "cref", "Cref", "eqref", "cite", "input", "includegraphics", "texttt", "bibliography"),
    *("begin", "end", "vspace", "made"),
)
"""Commands whose arguments are no prose."""
SHAPE = re.compile(r"[012]")
"""Digits that a formula may have: they are its shape, no result."""


def generated() -> str:
    """The generated files that the paper reads."""
    return "\n".join(
        (PAPER / f"{name}.tex").read_text() for name in re.findall(r"\\input\{(generated/\w+)\}", PREAMBLE)
    )


def formulas(text: str) -> list[str]:
    """Return the displayed and inline formulas of a LaTeX text, as written."""
    return re.findall(r"\\begin\{equation\}.*?\\end\{equation\}|\$[^$]*\$", text, re.DOTALL)


def prose(text: str) -> str:
    """The text without formulas, arguments that are no prose, layouts of tables, and the names that may hold digits."""
    for formula in formulas(text):
        text = text.replace(formula, " ")
    text = re.sub(r"\\begin\{tabular\}\{(?:[^{}]|\{[^{}]*\})*\}", " ", text)
    text = re.sub(r"\\multicolumn\{\d+\}|\\Show\w+\[[\d.]+\]|\\section\*?|\[t\]|\[1\]", " ", text)
    text = re.sub(rf"\\(?:{'|'.join(COMMANDS)})\*?(?:\[[^\]]*\])?\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}", " ", text)
    text = re.sub(r"\\setlength(?:\\\w+|\{[^{}]*\})\{[^{}]*\}", " ", text)
    for name in sorted(NAMES, key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", " ", text)
    return text


def test_no_number_of_the_prose_is_typed_in():
    typed = re.findall(r".{0,40}\d.{0,20}", prose(BODY))
    assert typed == [], "make it a macro of workflow/prophet_moe/present/paper_numbers.py"


@pytest.mark.parametrize("text", ["off by 7.1\\,\\%", "the 12 models", "Mixtral-8x7B gains", "a limit of 1.2 times"])
def test_a_typed_in_number_is_found(text):
    """The test above finds what it is for, and model names as well, which are results where they stand."""
    assert re.search(r"\d", prose(text))


def test_formulas_hold_no_results():
    for formula in formulas(BODY):
        digits = re.findall(r"\d+", re.sub(r"\\label\{[^}]*\}", "", formula))
        assert all(SHAPE.fullmatch(number) for number in digits), formula


def test_every_macro_of_the_text_is_defined():
    defined = set(re.findall(r"\\newcommand\{\\(\w+)\}", generated() + PREAMBLE))
    text = BODY if LEDGER.exists() else re.sub(r"\\ifdefined.*?\\fi\b", "", BODY, flags=re.DOTALL)
    used = set(re.findall(r"\\([A-Z][A-Za-z]+)", text)) - {"Cref", "Big"}
    assert used - defined == set(), "built anew? snakemake --cores 8 paper/main.pdf"


def test_every_float_is_placed_and_told_of():
    shown = set(re.findall(r"\\Show(\w+)", BODY))
    text = generated()
    labels = {
        match[1]: match[2]
        for match in re.finditer(r"\\newcommand\{\\Show(\w+)\}.*?\\label\{([^}]*)\}", text, re.DOTALL)
    }
    told = {name.strip() for names in re.findall(r"\\[cC]ref\{([^}]*)\}", BODY) for name in names.split(",")}
    assert shown and {labels[name] for name in shown} <= told
    own = set(re.findall(r"\\label\{((?:fig|tab|eq|sec):[^}]*)\}", BODY))
    assert {name for name in own if name.startswith("tab:")} <= told
    assert told <= own | {labels[name] for name in shown}


def test_a_line_says_what_made_each_float():
    """Each figure and table names its script, its data and eight digits of the code behind it."""
    made = dict(re.findall(r"\\newcommand\{\\Made(\w+)\}\{(.*)\}$", generated(), re.MULTILINE))
    placed = set(re.findall(r"\\Show(\w+)", BODY)) | set(re.findall(r"\\made\{(\w+)\}", BODY))
    assert placed <= set(made)
    for name in placed - {"TableClaims", "TableNamedClaims"}:
        assert re.search(r"from \\texttt\{tables/.+code \\texttt\{[0-9a-f]{8}\}", made[name]), name


def test_every_reference_is_cited_and_every_citation_known():
    entries = re.findall(r"^@\w+\{(\w+),", (PAPER / "references.bib").read_text(), re.MULTILINE)
    cited = {name.strip() for names in re.findall(r"\\cite\{([^}]*)\}", BODY) for name in names.split(",")}
    assert len(entries) == len(set(entries))
    assert set(entries) == cited


def test_every_reference_can_be_found():
    """An entry has a title, a year, and an address, a venue or the package that it is."""
    for entry in (PAPER / "references.bib").read_text().split("\n@"):
        assert re.search(r"\btitle = ", entry) and re.search(r"\byear = \{\d{4}\}", entry), entry
        assert re.search(r"\b(url|journal|booktitle|howpublished) = ", entry), entry


def test_consequential_claims_stand_in_the_ledger():
    known = pd.read_csv(LEDGER, dtype=str)["id"] if LEDGER.exists() else pd.Series(CONSEQUENTIAL)
    assert set(CONSEQUENTIAL) <= set(known)


def test_made_lines_break_and_escape_paths():
    line = made_lines({"where_it_pays": ("rule a_b", ["tables/x_y.csv"], "0123abcd")})[
        f"Made{in_letters('where_it_pays')}"
    ]
    assert line.startswith(r"Made by \texttt{rule a\_\allowbreak{}b} from \texttt{tables/\allowbreak{}x\_")
    assert line.endswith(r"code \texttt{0123abcd}.")
