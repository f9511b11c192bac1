"""Typeset tables 1 to 4 in LaTeX."""

from prophet_moe.files import write_text
from prophet_moe.present import latex
from prophet_moe.tables import read_table
from studies.kv_extension.study import TABLES

NAMES = ("table1", "table2", "table3", "table4")


def build(files, parameters):
    """Write one .tex file per table, with its caption."""
    for name, declared in zip(NAMES, TABLES, strict=True):
        frame = read_table(getattr(files, name), declared)
        label = parameters["label"] + name
        columns = latex.columns_of(name, frame, parameters["claimed_slowdown"])
        body = latex.table(frame, columns, parameters["captions"][name], label)
        write_text(getattr(files, f"{name}_tex"), latex.header(files.config_hash) + body)
