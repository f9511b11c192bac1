"""Say how much the popularity of the experts of every model varies, by counts of published models."""

from dataclasses import fields

import pandas as pd

from prophet_moe.catalog.model import load_model
from prophet_moe.files import write_csv
from prophet_moe.routing.popularity_cv import PopularityCV
from prophet_moe.routing.published import read_balancing, read_published
from prophet_moe.routing.published_cv import popularity_cvs


def build(files, parameters):
    """Write the popularity CV of every model with routed experts: from its own counts, or pooled."""
    moe = {path.stem: load_model(path).architecture.moe for path in files.models}
    shapes = {name: (part.experts, part.top_k) for name, part in moe.items() if part}
    rows, balancing = read_published(files.observations), read_balancing(files.balancing)
    found = popularity_cvs(shapes, rows, balancing, parameters["text"]).values()
    write_csv(files.variation, pd.DataFrame(found, columns=[field.name for field in fields(PopularityCV)]))
