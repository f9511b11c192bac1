"""Compute tables 1-4 from the record."""

import pandas as pd

from prophet_moe.capacity.record import read_record
from prophet_moe.files import write_csv
from prophet_moe.present.tables import tables


def build(files, parameters):
    """Write the four tables as CSV."""
    gained = pd.read_csv(files.gained[0]) if files.gained else None
    for name, table in tables(read_record(files.record), **parameters, gained=gained).items():
        write_csv(getattr(files, name), table)
