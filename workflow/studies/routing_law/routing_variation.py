"""Say how much the popularity of each model's experts varies, and which exponents follow from it."""

import pandas as pd

from prophet_moe.catalog.model import load_model
from prophet_moe.routing.cross_model import popularity_cvs
from prophet_moe.routing.law_schema import BATCHINGS, FITS
from prophet_moe.routing.popularity_cv import popularity_cvs_of
from prophet_moe.tables import read_table, write_table
from studies.routing_law.exponents import BATCHING, exponents
from studies.routing_law.study import EXPONENTS, VARIATION


def build(files, parameters):
    """Write the variation of every model, fitted or pooled, and table 5."""
    fits = read_table(files.fits, FITS)
    moe = {path.stem: load_model(path).architecture.moe for path in files.models}
    models = {name: (part.experts, part.top_k) for name, part in moe.items()}
    found = [row for batching in BATCHINGS for row in popularity_cvs(fits, models, batching)]
    write_table(files.variation, pd.DataFrame(found), VARIATION)
    known = {row.model: row for row in found if row.batching == BATCHING} | popularity_cvs_of(files.published, BATCHING)
    table = exponents(fits, known, models, parameters["reported_exponents"])
    write_table(files.exponents, table, EXPONENTS)
