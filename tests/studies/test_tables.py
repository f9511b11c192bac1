"""Every declared table: the committed file has its columns and types, and each column says what it means."""

from dataclasses import fields

import pytest

from prophet_moe.capacity.record import RECORDS
from prophet_moe.predict.schema import PredictorScore
from prophet_moe.present.catalog_table import CATALOG
from prophet_moe.present.documentation import declared_tables
from prophet_moe.routing.cross_model import LeaveOneOut
from prophet_moe.routing.law_schema import FITS, Fit, Residual
from prophet_moe.routing.popularity_cv import PopularityCV
from prophet_moe.routing.schema import Row
from prophet_moe.study import load_studies
from prophet_moe.tables import read_table, write_table
from studies.comparison.deduplication import Deduplication
from studies.comparison.study import DEDUPLICATION
from studies.prediction.study import SCORES
from studies.routing_law.study import RESIDUALS, TRANSFER, VARIATION
from studies.routing_statistics.study import STATISTICS
from tests.conftest import ROOT

TABLES = declared_tables()
FOLDERS = ("", "reported/")
COMMITTED = {
    path: table
    for table in TABLES
    for path in (table.path.format(scenario_dir=folder) for folder in (FOLDERS if table.by_scenario else FOLDERS[:1]))
    if (ROOT / path).exists()
}
"""Declared tables by the paths of their committed files."""
ROWS = {
    Deduplication: DEDUPLICATION,
    Fit: FITS,
    LeaveOneOut: TRANSFER,
    PopularityCV: VARIATION,
    PredictorScore: SCORES,
    Residual: RESIDUALS,
    Row: STATISTICS,
}
"""Rows that the library makes, and the tables that they are written to."""
UNCOMMITTED = {"memory_validation"}
"""Tables that a build has only where a GPU was measured."""


def test_every_committed_table_is_declared():
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tables").rglob("*.csv")}
    assert files == set(COMMITTED)


def test_every_declared_table_is_committed():
    assert {table.name for table in TABLES} - {table.name for table in COMMITTED.values()} == UNCOMMITTED


@pytest.mark.parametrize("path", COMMITTED)
def test_committed_table_is_read_and_written_as_declared(path, tmp_path):
    """Reading fails on another column and on a cell of another type; what is written is read as it was."""
    frame = read_table(ROOT / path, COMMITTED[path])
    write_table(tmp_path / "again.csv", frame, COMMITTED[path])
    again = read_table(tmp_path / "again.csv", COMMITTED[path])
    assert len(frame) and again.equals(frame)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.path)
def test_every_column_says_what_it_means(table):
    columns = (*table.columns, *table.repeated)
    assert columns
    assert len({column.name for column in columns}) == len(columns)
    for column in columns:
        assert len(column.description.split()) >= 3, column.name
        assert column.description.endswith("."), column.name
        assert (column.kind in ("integer", "number")) or not column.unit, column.name


@pytest.mark.parametrize("path", COMMITTED)
def test_table_with_another_column_is_refused(path, tmp_path):
    table, frame = COMMITTED[path], read_table(ROOT / path, COMMITTED[path])
    for other in (frame.assign(more=1), frame.drop(columns=table.columns[-1].name)):
        with pytest.raises(ValueError, match=table.name):
            write_table(tmp_path / "other.csv", other, table)
    assert not list(tmp_path.iterdir())


def test_tables_of_studies_have_names_of_their_own():
    names = [table.name for study in load_studies().values() for table in study.tables]
    names += [CATALOG.name, *(table.name for table in RECORDS)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_rows_of_the_library_have_the_declared_columns(row):
    assert [field.name for field in fields(row)] == [column.name for column in ROWS[row].columns]
