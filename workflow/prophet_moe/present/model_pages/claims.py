"""The section of a model's page on what the reports claim about it."""

from collections import Counter
from typing import Any

import pandas as pd

from prophet_moe.present.model_pages.words import NONE, counted, listed, section


def claims_section(claims: pd.DataFrame | None) -> dict[str, Any]:
    """Return the section on the claims about a model, whose rows of the ledger are given; None: it was not made."""
    heading = "Claims about it"
    if claims is None:
        return section(heading, ["The ledger of claims was not made in this build."])
    if claims.empty:
        return section(heading, [verdicts(claims)])
    text = [
        verdicts(claims),
        "Found is what was observed, else what the default scenario gives, else what the report's own constants give.",
    ]
    rows = [
        [
            row.id,
            row.says,
            " ".join(filter(None, (row.claimed, row.unit))),
            row.observed or row.calibrated or row.reported or NONE,
            row.verdict,
        ]
        for row in claims.itertuples()
    ]
    return section(heading, text, ["id", "claim", "claimed", "found", "verdict"], rows)


def verdicts(claims: pd.DataFrame) -> str:
    """Return a sentence with the number of claims by verdict, the most frequent first."""
    if claims.empty:
        return "The ledger has no claim of the reports about it."
    counts = sorted(Counter(claims["verdict"]).items(), key=lambda each: (-each[1], each[0]))
    told = listed(f"{count} {verdict}" for verdict, count in counts)
    return f"Verdicts on the {counted(len(claims), 'claim')} of the reports about it: {told}."
