"""What a campaign runs: phases in order of worth, each with one or more plans and the seconds that they take."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from prophet_moe.checks import check_names
from prophet_moe.collect.plan import read_as
from prophet_moe.errors import UserError, from_os_error

KIND = "campaign"


@dataclass(frozen=True)
class Variant:
    """A plan of one phase, and the seconds that it is expected to take, its start included."""

    file: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The whole plan of config/measurements/campaign.yaml."""

    out: str
    """Measurements go to OUT/<phase>/<GPU>."""
    needs_gpu: bool
    """Whether a machine without a GPU is refused."""
    start_seconds: float
    """What a phase takes before its first part."""
    phases: dict[str, list[Variant]]
    """Variants by kind of measurement, which is worth most first; the fullest variant first."""


def read(path: Path, kinds: Collection[str]) -> Plan:
    """Read a campaign's plan; phases that are none of `kinds`, and plans of them that are not there, are UserErrors."""
    plan = read_as(Plan, path)
    where = f"{path}: {KIND}"
    check_names(where, "phases", plan.phases, kinds)
    for name, variants in plan.phases.items():
        if not variants:
            raise UserError(f"{where} plan", f"phases.{name}: is empty, expected at least one entry", "Correct it.")
        for number, variant in enumerate(variants):
            key = f"phases.{name}[{number}]"
            if not variant.seconds:
                raise UserError(f"{where} plan", f"{key}.seconds: got 0, expected more", "Correct it.")
            try:
                Path(variant.file).stat()
            except OSError as error:
                raise from_os_error(variant.file, error) from None
    return plan
