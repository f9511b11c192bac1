"""What is gained within a limit of slowdown, read off simulated points."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prophet_moe.tables import GPU, MODEL, Table, integer, interval, number, text

Floats = NDArray[np.float64]

CONFIGURATION = ["model", "gpu", "batch_size"]
"""Columns that name a configuration."""
TIMES = text("times", "What times rest on: measured (here), or estimated (from others' measurements).")
CONTEXT_GAINED = Table(
    "table11_context_gained",
    (
        MODEL,
        GPU,
        integer("batch_size", "", "Sequences decoded together, B."),
        text("strategy", "on_demand (predicts nothing), prophet, or perfect_prefetch (the oracle)."),
        text("trace", "Recorded trace or calibrated routing that was replayed for the model."),
        TIMES,
        integer(
            "baseline_max_context", "tokens", "Longest context per sequence with all experts resident; 0: none fits."
        ),
    ),
    repeated=(
        number(
            "resident_experts_at_<limit>x",
            "experts",
            "Resident experts per layer at which the limit of slowdown is met, interpolated; the smallest simulated "
            "number where it never binds.",
        ),
        number(
            "max_context_at_<limit>x",
            "tokens",
            "Longest context within the limit of slowdown; at least the baseline's.",
        ),
        number(
            "kv_extension_at_<limit>x",
            "",
            "That context over the baseline's; empty where the baseline does not fit.",
        ),
        *interval("kv_extension_at_<limit>x", "", "over sequences"),
        number("kv_extension_at_<limit>x_bound", "", "The same with the times of the datasheet, of the first sample."),
    ),
)
"""Table 11, of the frontier, which table 2 and figure 2 read as well."""


def reach(slowdown: Floats, gained: Floats, limits: Sequence[float] | Floats) -> Floats:
    """(limits,): the most that is gained within each limit of slowdown, read linearly between simulated points.

    `slowdown` and `gained` (n,) go from all experts resident, at a slowdown of 1, to few. What is gained at a smaller
    slowdown counts at a larger one too, and beyond the last point nothing more is gained.
    """
    return np.interp(limits, np.maximum.accumulate(slowdown), np.maximum.accumulate(gained))
