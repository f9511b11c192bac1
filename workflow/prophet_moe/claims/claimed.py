"""What a claim states: a number with its printed precision, a range, a bound, yes or no, or words."""

import re
from dataclasses import dataclass

from prophet_moe.printed import number_printed

Value = float | bool | str | tuple[float, float]
"""What an evaluator returns: a number, yes or no, words, or the least and the largest of several numbers."""

NUMBER = re.compile(r"~?[-+]?\d+(?:\.\d+)?")
RANGE = re.compile(rf"({NUMBER.pattern}) to ({NUMBER.pattern})")
BOUND = re.compile(rf"(<=|>=|<|>) ?({NUMBER.pattern})")
WORDS_OF = {"yes": True, "no": False}
EXACT = 1.0001
"""Widens half a digit by rounding errors of binary fractions."""


@dataclass(frozen=True)
class Claimed:
    """A claimed value. `half` is half a unit of its last printed digit; `ends` are those of a range or bound."""

    text: str
    kind: str
    """number, range, bound, flag or words."""
    value: float = 0.0
    half: float = 0.0
    ends: tuple[float, float] = (0.0, 0.0)

    def slack(self, of: float, relative: float) -> float:
        """Return by how much a value may differ from `of`: the printed precision, or a larger relative tolerance."""
        return max(self.half * EXACT, relative * abs(of))

    def precision(self, relative: float) -> str:
        """Return the tolerance in words; nothing for words and flags."""
        if self.kind in ("flag", "words"):
            return ""
        largest = max(abs(self.value), *map(abs, (end for end in self.ends if abs(end) != float("inf"))))
        return f"{100 * relative:g} %" if relative * largest > self.half * EXACT else f"±{self.half:g}"


def parse_claimed(text: str) -> Claimed:
    """Return what a claimed text states: `99.2`, `~400`, `1.2 to 2.2`, `<1.3`, `>= 64`, `yes`, `no`, or other words."""
    text = text.strip()
    if text in WORDS_OF:
        return Claimed(text, "flag")
    if NUMBER.fullmatch(text):
        value, half = number_printed(text)
        return Claimed(text, "number", value, half, (value, value))
    if match := RANGE.fullmatch(text):
        (low, half_low), (high, half_high) = map(number_printed, match.groups())
        return Claimed(text, "range", high, max(half_low, half_high), (low, high))
    if match := BOUND.fullmatch(text):
        limit, half = number_printed(match[2])
        ends = (float("-inf"), limit) if match[1].startswith("<") else (limit, float("inf"))
        return Claimed(text, "bound", limit, half, ends)
    return Claimed(text, "words")


def agrees(claimed: Claimed, found: Value, relative: float = 0.0, within: bool = False) -> bool:
    """Return whether a value is what is claimed.

    A number is that claimed to its printed precision, or to a relative tolerance where that is wider; several numbers
    agree with one where all do, or, where `within` is set, as an interval that holds it. A claimed range agrees with
    several numbers that span it, or, where `within` is set, that lie in it; with one number that lies in it. A bound
    holds for every number. Words are compared without case.
    """
    if isinstance(found, bool) or claimed.kind == "flag":
        return isinstance(found, bool) and claimed.kind == "flag" and found == WORDS_OF[claimed.text]
    if isinstance(found, str) or claimed.kind == "words":
        return isinstance(found, str) and found.casefold() == claimed.text.casefold()
    low, high = found if isinstance(found, tuple) else (found, found)
    if claimed.kind == "number":
        slack = claimed.slack(claimed.value, relative)
        if within:
            return low - slack <= claimed.value <= high + slack
        return abs(low - claimed.value) <= slack and abs(high - claimed.value) <= slack
    least, most = claimed.ends
    if claimed.kind == "bound":
        strict = claimed.text.startswith(("<", ">")) and not claimed.text.startswith(("<=", ">="))
        return least < low and high < most if strict else least <= low and high <= most
    slack_low, slack_high = (claimed.slack(end, relative) for end in claimed.ends)
    if isinstance(found, tuple) and not within:
        return abs(low - least) <= slack_low and abs(high - most) <= slack_high
    return least - slack_low <= low and high <= most + slack_high


def in_words(value: Value | None) -> str:
    """Return a value as the ledger prints it, alike ends of a range once; nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        low, high = map(in_words, value)
        return low if low == high else f"{low} to {high}"
    return value if isinstance(value, str) else f"{value:.6g}"
