"""Compute every statistic of one routing trace."""

import pandas as pd

from prophet_moe.files import write_csv
from prophet_moe.provenance.job import run
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.summary import summarise


def build(files, parameters):
    """Write one row per statistic, layer and batch size or capacity."""
    rows = summarise(parameters["name"], read_trace(files.files[0].parent))
    write_csv(files.statistics, pd.DataFrame(rows))


if __name__ == "__main__":
    run(build, reads_many=["files"], writes=["statistics"])
