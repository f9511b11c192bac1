"""Count how many experts the predictor of one trace must name to name all that a layer-step needs."""

from prophet_moe.files import write_csv
from prophet_moe.predict.needed_sets import predicted_sets
from prophet_moe.predict.network import read_trained
from prophet_moe.routing.store import read_trace


def build(files, parameters):
    """Write one row per batch size."""
    folder = files.files[0].parent
    trace = read_trace(folder)
    network = read_trained(files.predictor[0].parent, trace, folder)
    write_csv(files.sets, predicted_sets(parameters["name"], trace, network))
