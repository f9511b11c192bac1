"""Compare rules for the resident experts: KV extension, and how often a layer-step overflows."""

from prophet_moe.capacity.configured import read_configured
from prophet_moe.tables import write_table
from studies.headline.compute import resident_rules
from studies.headline.study import RULES


def build(files, parameters):
    """Write one row per rule."""
    table = resident_rules(read_configured(files, parameters), parameters["batch_sizes"])
    write_table(files.table, table, RULES)
