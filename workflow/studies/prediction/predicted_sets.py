"""Put the sizes of predicted sets of all traces into one table."""

import pandas as pd

from prophet_moe.tables import joined, write_table
from studies.prediction.study import SETS


def build(files, parameters):
    """Write the rows of all traces."""
    write_table(files.table, joined(map(pd.read_csv, files.sets), files.table), SETS)
