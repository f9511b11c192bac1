"""Compute tables 1-4 with the interval over routings, from the capacity grid."""

import pandas as pd

from prophet_moe.capacity.record import ESTIMATE, record, without_interval
from prophet_moe.tables import write_table
from studies.kv_extension.compute import tables, with_intervals
from studies.kv_extension.study import EXTENDED


def build(files, parameters):
    """Write the four tables as CSV, with low and high for every column that depends on the routing."""
    grid = pd.read_parquet(files.grid)
    found = {case: tables(record(grid, case=case), **parameters) for case in grid["case"].unique()}
    without = without_interval(grid)
    for (name, table), declared in zip(found.pop(ESTIMATE).items(), EXTENDED, strict=True):
        extended = with_intervals(table, [other[name] for other in found.values()], without)
        write_table(getattr(files, name), extended, declared)
