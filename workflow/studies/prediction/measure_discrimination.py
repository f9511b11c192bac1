"""Measure how well the predictor of one trace separates chosen experts from others, on held-out sequences."""

from prophet_moe.files import write_csv
from prophet_moe.predict.context import split
from prophet_moe.predict.discrimination import as_rows, measure
from prophet_moe.predict.network import read_trained
from prophet_moe.routing.store import read_trace


def build(files, parameters):
    """Write one row per lookahead, recency and level of the score."""
    folder = files.files[0].parent
    trace = read_trace(folder)
    _, held_out = split(trace)
    network = read_trained(files.predictor[0].parent, trace, folder)
    write_csv(files.discrimination, as_rows(measure(held_out.described(), network)))
