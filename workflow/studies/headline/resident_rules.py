"""Compare rules for the resident experts: KV extension, and how often a layer-step overflows."""

from pathlib import Path

from prophet_moe.capacity.reserve import reserves_for
from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.model import load_model
from prophet_moe.files import write_csv
from prophet_moe.routing.popularity_cv import popularity_cvs_of
from prophet_moe.settings.scenario import Scenario
from studies.headline.compute import resident_rules


def build(files, parameters):
    """Write one row per rule."""
    models = {path.stem: load_model(path) for path in files.models}
    gpus = load_gpus(files.gpus, parameters["gpus"])
    scenario = Scenario.model_validate(parameters["scenario"])
    reserves = reserves_for(scenario, Path(parameters["memory"]), gpus)
    variations = popularity_cvs_of(files.variations, scenario.routing.batching)
    write_csv(files.table, resident_rules(models, gpus, parameters["batch_sizes"], scenario, variations, reserves))
