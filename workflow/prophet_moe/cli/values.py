"""Numbers of the command line: a value that is not a number or is out of bounds is a UserError."""

import math
from collections.abc import Callable

from prophet_moe.errors import UserError


def whole(option: str, least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` to `most` for `option`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            expected = f"a whole number of {least:,} to {most:,}"
            raise UserError(option, f"got {_shown(text)}, expected {expected}", "Correct it.") from None
        return number

    return read


def between(option: str, unit: str, least: float, most: float) -> Callable[[str], float]:
    """A reader of numbers of `unit` from `least` to `most` for `option`."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            expected = f"{least:,g} to {most:,g} {unit}"
            raise UserError(option, f"got {_shown(text)}, expected {expected}", "Correct it.") from None
        return number

    return read


def _shown(text: str) -> str:
    return text if text.isascii() and text.isprintable() and 0 < len(text) <= 40 else repr(text[:40])
