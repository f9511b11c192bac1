"""Hold predicted memory against what was measured on GPUs."""

import pandas as pd

from prophet_moe.capacity.validation import compare, read_memory
from prophet_moe.catalog.model import load_model
from prophet_moe.files import write_csv
from prophet_moe.settings import Scenario


def build(files, parameters):
    """Write one row per measured number that the capacity model predicts, GPU by GPU."""
    architectures = {path.stem: load_model(path).architecture for path in files.models}
    scenario = Scenario.model_validate(parameters["scenario"])
    folders = sorted({path.parent for path in files.measured})
    tables = [compare(read_memory(folder), architectures, scenario).assign(gpu=folder.name) for folder in folders]
    write_csv(files.table, pd.concat(tables))
