"""Put the fits of the laws for u(B) to all traces into one table, and hold each trace against those of other models."""

import pandas as pd

from prophet_moe.routing.cross_model import leave_one_out
from prophet_moe.routing.law_schema import BATCHINGS, FITS
from prophet_moe.tables import joined, write_table
from studies.routing_law.study import RESIDUALS, TRANSFER


def build(files, parameters):
    """Write the fits and residuals of all traces, and how well each is predicted from the others."""
    fits = joined(map(pd.read_csv, files.of_fits), files.fits)
    residuals = joined(map(pd.read_csv, files.of_residuals), files.residuals)
    transfer = [row for batching in BATCHINGS for row in leave_one_out(fits, residuals, batching)]
    write_table(files.fits, fits, FITS)
    write_table(files.residuals, residuals, RESIDUALS)
    write_table(files.transfer, pd.DataFrame(transfer), TRANSFER)
