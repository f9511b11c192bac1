"""The numbers that only the paper quotes: counts of claims for any ledger, and rows as the figures select them."""

import pandas as pd
import pytest

from prophet_moe.present import paper_numbers
from prophet_moe.present.latex import escape, figure, in_letters
from prophet_moe.present.paper_numbers import VERDICTS, claim_numbers


def ledger(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    """A ledger of claims with these ids, bases, documents and verdicts; all else is the same text."""
    made = pd.DataFrame(rows, columns=["id", "rests_on", "document", "verdict"])
    values = {"lines": "000:24", "says": "A % of x_y.", "unit": "%", "claimed": "9", "calibrated": "7", "observed": ""}
    return made.assign(**values)


SAMPLE = ledger(
    ("a.one", "counted", "000", "reproduced"),
    ("a.two", "counted", "000", "reproduced-by-fit"),
    ("b.one", "estimated", "001", "contradicted"),
    ("b.two", "estimated", "001", "self-contradictory"),
    ("c.one", "", "004", "definition"),
    ("c.two", "", "004", "not-evaluable"),
)


def test_claims_are_counted_by_verdict_and_document():
    numbers = claim_numbers(SAMPLE, ())
    assert (numbers["ClaimsTotal"], numbers["ClaimsDocuments"]) == ("6", "3")
    assert (numbers["ClaimsJudged"], numbers["ClaimsReproduced"], numbers["ClaimsHoldPct"]) == ("4", "1", "25")
    assert numbers["ClaimsSelfContradictory"] == numbers["ClaimsNotEvaluable"] == "1"
    assert numbers["ClaimsCorrected"] == "0"
    *documents, every = [row.split(" & ") for row in numbers["ClaimDocumentRows"].removesuffix(r"\\").split(r" \\ ")]
    assert [row[0] for row in documents] == ["000, report", "001, summary", "004, strategies"]
    assert [row[-1].strip() for row in documents] == ["2", "2", "2"]
    assert every[0] == "all"
    heads = [*numbers["ClaimVerdicts"].split(" & "), "all"]
    counted = dict(zip(heads, (cell.strip() for cell in every[1:]), strict=True))
    assert counted == dict.fromkeys(VERDICTS, "1") | {"corrected": "0", "all": "6"}


def test_claims_are_counted_by_what_they_rest_on():
    rows = claim_numbers(SAMPLE, ())["ClaimBasisRows"].removesuffix(r"\\").split(r" \\ ")
    assert [row.split(" & ")[0] for row in rows] == ["counted", "estimated", "nothing"]
    assert [row.split(" & ")[-1].strip() for row in rows] == ["2", "2", "2"]


def test_named_claims_show_what_is_found_and_skip_unknown_ids():
    rows = claim_numbers(SAMPLE, ("b.one", "not.there"))["ClaimNamedRows"]
    assert rows == r"A \% of x\_y. & 9\% & 7\% & contradicted & 000:24 \\"
    observed = SAMPLE.assign(observed="0.150245 to 99.3683", lines="002:111, 002:112, 002:113, 000:24")
    told = claim_numbers(observed, ("b.one",))["ClaimNamedRows"]
    assert r"& 0.15 to 99.4\% &" in told and "& 002:111, 002:112 and 2 more" in told


def test_a_ledger_without_judged_claims_has_no_share():
    assert claim_numbers(SAMPLE.iloc[4:], ())["ClaimsHoldPct"] == "--"


def test_every_verdict_has_a_macro_of_letters():
    names = [f"Claims{in_letters(verdict.replace('-', '_'))}" for verdict in VERDICTS]
    assert all(name.isalpha() for name in names) and set(names) <= set(claim_numbers(SAMPLE, ()))


@pytest.mark.parametrize(
    ("name", "letters"),
    [("several_gpus", "SeveralGpus"), ("figure2_kv", "FigureTwoKv"), ("int8_weights", "IntEightWeights")],
)
def test_names_become_letters(name, letters):
    assert in_letters(name) == letters


def test_characters_that_latex_reads_as_commands_are_escaped():
    assert escape("~5 % ≥ a_b^2 & {c}") == r"\textasciitilde{}5 \% $\ge$ a\_b\textasciicircum{}2 \& \{c\}"


def test_a_figure_is_a_macro_that_the_text_places():
    wide = figure("several_gpus", "../figures/x.pdf", "50 % of x_y.", "fig:several_gpus", 7.0)
    assert wide.startswith(r"\newcommand{\ShowSeveralGpus}[1][1]{%" + "\n" + r"\begin{figure*}[t]")
    assert r"\caption{50 \% of x\_y.}" in wide and r"\made{SeveralGpus}" in wide
    assert r"\begin{figure}[t]" in figure("a", "a.pdf", "A.", "fig:a", 3.33)


def test_break_even_numbers_tell_machines_from_slow_to_fast():
    """Medians over models by GPU and link, and the pairs that hold enough slots."""
    rows = pd.DataFrame(
        {
            "model": ["m", "n", "m", "n"],
            "gpu": ["G", "G", "H", "H"],
            "link": ["PCIe 5", "PCIe 5", "NVLink-C2C", "NVLink-C2C"],
            "link_basis": "measured",
            "link_ratio": [0.01, 0.03, 0.1, 0.1],
            "hit_rate_needed": [0.98, 0.96, 0.9, 0.8],
            "resident_share_needed": [0.8, 0.6, 0.5, 0.3],
            "resident_share_prefetched": [0.4, 0.2, 0.1, 0.1],
            "expert_share": 0.25,
            "state": ["slots", "too_slow", "all_fit", "all_fit"],
            "slots_max_context": [0, 0, 300, 110],
            "baseline_max_context": [0, 0, 100, 100],
            "simulated_slowdown": [None, None, 1.1, None],
            "closed_form_slowdown": [None, None, 1.21, None],
        }
    )
    numbers = paper_numbers.pays_numbers(rows, 1.2)
    slow, fast = numbers["PaysMachineRows"].removesuffix(r"\\").split(r" \\ ")
    assert slow == "G & PCIe 5 & 0.0200 & 97.0 & 70 & 30"
    assert fast.strip() == "H & NVLink-C2C & 0.1000 & 85.0 & 40 & 10"
    assert (numbers["PaysPart"], numbers["PaysHeld"], numbers["PaysDoubled"]) == ("2", "1", "1")
    assert (numbers["PaysPrefetchFactor"], numbers["PaysLawWorst"]) == ("6", "10")
