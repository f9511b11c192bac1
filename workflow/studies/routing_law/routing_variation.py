"""Say how much the popularity of each model's experts varies, and which exponents follow from it."""

import pandas as pd

from prophet_moe.catalog.model import load_model
from prophet_moe.files import write_csv
from prophet_moe.routing.cross_model import popularity_cvs
from prophet_moe.routing.law_schema import BATCHINGS
from studies.routing_law.exponents import exponents


def build(files, parameters):
    """Write the variation of every model, fitted or pooled, and table 5."""
    fits = pd.read_csv(files.fits)
    moe = {path.stem: load_model(path).architecture.moe for path in files.models}
    models = {name: (part.experts, part.top_k) for name, part in moe.items()}
    found = [row for batching in BATCHINGS for row in popularity_cvs(fits, models, batching)]
    write_csv(files.variation, pd.DataFrame(found))
    write_csv(files.exponents, exponents(fits, found, models, parameters["reported_exponents"]))
