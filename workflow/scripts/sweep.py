"""Compute the capacity grid of one scenario: every model on every GPU at every batch size."""

from pathlib import Path

from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.reserve import reserves_for
from prophet_moe.capacity.under_engine import read_engine
from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.model import load_model
from prophet_moe.files import write_parquet
from prophet_moe.routing.popularity_cv import popularity_cvs_of
from prophet_moe.settings.scenario import Scenario


def build(files, parameters):
    """Write the grid as Parquet, at full precision."""
    models = {path.stem: load_model(path) for path in files.models}
    gpus = load_gpus(files.gpus, parameters["gpus"])
    scenario = Scenario.model_validate(parameters["scenario"])
    variations = popularity_cvs_of(files.variations, scenario.routing.batching)
    reserves = reserves_for(scenario, Path(parameters["memory"]), gpus)
    engine = read_engine(files.engine)
    grid = capacity_grid(models, gpus, parameters["batch_sizes"], scenario, variations, reserves, engine)
    write_parquet(files.grid, grid)
