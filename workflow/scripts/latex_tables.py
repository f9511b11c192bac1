"""Typeset tables 1 to 4 in LaTeX."""

import pandas as pd

from prophet_moe.files import write_text
from prophet_moe.present import latex

NAMES = ("table1", "table2", "table3", "table4")


def build(files, parameters):
    """Write one .tex file per table, with its caption."""
    for name in NAMES:
        frame = pd.read_csv(getattr(files, name))
        label = parameters["label"] + name
        columns = latex.columns_of(name, frame, parameters["claimed_slowdown"])
        body = latex.table(frame, columns, parameters["captions"][name], label)
        write_text(getattr(files, f"{name}_tex"), latex.header(files.config_hash) + body)
