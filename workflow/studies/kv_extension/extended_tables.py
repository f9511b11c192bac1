"""Compute tables 1-4 with the interval over routings, from the capacity grid."""

import pandas as pd

from prophet_moe.capacity.record import ESTIMATE, record, without_interval
from prophet_moe.files import write_csv
from studies.kv_extension.compute import tables, with_intervals


def build(files, parameters):
    """Write the four tables as CSV, with low and high for every column that depends on the routing."""
    grid = pd.read_parquet(files.grid)
    found = {case: tables(record(grid, case=case), **parameters) for case in grid["case"].unique()}
    without = without_interval(grid)
    for name, table in found.pop(ESTIMATE).items():
        write_csv(getattr(files, name), with_intervals(table, [other[name] for other in found.values()], without))
