"""Put the judgements of predictors on all traces into one table, and Prophet's gain into another."""

import pandas as pd

from prophet_moe.documents import read_json
from prophet_moe.files import write_csv
from prophet_moe.present.prediction_summary import prediction_summary
from prophet_moe.provenance.job import run


def build(files, parameters):
    """Write every judgement, and table 6."""
    judgements = pd.concat(map(pd.read_csv, files.of_judgements))
    write_csv(files.judgements, judgements)
    predictors = {path.parent.name: read_json(path) for path in files.predictors}
    write_csv(files.summary, prediction_summary(judgements, predictors, pd.read_csv(files.latency)))


if __name__ == "__main__":
    run(build, reads=["latency"], reads_many=["of_judgements", "predictors"], writes=["judgements", "summary"])
