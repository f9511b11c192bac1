"""The ledger of claims as the page shows it: counted by verdict, with the values of its list boxes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Claim = Mapping[str, str]
"""A row of the ledger, all of its cells text."""


class VerdictCount(NamedTuple):
    """A verdict, how many claims have it, and what it says."""

    verdict: str
    count: int
    share_pct: float
    meaning: str


def counts(claims: Sequence[Claim], meanings: Mapping[str, str]) -> list[VerdictCount]:
    """Return how many claims have each verdict of `meanings`, in their order, those without a claim too."""
    found = Counter(claim["verdict"] for claim in claims)
    return [
        VerdictCount(verdict, found[verdict], 100 * found[verdict] / max(1, len(claims)), meaning)
        for verdict, meaning in meanings.items()
    ]


def values(claims: Sequence[Claim], column: str) -> list[str]:
    """Return the values of a column, sorted; a cell that lists several, separated by commas, counts for each."""
    return sorted({part for claim in claims for part in claim[column].split(", ") if part}, key=str.casefold)
