"""Compute every statistic of one routing trace."""

import pandas as pd

from prophet_moe.files import write_csv
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.summary import summarise


def build(files, parameters):
    """Write one row per statistic, layer and batch size or capacity."""
    rows = summarise(parameters["name"], read_trace(files.files[0].parent))
    write_csv(files.statistics, pd.DataFrame(rows))
