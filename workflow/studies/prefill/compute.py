"""Compute the time to prefill the contexts that the memory allows, with experts streamed and with all resident."""

from pathlib import Path

import pandas as pd

from prophet_moe.capacity.prefill import prefill_times
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.link import link_named, load_links
from prophet_moe.catalog.model import load_model
from prophet_moe.hardware.profile import read_profile
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import write_table
from studies.prefill.study import PREFILL


def build(files, parameters):
    """Write one row per model, GPU, batch size and context."""
    models = {path.stem: load_model(path) for path in files.models}
    grid = pd.read_parquet(files.grid)
    grid = grid[grid["case"] == ESTIMATE]
    specs = load_gpus(files.gpus, list(dict.fromkeys(grid["gpu"])))
    profiles = {name: read_profile(Path(parameters["profiles"]), name, spec) for name, spec in specs.items()}
    link = link_named(parameters["link"], load_links(files.links))
    scenario = Scenario.model_validate(parameters["scenario"])
    table = prefill_times(models, profiles, grid, scenario, parameters["prefill"]["compute_share"], link)
    write_table(files.table, table, PREFILL)
