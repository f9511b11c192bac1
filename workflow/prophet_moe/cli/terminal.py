"""How the command line prints."""

import sys

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 140
"""Columns where the output goes to a file or a pipe: wide enough for the tables."""


def console(least: int = 0) -> Console:
    """A console as wide as the terminal, or as `least` columns where it is narrower."""
    terminal = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
    return terminal if terminal.width >= least else Console(width=least)


def errors() -> Console:
    """A console on standard error."""
    return Console(stderr=True)
