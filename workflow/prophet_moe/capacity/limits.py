"""What is gained within a limit of slowdown, read off simulated points."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIGURATION = ["model", "gpu", "batch_size"]
"""Columns that name a configuration."""


def reach(slowdown: Floats, gained: Floats, limits: Sequence[float] | Floats) -> Floats:
    """(limits,): the most that is gained within each limit of slowdown, read linearly between simulated points.

    `slowdown` and `gained` (n,) go from all experts resident, at a slowdown of 1, to few. What is gained at a smaller
    slowdown counts at a larger one too, and beyond the last point nothing more is gained.
    """
    return np.interp(limits, np.maximum.accumulate(slowdown), np.maximum.accumulate(gained))
