"""The ledger: every claim of the reports, judged from finished tables."""

from prophet_moe.claims.bindings import finished
from prophet_moe.claims.ledger import read_ledger
from prophet_moe.claims.verdict import as_rows, judge_all
from prophet_moe.files import write_json
from prophet_moe.printed import read_printed
from prophet_moe.tables import write_table
from studies.claims.study import CLAIMS, ClaimsSettings


def build(files, parameters):
    """Write the ledger as CSV and, row for row equal, as JSON."""
    tables = finished(dict(zip(parameters["tables"], files.tables, strict=True)))
    claims = read_ledger(read_printed(files.printed), files.claims)
    settings = ClaimsSettings.model_validate(parameters["claims"])
    judged = as_rows(judge_all(claims, tables, settings.estimated_tolerance))
    write_table(files.table, judged, CLAIMS)
    write_json(files.json, judged.to_dict("records"))
