"""Tell the headline again with one assumption changed at a time."""

from pathlib import Path

from prophet_moe.capacity.reserve import reserves_for
from prophet_moe.capacity.under_engine import read_engine
from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.model import load_model
from prophet_moe.routing.popularity_cv import popularity_cvs_of
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import write_table
from studies.headline.compute import headline_sensitivity
from studies.headline.study import SENSITIVITY, HeadlineSettings


def build(files, parameters):
    """Write one row per assumption and value."""
    models = {path.stem: load_model(path) for path in files.models}
    gpus = load_gpus(files.gpus, parameters["gpus"])
    scenario = Scenario.model_validate(parameters["scenario"])
    reserves = reserves_for(scenario, Path(parameters["memory"]), gpus)
    engine = read_engine(files.engine)
    variations = popularity_cvs_of(files.variations, scenario.routing.batching)
    changes = HeadlineSettings.model_validate(parameters["sensitivity"])
    batch_sizes = parameters["batch_sizes"]
    table = headline_sensitivity(models, gpus, batch_sizes, scenario, variations, changes, reserves, engine)
    write_table(files.table, table, SENSITIVITY)
