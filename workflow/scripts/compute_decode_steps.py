"""Compute the decode steps of every model on every GPU, from measured profiles or datasheets."""

from pathlib import Path

import pandas as pd

from prophet_moe.capacity.decode_steps import decode_steps, with_fit
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.model import load_model
from prophet_moe.files import write_csv
from prophet_moe.hardware.profile import read_profile
from prophet_moe.provenance.job import run
from prophet_moe.routing.popularity_cv import popularity_cvs_of
from prophet_moe.settings import DecodeStep, Scenario


def build(files, parameters):
    """Write table 7, the decode steps of every model on every GPU."""
    models = {path.stem: load_model(path) for path in files.models}
    scenario = Scenario.model_validate(parameters["scenario"])
    variations = popularity_cvs_of(files.variations, scenario.routing.batching)
    folder = Path(parameters["profiles"])
    profiles = {
        name: read_profile(folder, name, spec) for name, spec in load_gpus(files.gpus, parameters["gpus"]).items()
    }
    step = DecodeStep.model_validate(parameters["decode_step"])
    table = decode_steps(models, profiles, parameters["batch_sizes"], scenario, variations, step)
    grid = pd.read_parquet(files.grid)
    write_csv(files.table, with_fit(table, grid[grid["case"] == ESTIMATE]))


if __name__ == "__main__":
    run(
        build,
        reads=["gpus", "grid"],
        reads_many=["models"],
        reads_any=["variations", "measured"],
        writes=["table"],
    )
