"""Put slowdown and KV extension of every configuration into one table, and the context gained at each limit."""

import pandas as pd

from prophet_moe.capacity.frontier import context_gained, frontier, joined
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.files import write_csv
from prophet_moe.settings import Scenario


def build(files, parameters):
    """Write the frontier and table 11."""
    grid = pd.read_parquet(files.grid)
    replayed = pd.concat(map(pd.read_parquet, files.slowdowns))
    rows = joined(grid[grid["case"] == ESTIMATE], replayed, Scenario.model_validate(parameters["scenario"]))
    write_csv(files.frontier, frontier(rows))
    write_csv(files.gained, context_gained(rows, parameters["slowdown_limits"]))
