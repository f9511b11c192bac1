"""Write the numbers that the paper quotes, as LaTeX macros, and the lines that end a build."""

from prophet_moe.capacity.limits import CONTEXT_GAINED
from prophet_moe.capacity.record import RECORD
from prophet_moe.files import write_text
from prophet_moe.present import latex
from prophet_moe.present.quoted_numbers import (
    grid_numbers,
    headlines,
    observed_numbers,
    predicted_set_numbers,
    prefill_numbers,
    price_numbers,
    rule_numbers,
    scenario_numbers,
)
from prophet_moe.tables import read_table
from studies.headline.study import RULES
from studies.observed.study import OBSERVED, ROWS
from studies.prediction.study import SETS
from studies.prefill.study import PREFILL


def build(files, parameters):
    """Collect the numbers of every scenario; the first one gives the size of the grid."""
    records = {
        name: read_table(path, RECORD) for name, path in zip(parameters["scenarios"], files.records, strict=True)
    }
    numbers = grid_numbers(next(iter(records.values())))
    for name, record in records.items():
        numbers |= scenario_numbers(name, record)
    default = next(iter(records.values()))
    gained = read_table(files.gained[0], CONTEXT_GAINED) if files.gained else None
    prefill = read_table(files.prefill, PREFILL)
    numbers |= {} if gained is None else price_numbers(gained, default, parameters["claimed_slowdown"])
    numbers |= prefill_numbers(prefill) | rule_numbers(read_table(files.rules, RULES))
    numbers |= predicted_set_numbers(read_table(files.sets[0], SETS)) if files.sets else {}
    if files.observed:
        numbers |= observed_numbers(*map(read_table, files.observed, (OBSERVED, ROWS)))
    write_text(files.macros, latex.header(files.config_hash) + latex.macros(numbers))
    write_text(files.headlines, headlines(records, gained, prefill) + "\n")
