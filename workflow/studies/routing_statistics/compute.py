"""Put the statistics of all traces into one table."""

import pandas as pd

from prophet_moe.files import atomic_write
from prophet_moe.routing.schema import COLUMNS, read_summary


def build(files, parameters):
    """Write the rows of every trace, in the order given."""
    table = pd.concat([read_summary(path) for path in files.statistics])
    with atomic_write(files.table) as partial:
        table.to_csv(partial, index=False, lineterminator="\n", columns=COLUMNS)
