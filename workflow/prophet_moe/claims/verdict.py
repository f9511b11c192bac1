"""Judge a claim: from what it states and what was found, by one rule for all claims."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from prophet_moe.claims.claimed import Value, agrees, in_words
from prophet_moe.claims.evaluators import Absent, Tables, Undefined, evaluated
from prophet_moe.claims.ledger import Claim

VERDICTS = {
    "reproduced": "What was recorded, else what the calibrated scenario gives, is what is claimed.",
    "corrected": "It is true after a correction that is named.",
    "reproduced-by-fit": "Only constants that were fitted to the claim, or forced, give it: no evidence.",
    "contradicted": "What was recorded, else what the calibrated scenario gives, is something else.",
    "self-contradictory": "It is not so, and the reports' own constants or other statements give something else.",
    "definition": "It defines something, or chooses a setting, and is neither right nor wrong.",
    "not-evaluable": "Nothing that can be had decides it.",
}
"""Verdicts, from the best for the reports to the worst, and what each means."""
FITTED = ("fitted", "forced")
"""Evidence of constants that were chosen so that the claim comes out."""
EXACTLY = ("counted", "arithmetic", "")
"""What a value rests on where no tolerance beside the printed precision is due."""


@dataclass(frozen=True)
class Found:
    """A value found for a claim; None with a reason where there is none."""

    value: Value | None
    reason: str = ""
    absent: bool = False
    """Whether this build lacks the rows, as one of fewer models."""


@dataclass(frozen=True)
class Judged:
    """A claim with what was found, its verdict and the reason."""

    claim: Claim
    found: Mapping[str, Found]
    """By binding: reported, calibrated, observed, against, corrected."""
    verdict: str
    reason: str
    tolerance: str
    rests_on: str


def judge_all(claims: list[Claim], tables: Tables, estimated_tolerance: float) -> list[Judged]:
    """Return every claim judged.

    Parameters
    ----------
    claims : list of Claim
        All claims; some refer to numbers that others state.
    tables : Tables
        The finished tables.
    estimated_tolerance : float
        Relative difference up to which an estimated, assumed or simulated value agrees with a claim.
    """
    stated = {claim.id: claim.stated.value for claim in claims}
    return [_judged(claim, tables, stated, estimated_tolerance) for claim in claims]


def _judged(claim: Claim, tables: Tables, stated: Mapping[str, float], estimated_tolerance: float) -> Judged:
    def find(binding: Mapping[str, Any]) -> Found:
        try:
            return Found(evaluated(binding, tables, stated.__getitem__))
        except Undefined as undefined:
            return Found(None, str(undefined), isinstance(undefined, Absent))
        except (KeyError, ValueError, TypeError) as mistake:
            raise ValueError(f"claim {claim.id}: {mistake}") from mistake

    found = {name: find(binding) for name, binding in claim.bindings.items()}
    rests_on = claim.rests_on or ""
    if isinstance(rests_on, dict):
        rests_on = in_words(find(rests_on).value)
    loose = 0.0 if rests_on in EXACTLY else estimated_tolerance
    tolerance = loose if claim.tolerance is None else claim.tolerance
    verdict, reason = _verdict(claim, found, tolerance)
    if claim.note:
        reason = f"{reason} {claim.note}"
    return Judged(claim, found, verdict, reason, claim.stated.precision(tolerance), rests_on)


def _verdict(claim: Claim, found: Mapping[str, Found], tolerance: float) -> tuple[str, str]:
    """Return verdict and reason; the order of the cases is the rule."""
    holds = {
        name: each.value is not None and agrees(claim.stated, each.value, _slack(claim, name, tolerance), claim.within)
        for name, each in found.items()
    }
    told = {name: _told(claim, name, value) for name, value in found.items()}
    deciding = next((name for name in ("observed", "calibrated") if _decides(found.get(name))), "")
    own = [name for name in ("reported", "against") if name in found and found[name].value is not None]
    fitted = claim.evidence in FITTED
    denied = [name for name in own if not holds[name] and not (name == "reported" and fitted)]
    if claim.definition:
        shown = deciding or next(iter(own), "")
        if not shown or holds[shown]:
            return "definition", told.get(shown, "The reports state it to define their terms.")
    if claim.needs and not deciding:
        return "not-evaluable", f"It would need {claim.needs}."
    if deciding and holds[deciding]:
        return "reproduced", _all([told[deciding], *(told[name] for name in denied)])
    if holds.get("corrected"):
        return "corrected", f"It holds {claim.corrected.by}: {_short(found['corrected'].value)}{_unit(claim)}."
    if denied:
        return "self-contradictory", _all([told[name] for name in (*denied, *filter(None, [deciding]))])
    fits = fitted and holds.get("reported", False)
    if fits and (not deciding or found[deciding].value is None):
        return "reproduced-by-fit", _all(
            [f"{told['reported']} Its constants were {_chosen(claim)}.", told.get(deciding)]
        )
    if deciding:
        return "contradicted", _all([told[deciding], *(_but(claim, name, fitted) for name in own if holds[name])])
    if any(holds[name] for name in own):
        return "reproduced", told[next(name for name in own if holds[name])]
    if own:
        return "contradicted", f"{told[own[0]]} No constants that we found for the report give the claim."
    reasons = [value.reason for value in found.values() if value.reason]
    return "not-evaluable", f"There is no value: {'; '.join(dict.fromkeys(reasons)) or 'nothing is bound to it'}."


def _decides(found: Found | None) -> bool:
    """Whether a value decides: it is there, or it cannot be, as a factor over a baseline that does not fit."""
    return found is not None and not found.absent and (found.value is not None or bool(found.reason))


def _slack(claim: Claim, name: str, tolerance: float) -> float:
    """The reports' own arithmetic has to give the printed digits, unless the claim itself is rough."""
    return (claim.tolerance or 0.0) if name in ("reported", "against") else tolerance


