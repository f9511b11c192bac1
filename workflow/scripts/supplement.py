"""Compile the supplement with latexmk."""

from prophet_moe.present.typeset import typeset


def build(files, parameters):
    """Compile the main file; the log of TeX goes to standard output."""
    typeset(files.main)
