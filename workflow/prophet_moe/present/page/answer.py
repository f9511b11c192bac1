"""The answer at the top of the page: sentences and key numbers, from the records and tables of the build."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

NO_SENTENCE = "The records of this build allow no comparison in time."
QUANTITIES = {
    "Weights": "weights on a GPU",
    "KvTokens": "tokens of KV cache",
    "StepTime": "time of a decode step",
    "HitRate": "hit rate of an expert cache",
}
"""Quantities whose median error is told, by the beginning of their names in `observed_numbers`, and their words."""


class KeyNumber(NamedTuple):
    """A number that stands out, and what it says."""

    value: str
    meaning: str


def lead(numbers: Mapping[str, str]) -> str:
    """Return the answer in two sentences; `numbers` are the default scenario's, and those of table 11 if built."""
    first = (
        f"By memory alone the context grows to {numbers['MedianExtensionFitting']}x, the median of "
        f"{numbers['BothRows']} configurations."
    )
    if "PriceProphetClaimedMedian" not in numbers:
        return f"{first} {NO_SENTENCE}"
    second = (
        f"Within {numbers['ClaimedSlowdown']}x the time, which is the price that the report states, it grows to "
        f"{numbers['PriceProphetClaimedMedian']}x with Prophet"
    )
    others = {"OnDemand": "without any prediction", "PerfectPrefetch": "with an oracle"}
    told = [
        f"{numbers[f'Price{name}ClaimedMedian']}x {words}"
        for name, words in others.items()
        if f"Price{name}ClaimedMedian" in numbers
    ]
    return f"{first} {_listed([second, *told])}."


def key_numbers(numbers: Mapping[str, str], reported: Mapping[str, str]) -> list[KeyNumber]:
    """Return the numbers that stand below the answer; `reported` are those of the report's own constants, or empty."""
    found = [KeyNumber(f"{numbers['MedianExtensionFitting']}x", "context by memory alone, median")]
    if "PriceProphetClaimedMedian" in numbers:
        limit = numbers["ClaimedSlowdown"]
        found.append(KeyNumber(f"{numbers['PriceProphetClaimedMedian']}x", f"context within {limit}x the time, median"))
    if reported:
        meaning = "median by the report's own constants, which are fitted to its results: no evidence"
        found.append(KeyNumber(f"{reported['MedianExtensionFitting']}x", meaning))
    states = f"{numbers['ProphetOnlyRows']} of {numbers['GridRows']}"
    found.append(KeyNumber(states, "configurations fit only with experts in host memory"))
    return found


def against_observations(numbers: Mapping[str, str]) -> str:
    """Return how far predictions are from public measurements; empty where none were compared."""
    errors = [_error(numbers, name, words) for name, words in QUANTITIES.items()]
    told = [error for error in errors if error]
    if not told:
        return ""
    count = sum(int(numbers[f"Observed{name}Rows"]) for name in QUANTITIES if f"Observed{name}Rows" in numbers)
    return f"Median errors over {count} public observations: {_listed(told)}."


def _error(numbers: Mapping[str, str], name: str, words: str) -> str:
    if f"Observed{name}Median" not in numbers:
        return ""
    unit = "points" if name == "HitRate" else "%"
    return f"{words} {numbers[f'Observed{name}Median']} {unit}"


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else parts[0]
