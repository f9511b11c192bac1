"""Fit every law for u(B) to one routing trace."""

import pandas as pd

from prophet_moe.files import write_csv
from prophet_moe.routing.law_fit import fit_laws
from prophet_moe.routing.sequences import divisible, without_repetition
from prophet_moe.routing.store import read_trace


def build(files, parameters):
    """Write one row per law and way of batching, and the residuals by batch size."""
    folder = files.files[0].parent
    trace = without_repetition(read_trace(folder)).described()
    fits, residuals = fit_laws(parameters["name"], divisible(trace, folder))
    write_csv(files.fits, pd.DataFrame(fits))
    write_csv(files.residuals, pd.DataFrame(residuals))
