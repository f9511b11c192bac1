"""Bindings, which take a value out of finished tables: how they are checked, and which tables they read."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from prophet_moe.claims.evaluators import EVALUATORS, READS_TABLES, REPORT_TABLES, Absent, Tables
from prophet_moe.errors import UserError
from prophet_moe.validation import read_yaml

Binding = dict[str, Any]
"""`{take: <evaluator>, ...}`, or `{claim: <name>}` for a value of that name (prophet_moe/claims/evaluators.py)."""


def nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping in a value, itself and those inside others included."""
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from nodes(each)


def check(value: Any, where: str) -> None:
    """Refuse unknown evaluators, and arguments that they do not have, in all bindings of a value."""
    for node in (node for node in nodes(value) if "take" in node):
        name = node["take"]
        if name not in EVALUATORS:
            expected = f"expected one of {', '.join(EVALUATORS)}"
            raise UserError(where, f"take: got {name!r}, {expected}", "See prophet_moe/claims/evaluators.py.")
        arguments = {key: each for key, each in node.items() if key != "take"}
        try:
            inspect.signature(EVALUATORS[name]).bind(None, **arguments)
        except TypeError as error:
            raise UserError(where, f"{name}: {error}", "See prophet_moe/claims/evaluators.py.") from None


def names_in(value: Any) -> list[str]:
    """Return the names that bindings of a value refer to by `claim`."""
    return [node["claim"] for node in nodes(value) if set(node) == {"claim"}]


def tables_in(value: Any) -> set[str]:
    """Return the names of the tables that bindings of a value read; printed claims read table 21."""
    found = list(nodes(value))
    of_reports = {REPORT_TABLES for node in found if node.get("take") == "report_cell" or "printed" in node}
    return of_reports | {node["table"] for node in found if node.get("take") in READS_TABLES}


def tables_read(path: Path) -> list[str]:
    """Return the names of all tables that the bindings of a file read, sorted."""
    return sorted(tables_in(read_yaml(path)))


def finished(files: Mapping[str, Path]) -> Tables:
    """Return finished tables by name, loaded when they are read; a table that a build does not make has no rows.

    A missing word is empty text, another missing value is NaN.
    """

    def load(name: str) -> pd.DataFrame:
        if name not in files:
            raise Absent(f"this build makes no table {name}")
        frame = pd.read_csv(files[name])
        words = frame.select_dtypes(include=["object", "string"]).columns
        return frame.assign(**{column: frame[column].fillna("") for column in words})

    return Tables(load)
