"""Put the statistics of all traces into one table."""

import pandas as pd

from prophet_moe.tables import joined, write_table
from studies.routing_statistics.study import STATISTICS


def build(files, parameters):
    """Write the rows of every trace, in the order given, every cell as the text it is."""
    rows = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in files.statistics)
    write_table(files.table, joined(rows, files.table), STATISTICS)
