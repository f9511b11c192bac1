"""Evaluate Prophet's predictor of one routing trace, and predictors that only count."""

import pandas as pd

from prophet_moe.files import write_csv
from prophet_moe.predict.evaluate import evaluate_predictors
from prophet_moe.predict.gate import read_router_inputs
from prophet_moe.predict.network import read_trained
from prophet_moe.routing.store import read_trace


def build(files, parameters):
    """Write one row per predictor, lookahead, layer and measure."""
    folder = files.files[0].parent
    trace = read_trace(folder)
    network = read_trained(files.predictor[0].parent, trace, folder)
    scores = evaluate_predictors(parameters["name"], trace, network, read_router_inputs(folder))
    write_csv(files.judgements, pd.DataFrame(scores))
