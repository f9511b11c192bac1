"""config/claims.yaml: every claim of the reports, in families that share a sentence and a way to compute."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from prophet_moe.claims.bindings import Binding, check, names_in, tables_in
from prophet_moe.claims.claimed import Claimed, parse_claimed
from prophet_moe.errors import UserError
from prophet_moe.validation import StrictModel, read_yaml, validate

CLAIMS_FILE = Path("config/claims.yaml")
BINDINGS = ("reported", "calibrated", "observed", "against")


class Corrected(StrictModel):
    """Another reading under which a claim is true."""

    by: str
    """The correction, as the end of a sentence: "at batch size 1 instead of on average"."""
    value: Binding
    """What is computed under it."""


class Shared(StrictModel):
    """What a family says for its claims, and a claim may say for itself."""

    says: str | None = None
    """The claim in one sentence of our own. Values stand for {claimed}, {unit}, {model}, {gpu} and {batch}, for
    {row}, {column} and {situation} of a printed claim, and for the words of `given`."""
    unit: str | None = None
    """Unit of the claimed value and of what is found; empty for factors and counts."""
    reported: Binding | None = None
    """What the report's own constants give."""
    calibrated: Binding | None = None
    """What published architectures, real routing and estimates give."""
    observed: Binding | None = None
    """What was recorded or measured, by us or by others."""
    observed_on: str | None = None
    """On what it was recorded or measured."""
    against: Binding | None = None
    """What the reports themselves say or imply elsewhere about the same thing."""
    corrected: Corrected | None = None
    """A named correction under which the claim is true."""
    evidence: str | None = None
    """Where the constants behind `reported` come from: law (stated), arithmetic (of printed numbers), fitted or
    forced."""
    rests_on: str | Binding | None = None
    """What `calibrated` rests on: counted, assumed, estimated, simulated or arithmetic; or the cell that says it."""
    within: bool = False
    """Whether a claimed range is meant as one that values lie in, instead of one that they span; of a claimed number,
    whether a range that is found is an interval of one value, so that it has to hold the number."""
    tolerance: float | None = Field(default=None, ge=0, le=0.5)
    """Relative tolerance where the claim itself is rough; otherwise that of the settings."""
    definition: bool = False
    """Whether the claim defines something, so that it is neither right nor wrong; its values show that we use it."""
    needs: str | None = None
    """What an evaluation would need that cannot be had: production statistics and the like."""
    note: str = ""
    """One sentence for the reason: why the value is as it is."""
    model: str = ""
    """Models that it is about, separated by commas."""
    gpu: str = ""
    """The GPU that it is about."""
    batch: int | str = ""
    """The batch size, or sizes, that it is about."""
    given: dict[str, Any] = {}
    """Further values for the words in braces."""


class Entry(Shared):
    """One claim, as the file has it."""

    id: str = Field(pattern=r"^[A-Za-z0-9.+_-]+$")
    """Identity, as the paper and the ledger use it."""
    lines: list[str] = []
    """Lines of the reports, `000:24`; of a printed claim these are additional ones."""
    claimed: str | None = None
    """What is claimed, as printed: "4.0", "~400", "1.2 to 2.2", "<1.3", "yes"."""
    printed: list[str] | None = Field(default=None, min_length=3, max_length=3)
    """Instead of `claimed`: table, row and column of resources/reports/printed.csv, whose values table 21 has."""


class Family(Shared):
    """Claims of one kind. What a claim leaves out is that of its family."""

    family: str
    """What the claims are about, in a few words."""
    claims: list[dict[str, Any]] = Field(min_length=1)
    """Claims, as `Entry` describes."""


class Ledger(StrictModel):
    """All families of claims, as config/claims.yaml has them."""

    families: list[Family]


class Claim(Entry):
    """A claim with what its family adds, every word in braces replaced."""

    family: str
    stated: Claimed
    """What is claimed, parsed."""

    @property
    def bindings(self) -> dict[str, Binding]:
        """Return the bindings that it has, by name; the correction's as `corrected`."""
        found = {name: getattr(self, name) for name in BINDINGS}
        found["corrected"] = self.corrected.value if self.corrected else None
        return {name: binding for name, binding in found.items() if binding is not None}

    @property
    def tables(self) -> list[str]:
        """Return the names of the tables that its bindings read, sorted."""
        return sorted({table for binding in self.bindings.values() for table in tables_in(binding)})


