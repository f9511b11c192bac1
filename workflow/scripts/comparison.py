"""Put the simulated runs on all traces into one table each, and compute the three tables of report 004 from them."""

import pandas as pd

from prophet_moe.files import write_csv
from prophet_moe.present.comparison import batch_scaling, deduplication_summary, strategy_summary
from prophet_moe.settings import ReportedComparison


def build(files, parameters):
    """Write four tables of runs and three of what they say."""
    claimed = ReportedComparison.model_validate(parameters["claimed"], strict=False)
    tables = {}
    for kind in ("results", "deduplication", "layers", "sweeps"):
        tables[kind] = pd.concat(map(pd.read_csv, getattr(files, f"of_{kind}")))
        write_csv(getattr(files, kind), tables[kind])
    write_csv(files.strategies, strategy_summary(tables["results"], claimed))
    write_csv(files.savings, deduplication_summary(tables["deduplication"], claimed))
    write_csv(files.scaling, batch_scaling(tables["results"], claimed))
