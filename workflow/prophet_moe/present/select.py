"""Rows of a data frame by the values of its columns."""

import pandas as pd


def where(frame: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows whose columns equal the `values` given by name."""
    kept = pd.Series(True, frame.index)
    for column, value in values.items():
        kept &= frame[column] == value
    return frame[kept]