def read_ledger(printed: pd.DataFrame, path: Path = CLAIMS_FILE) -> list[Claim]:
    """Return every claim of the file. A mistake is a UserError that names the claim and the key.

    Parameters
    ----------
    printed : DataFrame
        What `prophet_moe.printed.read_printed` returns: claimed values that claims refer to by `printed`.
    path : Path
        The file.
    """
    ledger = validate(Ledger, read_yaml(path), str(path), "See docs/claims.md.")
    numbers = {(row.table, row.row, row.column): row for row in printed.itertuples()}
    claims = [claim for family in ledger.families for claim in _claims_of(family, numbers, path)]
    ids = [claim.id for claim in claims]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise UserError(str(path), f"{twice[0]}: is there twice, expected once", "Remove one.")
    known = {claim.id: claim.stated.kind for claim in claims}
    for claim in claims:
        for other in [name for binding in claim.bindings.values() for name in names_in(binding)]:
            if known.get(other) != "number":
                where, problem = f"{path}: {claim.id}", f"refers to claim {other}, expected one that states a number"
                raise UserError(where, problem, "Correct the id.")
    return claims


def _claims_of(family: Family, numbers: Mapping[tuple, Any], path: Path) -> Iterator[Claim]:
    shared = {name: getattr(family, name) for name in Shared.model_fields if name in family.model_fields_set}
    for given in family.claims:
        where = f"{path}: {given.get('id', family.family)}"
        entry = validate(Entry, given, where, "See docs/claims.md.")
        own = {name: getattr(entry, name) for name in Entry.model_fields if name in entry.model_fields_set}
        yield _completed(shared | own, family.family, numbers, where)


def _completed(values: dict[str, Any], family: str, numbers: Mapping[tuple, Any], where: str) -> Claim:
    printed = values.get("printed")
    if (printed is None) == (values.get("claimed") is None):
        raise UserError(where, "has both or neither of claimed and printed, expected one of them", "Mend the claim.")
    if printed is not None:
        values = _from_printed(printed, numbers, where) | values
        values["lines"] = list(dict.fromkeys([numbers[tuple(printed)].source, *values.get("lines", [])]))
        values["claimed"] = numbers[tuple(printed)].printed.replace("✓", "yes").replace("❌", "no")
    words = {name: values.get(name, "") for name in ("model", "gpu", "batch", "claimed", "unit")}
    words |= dict(zip(("row", "column"), (printed or ["", "", ""])[1:], strict=True)) | values.get("given", {})
    words["situation"] = _situation(words)
    try:
        filled = {name: _filled(value, words) for name, value in values.items() if name not in ("given", "corrected")}
        if correction := values.get("corrected"):
            named = {"by": _filled(correction.by, words), "value": _filled(correction.value, words)}
            filled["corrected"] = Corrected(**named)
    except KeyError as error:
        raise UserError(where, f"{error} stands in braces but is not given", "Add it to `given`.") from None
    if not filled.get("says"):
        raise UserError(where, "says nothing, expected a sentence under `says`", "Add it.")
    claim = Claim(**filled, family=family, stated=parse_claimed(filled["claimed"]))
    for name, binding in claim.bindings.items():
        check(binding, f"{where}: {name}")
    return claim


def _situation(words: Mapping[str, Any]) -> str:
    """Return the row of a printed claim, with the model, GPU and batch size where it does not name them."""
    row, batch = words["row"], words["batch"]
    named = [words["model"], words["gpu"], f"batch size {batch}" if batch and "B = " not in row else ""]
    return ", ".join(filter(None, [row, *(name for name in named if name not in row)]))


def _from_printed(printed: Sequence[str], numbers: Mapping[tuple, Any], where: str) -> dict[str, Any]:
    """Return what table 21 and resources/reports/printed.csv say of a printed number."""
    if tuple(printed) not in numbers:
        problem = f"printed: got {list(printed)}, expected a table, row and column of resources/reports/printed.csv"
        raise UserError(where, problem, "Correct it.")
    found = numbers[tuple(printed)]
    take = {"take": "report_cell", "of": list(printed)}
    return {
        "unit": found.unit,
        "model": ", ".join(found.model.split()),
        "gpu": found.gpu,
        "batch": found.batch.replace("-", " to "),
        "reported": take | {"column": "under_own_constants"},
        "calibrated": take | {"column": "corrected"},
        "evidence": found.evidence or "arithmetic",
        "rests_on": take | {"column": "rests_on"},
    }


def _filled(value: Any, words: Mapping[str, Any]) -> Any:
    """Return a value with the words in braces replaced; text that is one such word becomes its value, of any type."""
    if isinstance(value, str):
        if value.startswith("{") and value.endswith("}") and value[1:-1] in words:
            return words[value[1:-1]]
        return value.format(**words) if "{" in value else value
    if isinstance(value, Mapping):
        return {key: _filled(each, words) for key, each in value.items()}
    return [_filled(each, words) for each in value] if isinstance(value, list) else value
