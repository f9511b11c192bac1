"""The ledger of claims as the page shows it: read strictly, counted by verdict, with the values of its pickers."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prophet_moe.errors import UserError
from prophet_moe.validation import REBUILD, read_csv

SHOWN = (
    *("id", "family", "document", "lines", "says", "unit", "claimed", "reported", "calibrated", "observed"),
    *("observed_on", "tolerance", "verdict", "reason", "rests_on", "evidence", "model", "gpu", "batch", "read_from"),
)
"""Columns of tables/claims.csv that the page shows; the file may have others."""
VERDICTS = {
    "reproduced": "computed again at the printed precision",
    "reproduced-by-fit": "a constant was fitted or forced: no evidence",
    "corrected": "true after a correction that is named",
    "contradicted": "computation or measurement says otherwise",
    "self-contradictory": "the reports contradict themselves",
    "definition": "defines a word or a formula",
    "not-evaluable": "needs data that do not exist publicly",
}
"""Verdicts in the order in which they are shown, and what they say."""
Claim = dict[str, str]


class VerdictCount(NamedTuple):
    """A verdict, how many claims have it, and what it says."""

    verdict: str
    count: int
    share_pct: float
    meaning: str


def read_claims(path: Path) -> list[Claim]:
    """Return the rows of the ledger; a missing column and an unknown verdict are UserErrors."""
    header: list[str] = []

    def known(found: list[str]) -> list[str]:
        header.extend(found)
        return found

    rows = [dict(zip(header, cells, strict=True)) for cells in read_csv(path, known)]
    if lacking := [name for name in SHOWN if name not in header]:
        raise UserError(str(path), f"has no column {lacking[0]!r}", REBUILD)
    for line, row in enumerate(rows, start=2):
        if row["verdict"] not in VERDICTS:
            problem = f"got {row['verdict']!r}, expected one of {', '.join(VERDICTS)}"
            raise UserError(f"{path}: line {line}: verdict", problem, REBUILD)
    return rows


def counts(claims: Sequence[Claim]) -> list[VerdictCount]:
    """Return how many claims have each verdict, in the order of VERDICTS, those without a claim too."""
    found = Counter(claim["verdict"] for claim in claims)
    return [
        VerdictCount(verdict, found[verdict], 100 * found[verdict] / max(1, len(claims)), meaning)
        for verdict, meaning in VERDICTS.items()
    ]


def values(claims: Sequence[Claim], column: str) -> list[str]:
    """Return the values of a column, sorted; a cell that lists several, separated by commas, counts for each."""
    return sorted({part for claim in claims for part in claim[column].split(", ") if part}, key=str.casefold)
