"""What a claimed text states, and which values agree with it."""

import pytest

from prophet_moe.claims.claimed import agrees, in_words, parse_claimed


@pytest.mark.parametrize(
    ("text", "kind", "ends"),
    [
        ("99.2", "number", (99.2, 99.2)),
        ("-0.0072", "number", (-0.0072, -0.0072)),
        ("~400", "number", (400, 400)),
        ("1.2 to 2.2", "range", (1.2, 2.2)),
        ("<1.3", "bound", (float("-inf"), 1.3)),
        (">= 64", "bound", (64, float("inf"))),
        ("prophet only", "words", (0, 0)),
        ("yes", "flag", (0, 0)),
    ],
)
def test_forms_of_claims_are_told_apart(text, kind, ends):
    claimed = parse_claimed(text)
    assert (claimed.kind, claimed.ends) == (kind, ends)


@pytest.mark.parametrize(
    ("text", "found", "agree"),
    [
        ("4.0", 4.04, True),
        ("4.0", 4.06, False),
        ("4", 4.4, True),
        ("~400", 394.0, True),
        ("~400", 344.0, False),
        ("1.1", (1.06, 1.14), True),
        ("1.1", (1.0, 1.14), False),
        ("1.2 to 2.2", (1.21, 2.24), True),
        ("1.2 to 2.2", (1.4, 2.2), False),
        ("1.2 to 2.2", 1.4, True),
        ("<1.3", (0.0, 1.29), True),
        ("<1.3", 1.3, False),
        (">=64", 64.0, True),
        ("yes", True, True),
        ("yes", False, False),
        ("1", True, False),
        ("falls", "Falls", True),
        ("falls", "mixed", False),
        ("falls", 1.0, False),
    ],
)
def test_agreement_is_to_the_printed_precision(text, found, agree):
    assert agrees(parse_claimed(text), found) is agree


def test_a_wider_relative_tolerance_counts():
    claimed = parse_claimed("62.3")
    assert not agrees(claimed, 61.8)
    assert agrees(claimed, 61.8, relative=0.01)
    assert claimed.precision(0.01) == "1 %"
    assert claimed.precision(0) == "±0.05"


def test_a_range_may_be_one_that_values_lie_in():
    claimed = parse_claimed("1.2 to 2.2")
    assert agrees(claimed, (1.4, 2.0), within=True)
    assert not agrees(claimed, (1.0, 2.0), within=True)


@pytest.mark.parametrize(
    ("text", "found", "relative", "agree"),
    [
        ("2.3", (1.7, 3.2), 0.0, True),
        ("5.7", (0.2, 1.4), 0.0, False),
        ("1.4", (0.2, 1.36), 0.0, True),
        ("1.50", (1.2, 1.49), 0.01, True),
    ],
)
def test_a_number_may_be_one_that_an_interval_holds(text, found, relative, agree):
    assert agrees(parse_claimed(text), found, relative, within=True) is agree


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, ""), (True, "yes"), ((1.0, 2.5), "1 to 2.5"), ((0.0, 0.0), "0"), ("falls", "falls"), (1e6, "1e+06")],
)
def test_values_are_told_in_words(value, words):
    assert in_words(value) == words
