"""Write the numbers that the paper quotes, as LaTeX macros, and the lines that end a build."""

import pandas as pd

from prophet_moe.capacity.record import read_record
from prophet_moe.files import write_text
from prophet_moe.present import latex
from prophet_moe.present.quoted_numbers import (
    grid_numbers,
    headlines,
    predicted_set_numbers,
    prefill_numbers,
    price_numbers,
    rule_numbers,
    scenario_numbers,
)


def build(files, parameters):
    """Collect the numbers of every scenario; the first one gives the size of the grid."""
    records = {name: read_record(path) for name, path in zip(parameters["scenarios"], files.records, strict=True)}
    numbers = grid_numbers(next(iter(records.values())))
    for name, record in records.items():
        numbers |= scenario_numbers(name, record)
    default = next(iter(records.values()))
    gained, prefill = (pd.read_csv(files.gained[0]) if files.gained else None), pd.read_csv(files.prefill)
    numbers |= {} if gained is None else price_numbers(gained, default, parameters["claimed_slowdown"])
    numbers |= prefill_numbers(prefill) | rule_numbers(pd.read_csv(files.rules))
    numbers |= predicted_set_numbers(pd.read_csv(files.sets[0])) if files.sets else {}
    write_text(files.macros, latex.header(files.config_hash) + latex.macros(numbers))
    write_text(files.headlines, headlines(records, gained, prefill) + "\n")
