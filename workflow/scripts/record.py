"""Write the record of one scenario: 24 columns as CSV and JSON, and the extended CSV with components and evidence."""

import pandas as pd

from prophet_moe.capacity.record import EXTENDED_COLUMNS, EXTENDED_RECORD, RECORD, record, rows_of, with_intervals
from prophet_moe.files import write_json
from prophet_moe.tables import write_table


def build(files, parameters):
    """Convert the grid to the units and digits of the record."""
    grid = pd.read_parquet(files.grid)
    frame = record(grid)
    write_table(files.csv, frame, RECORD)
    write_json(files.json, rows_of(frame))
    write_table(files.extended, record(with_intervals(grid), EXTENDED_COLUMNS), EXTENDED_RECORD)
