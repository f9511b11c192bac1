"""Say how much the popularity of the experts of the models that have counts varies."""

from dataclasses import fields

import pandas as pd

from prophet_moe.catalog.model import load_model
from prophet_moe.files import write_csv
from prophet_moe.routing.counted_law import own_popularity_cvs
from prophet_moe.routing.datasets import router_in
from prophet_moe.routing.popularity_cv import PopularityCV


def build(files, parameters):
    """Write the variation of every model that one of the folders holds counts of."""
    routers = {path.stem: router_in(path.stem, load_model(path)) for path in files.models}
    found = own_popularity_cvs([path.parent for path in files.counts], routers)
    write_csv(files.variation, pd.DataFrame(found, columns=[field.name for field in fields(PopularityCV)]))
