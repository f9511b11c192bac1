"""Functions that take the value of a claim out of finished tables. config/claims.yaml names them.

An evaluator returns a value, or raises `Undefined` where there is none, with the reason. Rows of a table are selected
by `where`: a column's value, a list of values, or `{from: a, to: b}`, both ends included.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from prophet_moe.claims.claimed import Value

Where = Mapping[str, Any]
REPORT_TABLES = "table21_report_tables"
"""The table that has the values of every number in the reports' tables."""
STEADY = 0.02
"""Relative change along a trend up to which it counts as constant."""


class Undefined(Exception):
    """There is no value: the message says why."""


class Absent(Undefined):
    """This build has no row for it, as one of fewer models."""


class Tables:
    """Finished tables by name: `table8_strategies`, `reported/prophet_kv_extension_data`."""

    def __init__(self, load: Callable[[str], pd.DataFrame]) -> None:
        """`load` returns the table of a name."""
        self._load, self._known, self._selected = load, {}, {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        """Return a table, loaded once."""
        if name not in self._known:
            self._known[name] = self._load(name)
        return self._known[name]

    def rows(self, name: str, where: Where) -> pd.DataFrame:
        """Return the rows of a table that `where` selects; they may be none. Several values of a claim share them."""
        key = name, json.dumps(where, sort_keys=True)
        if key not in self._selected:
            self._selected[key] = _selected(self[name], where)
        return self._selected[key]


def _selected(found: pd.DataFrame, where: Where) -> pd.DataFrame:
    for column, wanted in where.items():
        if isinstance(wanted, Mapping):
            chosen = found[column].between(wanted.get("from", -math.inf), wanted.get("to", math.inf))
        else:
            chosen = found[column].isin(wanted if isinstance(wanted, list) else [wanted])
        found = found[chosen]
    return found


def rows_of(tables: Tables, table: str, where: Where, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows of a table that `where` selects; an unknown column is a KeyError, no row is Absent."""
    known = tables[table].columns
    for column in (*where, *columns):
        if column not in known:
            raise KeyError(f"{table} has no column {column}, expected one of {', '.join(known)}")
    found = tables.rows(table, where)
    if found.empty:
        raise Absent(f"{table} has no row for {', '.join(f'{key} {value}' for key, value in where.items())}")
    return found


def _plain(value: Any) -> Value:
    if isinstance(value, str):
        return value
    return bool(value) if isinstance(value, bool | np.bool_) else float(value)


def cell(tables: Tables, table: str, column: str, where: Where, empty: str = "the cell is empty") -> Value:
    """Return the one value that a column has in the selected rows; several different ones are a ValueError."""
    values = rows_of(tables, table, where, [column])[column].drop_duplicates()
    if len(values) > 1:
        raise ValueError(f"{table}, {column}: {len(values)} values for {dict(where)}, expected one")
    if pd.isna(values.iloc[0]):
        raise Undefined(empty)
    return _plain(values.iloc[0])


def report_cell(tables: Tables, of: list[str], column: str) -> Value:
    """Return a column of table 21 for a number in the reports' tables, `of` its table, row and column there."""
    where = dict(zip(("report_table", "row", "column"), of, strict=True))
    missing = {"under_own_constants": "the report has no constants for it", "corrected": "why_empty"}.get(column, "")
    empty = cell(tables, REPORT_TABLES, missing, where) if missing == "why_empty" else missing
    return cell(tables, REPORT_TABLES, column, where, empty)


def count(tables: Tables, table: str, where: Where | None = None) -> float:
    """Return the number of selected rows; 0 where there is none."""
    return float(len(tables.rows(table, where or {})))


def distinct(tables: Tables, table: str, column: str, where: Where | None = None) -> float:
    """Return how many different values a column has."""
    return float(rows_of(tables, table, where or {}, [column])[column].nunique())


def columns(tables: Tables, table: str) -> float:
    """Return how many columns a table has."""
    return float(len(tables[table].columns))


def listed(tables: Tables, table: str, column: str, where: Where | None = None) -> str:
    """Return the different values of a column, in order, separated by commas."""
    values = sorted(rows_of(tables, table, where or {}, [column])[column].dropna().unique())
    return ", ".join(value if isinstance(value, str) else f"{value:g}" for value in values)


def aggregate(
    tables: Tables,
    table: str,
    column: str,
    how: str,
    where: Where | None = None,
    zero_unless: str = "",
    only_if: str = "",
    empty: str = "every cell is empty",
) -> float:
    """Return the mean, median, geomean, min, max or sum of a column.

    Rows whose flag `zero_unless` is false count as 0. Rows whose flag `only_if` is false, and empty cells, are left
    out.
    """
    found = rows_of(tables, table, where or {}, [column, *filter(None, (zero_unless, only_if))])
    if only_if:
        found = found[found[only_if].astype(bool)]
    values = found[column].astype(float)
    if zero_unless:
        values = values.where(found[zero_unless].astype(bool), 0.0).fillna(0.0)
    values = values.dropna()
    if values.empty:
        raise Undefined(empty)
    if how == "geomean":
        return float(math.exp(values.map(math.log).mean()))
    return float(getattr(values, how)())


def spread(
    tables: Tables,
    table: str,
    column: str,
    where: Where | None = None,
    only_if: str = "",
    empty: str = "every cell is empty",
) -> tuple[float, float]:
    """Return the least and the largest value of a column; rows whose flag `only_if` is false are left out."""
    ends = (aggregate(tables, table, column, how, where, only_if=only_if, empty=empty) for how in ("min", "max"))
    return tuple(ends)


def quotients(
    tables: Tables, table: str, column: str, over: str = "", where: Where | None = None, times: float = 1.0
) -> tuple[float, float]:
    """Return the least and the largest quotient of two columns, row by row, times a factor such as 100 for percent.

    Without `over` the column itself is taken. Rows with an empty cell or a divisor of 0 are left out.
    """
    found = rows_of(tables, table, where or {}, [column, *filter(None, (over,))])
    divisor = found[over].astype(float) if over else 1.0
    values = (times * found[column].astype(float) / divisor).replace([math.inf, -math.inf], math.nan).dropna()
    if values.empty:
        raise Undefined("no row has a quotient")
    return float(values.min()), float(values.max())


def best(
    tables: Tables, table: str, column: str, name: str | list[str], how: str = "max", where: Where | None = None
) -> str:
    """Return the name, from one or several columns, of the row with the largest (max) or smallest (min) value."""
    named = [name] if isinstance(name, str) else name
    found = rows_of(tables, table, where or {}, [column, *named]).dropna(subset=[column])
    if found.empty:
        raise Undefined("no row has a value")
    row = found.loc[found[column].astype(float).idxmax() if how == "max" else found[column].astype(float).idxmin()]
    return ", ".join(value if isinstance(value, str) else f"{value:g}" for value in (row[each] for each in named))


def rank(tables: Tables, table: str, column: str, where: Where, among: Where | None = None, how: str = "max") -> float:
    """Return the place of a row's value among those of `among`, 1 for the largest (max) or smallest (min)."""
    value = cell(tables, table, column, where)
    others = rows_of(tables, table, among or {}, [column])[column].dropna().astype(float)
    return float(1 + ((others > value) if how == "max" else (others < value)).sum())


def trend(
    tables: Tables, table: str, column: str, along: str, where: Where | None = None, each: list[str] | None = None
) -> str:
    """Return how a column changes along another: rises, falls, constant or mixed.

    With `each`, the column is followed in every group of these columns, and the answer is that of all groups, else
    mixed. Changes of up to 2 % count as constant.
    """
    found = rows_of(tables, table, where or {}, [column, along, *(each or [])]).dropna(subset=[column, along])
    groups = [rows for _, rows in found.groupby(each, sort=True)] if each else [found]
    ways = {_way(rows.groupby(along)[column].mean()) for rows in groups if len(set(rows[along])) > 1}
    if not ways:
        raise Undefined("no group has two points")
    moving = ways - {"constant"}
    return "constant" if not moving else moving.pop() if len(moving) == 1 else "mixed"


def _way(values: pd.Series) -> str:
    steps = [after - before for before, after in pairwise(values.sort_index().astype(float))]
    small = STEADY * values.abs().max()
    up, down = any(step > small for step in steps), any(step < -small for step in steps)
    return "mixed" if up and down else "rises" if up else "falls" if down else "constant"


def share(tables: Tables, table: str, column: str, holds: Any, where: Where | None = None) -> float:
    """Return the share, in percent, of the selected rows whose column is as `holds`, which reads like `where`."""
    found = rows_of(tables, table, where or {}, [column])
    return 100.0 * count(Tables({"": found}.__getitem__), "", {column: holds}) / len(found)


def number(tables: Tables, value: float) -> float:
    """Return a constant of arithmetic, such as the 100 of a percentage."""
    return float(value)


def _pair(tables: Tables, of: list[float], do: Callable[[float, float], float]) -> float:
    total, *others = of
    for other in others:
        total = do(total, other)
    return float(total)


def total(tables: Tables, of: list[float]) -> float:
    """Return the sum of several values."""
    return float(sum(of))


def difference(tables: Tables, of: list[float]) -> float:
    """Return the first value less the others."""
    return _pair(tables, of, lambda one, other: one - other)


def product(tables: Tables, of: list[float]) -> float:
    """Return the product of several values."""
    return float(math.prod(of))


def ratio(tables: Tables, of: list[float], empty: str = "the divisor is 0") -> float:
    """Return the first value over the others."""
    if 0 in of[1:]:
        raise Undefined(empty)
    return _pair(tables, of, lambda one, other: one / other)


def power(tables: Tables, base: float, exponent: float) -> float:
    """Return `base` to the power of `exponent`."""
    return float(base**exponent)


def mean(tables: Tables, of: list[float]) -> float:
    """Return the mean of several values."""
    return float(sum(of) / len(of))


def least(tables: Tables, of: list[float]) -> float:
    """Return the least of several values."""
    return float(min(of))


def largest(tables: Tables, of: list[float]) -> float:
    """Return the largest of several values."""
    return float(max(of))


def ends(tables: Tables, of: list[Value]) -> tuple[float, float]:
    """Return the least and the largest of several values or ranges."""
    flat = [end for each in of for end in (each if isinstance(each, tuple) else (each,))]
    return float(min(flat)), float(max(flat))


def rounded(tables: Tables, value: float, digits: int = 0) -> float:
    """Return a value rounded half up, as whole numbers are by default."""
    return math.floor(value * 10**digits + 0.5) / 10**digits


def floor(tables: Tables, value: float) -> float:
    """Return the largest whole number that is not above a value."""
    return float(math.floor(value + 1e-9))


def fit(tables: Tables, baseline: float, prophet: float) -> str:
    """Return what fits: both, prophet only, baseline only or neither; 1 and 0, or yes and no, say whether each does."""
    names = {(1, 1): "both", (0, 1): "prophet only", (1, 0): "baseline only", (0, 0): "neither"}
    return names[int(baseline), int(prophet)]


def compare(tables: Tables, left: Value, sign: str, right: Value) -> bool:
    """Return whether left < right, or as the sign says: <, <=, >, >= or = (numbers alike to 2 %)."""
    if sign == "=":
        same = left == right
        return same if isinstance(left, str) else same or math.isclose(left, right, rel_tol=STEADY)
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign]


def every(tables: Tables, of: list[bool]) -> bool:
    """Return whether all of several flags hold."""
    return all(of)


def some(tables: Tables, of: list[bool]) -> bool:
    """Return whether any of several flags holds."""
    return any(of)


def joined(tables: Tables, of: list[Value], by: str = ", ") -> str:
    """Return several values as one text."""
    return by.join(value if isinstance(value, str) else f"{value:g}" for value in of)


EVALUATORS: dict[str, Callable[..., Value]] = {
    function.__name__: function
    for function in (
        *(cell, report_cell, count, distinct, columns, listed, aggregate, spread, quotients),
        *(best, rank, trend, share),
        *(number, total, difference, product, ratio, power, mean, least, largest, ends, rounded, floor),
        *(fit, compare, every, some, joined),
    )
}
READS_TABLES = (
    *("cell", "count", "distinct", "columns", "listed", "aggregate", "spread", "quotients", "best", "rank", "trend"),
    "share",
)
"""Evaluators with an argument `table`."""


def evaluated(binding: Mapping[str, Any], tables: Tables, claim: Callable[[str], float]) -> Value:
    """Return the value of a binding: `{take: <evaluator>, ...}`, whose arguments may be bindings themselves.

    `{claim: <id>}` is the number that another claim states.
    """
    inner = partial(_argument, tables=tables, claim=claim)
    if "claim" in binding:
        return claim(binding["claim"])
    arguments = {name: inner(value) for name, value in binding.items() if name != "take"}
    return EVALUATORS[binding["take"]](tables, **arguments)


def _argument(value: Any, tables: Tables, claim: Callable[[str], float]) -> Any:
    if isinstance(value, Mapping) and ("take" in value or "claim" in value):
        return evaluated(value, tables, claim)
    return [_argument(each, tables, claim) for each in value] if isinstance(value, list) else value
