"""The report's serving scenarios: what it prints, what its constants give, what is found, and the price in time."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from prophet_moe.capacity.limits import CONFIGURATION, reach
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.tables import write_table
from studies.use_cases.study import USE_CASES, UseCase, UseCasesSettings

PRICED = "prophet"
"""Strategy of the frontier whose slowdown is the price."""


def use_cases(
    grid: pd.DataFrame,
    reported: pd.DataFrame | None,
    frontier: pd.DataFrame | None,
    settings: UseCasesSettings,
    claimed_slowdown: float,
) -> pd.DataFrame:
    """Set the report's serving scenarios beside what is found.

    Parameters
    ----------
    grid : DataFrame
        The capacity grid at its estimate.
    reported : DataFrame, optional
        The record by the report's own constants.
    frontier : DataFrame, optional
        Slowdowns by resident experts.
    settings : UseCasesSettings
        The scenarios.
    claimed_slowdown : float
        The slowdown that the report claims.

    Returns
    -------
    DataFrame
        The columns of USE_CASES, a row per scenario and batch size of the grid within its range.
    """
    found = []
    for name, case in settings.cases.items():
        least, most = case.batch_sizes
        here = grid[(grid["model"] == case.model) & (grid["gpu"] == case.gpu) & grid["batch_size"].between(least, most)]
        for row in here.sort_values("batch_size").to_dict("records"):
            found.append(
                {name: row.get(name) for name in (column.name for column in USE_CASES.columns)}
                | {"case": name, "kv_extension_native": _native(row), "claimed_slowdown": claimed_slowdown}
                | _printed(case, row["batch_size"])
                | _own(_of(reported, row))
                | dict(_price(_of(frontier, row), row, claimed_slowdown))
            )
    table = pd.DataFrame(found, columns=[column.name for column in USE_CASES.columns]).fillna({"routing": ""})
    whole = [column.name for column in USE_CASES.columns if column.kind == "integer"]
    real = [column.name for column in USE_CASES.columns if column.kind == "number"]
    return table.astype(dict.fromkeys(whole, "Int64") | dict.fromkeys(real, "float64"))


def _native(row: Mapping) -> float:
    baseline = row["baseline_native_context"]
    return row["prophet_native_context"] / baseline if baseline else np.nan


def _printed(case: UseCase, batch: int) -> dict[str, float]:
    if batch != case.printed_batch:
        return {}
    return {
        "printed_baseline_context": case.printed_baseline,
        "printed_prophet_context": case.printed_prophet,
        "printed_extension": case.printed_extension,
    }


def _of(table: pd.DataFrame | None, row: Mapping) -> pd.DataFrame:
    """Return the rows of a configuration; none where there is no table."""
    if table is None:
        return pd.DataFrame()
    return table[np.logical_and.reduce([table[name] == row[name] for name in CONFIGURATION])]


def _own(rows: pd.DataFrame) -> dict[str, float]:
    if rows.empty:
        return {}
    columns = {"baseline_max_context": "own_baseline_context", "prophet_max_context": "own_prophet_context"}
    row = rows.iloc[0]
    return {own: row[name] for name, own in columns.items()} | {"own_extension": row["kv_extension_factor"]}


def _price(rows: pd.DataFrame, row: Mapping, claimed_slowdown: float) -> Iterator[tuple[str, object]]:
    """Yield what the simulation says of the slots of the rule, and of the claimed slowdown."""
    rows = rows[rows["strategy"] == PRICED].sort_values("resident_experts") if len(rows) else rows
    if rows.empty:
        return
    yield "routing", rows["trace"].iloc[0]
    enough = rows[rows["resident_experts"] >= row["resident_experts"]]
    if len(enough):
        point = enough.iloc[0]
        yield "priced_slots", point["resident_experts"]
        yield "priced_extension", point["kv_extension_factor"]
        yield from ((name, point[name]) for name in ("slowdown", "slowdown_low", "slowdown_high"))
    if not row["baseline_fits"]:
        return
    gained = rows[::-1]
    extensions = gained["max_context"].to_numpy(np.float64) / row["baseline_max_context"]
    slowdowns = gained["slowdown"].to_numpy(np.float64)
    yield "extension_within_claim", max(1.0, float(reach(slowdowns, extensions, [claimed_slowdown])[0]))


def build(files, parameters):
    """Write table 19, the serving scenarios of the report."""
    grid = pd.read_parquet(files.grid)
    reported = pd.read_csv(files.reported) if files.reported else None
    frontier = pd.read_csv(Path(files.frontier[0])) if files.frontier else None
    settings = UseCasesSettings.model_validate(parameters["use_cases"])
    grid = grid[grid["case"] == ESTIMATE]
    write_table(files.table, use_cases(grid, reported, frontier, settings, parameters["claimed_slowdown"]), USE_CASES)
