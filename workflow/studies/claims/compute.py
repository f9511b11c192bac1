"""The ledger: every claim of the reports, judged from finished tables."""

from pathlib import Path

import pandas as pd

from prophet_moe.claims.evaluators import Tables
from prophet_moe.claims.ledger import read_ledger
from prophet_moe.claims.verdict import as_rows, judge_all
from prophet_moe.files import write_json
from prophet_moe.printed import read_printed
from prophet_moe.tables import write_table
from studies.claims.study import CLAIMS, ClaimsSettings


def load(path: Path) -> pd.DataFrame:
    """Return a finished table; a missing word is empty text, another missing value is NaN."""
    frame = pd.read_csv(path)
    words = frame.select_dtypes(include=["object", "string"]).columns
    return frame.assign(**{name: frame[name].fillna("") for name in words})


def build(files, parameters):
    """Write the ledger as CSV and, row for row equal, as JSON."""
    paths = dict(zip(parameters["tables"], files.tables, strict=True))
    claims = read_ledger(read_printed(files.printed), files.claims)
    settings = ClaimsSettings.model_validate(parameters["claims"])
    judged = as_rows(judge_all(claims, Tables(lambda name: load(paths[name])), settings.estimated_tolerance))
    write_table(files.table, judged, CLAIMS)
    write_json(files.json, judged.to_dict("records"))
