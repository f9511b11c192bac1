"""Compute the capacity grid of one scenario: every model on every GPU at every batch size."""

from prophet_moe.capacity.configured import read_configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.files import write_parquet


def build(files, parameters):
    """Write the grid as Parquet, at full precision."""
    write_parquet(files.grid, capacity_grid(read_configured(files, parameters), parameters["batch_sizes"]))
