"""The inputs that are varied: each is a number from 0 to 1, which stands for a level or a place between two ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Input:
    """One input: levels of equal weight, or everything between two ends."""

    name: str
    levels: Sequence[object]
    """The levels, or the two ends."""
    base: int | float
    """The place of the level at the reference, or the number there."""
    between: bool = False
    """Whether all numbers between the ends are possible."""

    def values(self, unit: Floats) -> Floats:
        """Return numbers between the ends, or the places of levels, for numbers from 0 to 1."""
        if self.between:
            low, high = self.levels
            return low + (high - low) * unit
        return np.minimum(np.floor(unit * len(self.levels)), len(self.levels) - 1)

    def told(self, value: float) -> str:
        """Return what a value is called in the table."""
        return f"{value:g}" if self.between else _named(self.levels[int(value)])

    def steps(self) -> list[float]:
        """Return the values of a change one at a time: both ends, or the places of all levels."""
        return [float(each) for each in (self.levels if self.between else range(len(self.levels)))]


def _named(level: object) -> str:
    return f"{level:g}" if isinstance(level, float) else str(level)


def at_reference(inputs: Sequence[Input], count: int) -> dict[str, Floats]:
    """Return `count` configurations, all as at the reference."""
    return {each.name: np.full(count, float(each.base)) for each in inputs}


def changed(inputs: Sequence[Input], changes: Sequence[Mapping[str, float]]) -> dict[str, Floats]:
    """Return one configuration for each of `changes`, everything else as at the reference."""
    found = at_reference(inputs, len(changes))
    for row, change in enumerate(changes):
        for name, value in change.items():
            found[name][row] = value
    return found
