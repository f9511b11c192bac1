"""Put the judgements of predictors on all traces into one table, Prophet's gain and recall by domain into others."""

import pandas as pd

from prophet_moe.files import write_csv
from prophet_moe.present.prediction_summary import prediction_by_domain, prediction_summary
from prophet_moe.validation import read_json


def build(files, parameters):
    """Write every judgement, table 6, and recall by domain."""
    judgements = pd.concat(map(pd.read_csv, files.of_judgements))
    write_csv(files.judgements, judgements)
    predictors = {path.parent.name: read_json(path) for path in files.predictors}
    summary = prediction_summary(judgements, predictors, pd.read_csv(files.latency))
    write_csv(files.summary, summary)
    write_csv(files.by_domain, prediction_by_domain(judgements, summary))
