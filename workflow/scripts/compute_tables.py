"""Compute tables 1-4 from the record."""

from prophet_moe.capacity.record import read_record
from prophet_moe.files import write_csv
from prophet_moe.present.tables import tables
from prophet_moe.provenance.job import run


def build(files, parameters):
    """Write the four tables as CSV."""
    for name, table in tables(read_record(files.record), **parameters).items():
        write_csv(getattr(files, name), table)


if __name__ == "__main__":
    run(build, reads=["record"], writes=["table1", "table2", "table3", "table4"])
