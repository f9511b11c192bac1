"""What the dataclasses of a measurement's plan do not say: the least values, and the names that are known."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from prophet_moe.errors import UserError


def mistake(kind: str, problem: str) -> UserError:
    """Return the error that tells of a mistake in the plan of `kind`."""
    return UserError(f"{kind} plan", problem, "Correct it.")


def check_values(kind: str, plan: Any, least: Mapping[str, int], key: str = "") -> None:
    """Refuse whole numbers below their `least` by name, else 1; empty lists and mappings; entries named twice."""
    if is_dataclass(plan):
        entries = {f"{key}.{field.name}".lstrip("."): getattr(plan, field.name) for field in fields(plan)}
    elif isinstance(plan, dict) and all(map(is_dataclass, plan.values())):
        entries = {f"{key}.{name}": value for name, value in plan.items()}
    elif isinstance(plan, list):
        _refuse_twice(kind, key, [getattr(entry, "model", entry) for entry in plan])
        entries = {f"{key}[{number}]": value for number, value in enumerate(plan)}
    else:
        lowest = least.get(key.rpartition(".")[2], 1)
        if type(plan) is int and plan < lowest:
            raise mistake(kind, f"{key}: got {plan}, expected at least {lowest}")
        return
    if not entries:
        raise mistake(kind, f"{key}: is empty, expected at least one entry")
    for name, value in entries.items():
        check_values(kind, value, least, name)


def _refuse_twice(kind: str, key: str, names: list[Any]) -> None:
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise mistake(kind, f"{key}: holds {twice!r} twice")


def check_names(kind: str, key: str, names: Iterable[str], allowed: Collection[str]) -> None:
    """Refuse names that are not among the `allowed` ones."""
    unknown = next((name for name in names if name not in allowed), None)
    if unknown is not None:
        raise mistake(kind, f"{key}: got {unknown!r}, expected some of {', '.join(allowed)}")
