"""Lines of KV extension against slowdown: what is read at each limit of slowdown, and the axis of limits."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from prophet_moe.capacity.limits import CONFIGURATION, reach

LIMITS = np.concatenate([np.linspace(1, 2, 101), np.geomspace(2, 20, 101)[1:]])
"""Limits of slowdown at which lines are read, a fine grid of the axis."""
AXIS = "Slowdown at most (log of time lost)"
"""The axis of limits and its scale, which `_place_of` makes."""
TICKS = (1, 1.05, 1.2, 2, 5, 10, 20)
"""Slowdowns named on an axis."""
ROUNDING = 1e-4
"""Share by which a gain must exceed another to be more, beyond the digits that tables keep."""
NEAR_ONE = 0.05
"""Time lost, as a share, up to which the axis is nearly linear; beyond it is logarithmic."""


def fitting(points: pd.DataFrame) -> pd.DataFrame:
    """The points of configurations whose baseline fits: of others, no context is a gain over none."""
    return points[points["kv_extension_factor"].notna()]


def selection(points: pd.DataFrame, limits: np.ndarray, slowdown: str = "slowdown") -> pd.DataFrame:
    """The most KV extension at each limit: a row per configuration whose baseline fits and strategy.

    Read as table 11 is, by `capacity.limits.reach`; nothing is below 1, the baseline. Columns are the limits.
    `slowdown` is the column that is read: the estimate, or an end of its interval.
    """
    ordered = fitting(points).sort_values("resident_experts", ascending=False, kind="stable")
    rows = {
        key: np.maximum(1, reach(mine[slowdown].to_numpy(), mine["kv_extension_factor"].to_numpy(), limits))
        for key, mine in ordered.groupby([*CONFIGURATION, "strategy"])
    }
    index = pd.MultiIndex.from_tuples(rows, names=[*CONFIGURATION, "strategy"])
    return pd.DataFrame(list(rows.values()), index=index, columns=limits)


def slowdown_axis(ax: Axes, last: float = LIMITS[-1], ticks: tuple[float, ...] = TICKS) -> None:
    """Make the x axis one of limits of slowdown from 1 to `last`, with the `ticks` up to there."""
    ax.set_xscale("function", functions=(_place_of, _slowdown_at))
    ax.set_xlim(1, last)
    ax.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= last]))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())


def _place_of(slowdown: np.ndarray) -> np.ndarray:
    """Return the position of a slowdown on the axis: nearly linear in the lost time, then logarithmic."""
    return np.log1p((np.maximum(slowdown, 1) - 1) / NEAR_ONE)


def _slowdown_at(place: np.ndarray) -> np.ndarray:
    return 1 + NEAR_ONE * np.expm1(place)
