"""Tell the headline again with one assumption changed at a time."""

from prophet_moe.capacity.configured import read_configured
from prophet_moe.tables import write_table
from studies.headline.compute import headline_sensitivity
from studies.headline.study import SENSITIVITY, HeadlineSettings


def build(files, parameters):
    """Write one row per assumption and value."""
    changes = HeadlineSettings.model_validate(parameters["sensitivity"])
    table = headline_sensitivity(read_configured(files, parameters), parameters["batch_sizes"], changes)
    write_table(files.table, table, SENSITIVITY)