SOURCES = {
    "reported": "By the report's own constants",
    "calibrated": "Calibrated",
    "observed": "Observed",
    "against": "The reports say or imply elsewhere",
}


UNITS = {"10^9": "billion"}
"""Units in words, where a column has them in digits."""
WHOLE = 1000
"""From this number on, reasons have no digits after the point."""


def _told(claim: Claim, name: str, found: Found) -> str:
    if name not in SOURCES:
        return ""
    where = f" ({claim.observed_on})" if name == "observed" and claim.observed_on else ""
    if found.value is None:
        return f"{SOURCES[name]}{where}: no value, {found.reason}."
    return f"{SOURCES[name]}{where}: {_short(found.value)}{_unit(claim)}."


def _but(claim: Claim, name: str, fitted: bool) -> str:
    chosen = f", {_chosen(claim)}," if name == "reported" and fitted else ""
    return f"The report's own {'constants' if name == 'reported' else 'statements'}{chosen} give the claim."


def _chosen(claim: Claim) -> str:
    return "fitted to it" if claim.evidence == "fitted" else "set so that it comes out"


def _unit(claim: Claim) -> str:
    return f" {UNITS.get(claim.unit, claim.unit)}" if claim.unit else ""


def _short(value: Value) -> str:
    """Return a value in words, numbers at four digits; columns have more."""
    if isinstance(value, tuple):
        low, high = map(_short, value)
        return low if low == high else f"{low} to {high}"
    if isinstance(value, bool | str):
        return in_words(value)
    return f"{value:,.0f}" if abs(value) >= WHOLE else f"{value:.4g}"


def _all(sentences: list[str | None]) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def as_rows(judged: list[Judged]) -> pd.DataFrame:
    """Return the ledger, one row of text per claim, in the order of the file."""
    rows = []
    for each in judged:
        claim = each.claim
        values = {
            name: in_words(each.found[name].value) if name in each.found else ""
            for name in ("reported", "calibrated", "observed")
        }
        rows.append(
            {
                "id": claim.id,
                "family": claim.family,
                "document": claim.lines[0].partition(":")[0] if claim.lines else "",
                "lines": ", ".join(claim.lines),
                "says": claim.says,
                "unit": claim.unit or "",
                "claimed": claim.stated.text,
                **values,
                "observed_on": (claim.observed_on or "") if values["observed"] else "",
                "tolerance": each.tolerance,
                "verdict": each.verdict,
                "reason": each.reason,
                "rests_on": each.rests_on,
                "evidence": (claim.evidence or "") if values["reported"] else "",
                "model": claim.model,
                "gpu": claim.gpu,
                "batch": str(claim.batch),
                "read_from": ", ".join(claim.tables),
            }
        )
    return pd.DataFrame(rows)
