"""Compute tables 1-4 from the record."""

from prophet_moe.capacity.record import read_record
from prophet_moe.files import write_csv
from prophet_moe.present import tables
from prophet_moe.provenance.job import run


def build(files, parameters):
    """Write the four tables as CSV."""
    record = read_record(files.record)
    gpu, batch_size = parameters["gpu"], parameters["batch_size"]
    write_csv(files.table1, tables.kv_extension(record, gpu, batch_size))
    write_csv(files.table2, tables.average_extension(record, parameters["zero_fill"]))
    write_csv(files.table3, tables.by_expert_count(record))
    write_csv(files.table4, tables.max_context(record, gpu, batch_size))


if __name__ == "__main__":
    run(build, reads=["record"], writes=["table1", "table2", "table3", "table4"])
