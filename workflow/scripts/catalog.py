"""Write the catalogue as a table: published and reported constants side by side."""

from prophet_moe.catalog.model import load_model
from prophet_moe.present.catalog_table import CATALOG, catalog_table
from prophet_moe.tables import write_table


def build(files, parameters):
    """Write one row per model and constant."""
    write_table(files.table, catalog_table({path.stem: load_model(path) for path in files.models}), CATALOG)
