"""Put the sizes of predicted sets of all traces into one table."""

import pandas as pd

from prophet_moe.files import write_csv


def build(files, parameters):
    """Write the rows of all traces."""
    write_csv(files.table, pd.concat(map(pd.read_csv, files.sets)))
