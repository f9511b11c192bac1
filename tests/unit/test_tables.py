"""Tables declared as columns: what is written and read, and every mistake in a file as one line."""

from pathlib import Path

import pandas as pd
import pytest

from prophet_moe.errors import UserError
from prophet_moe.tables import (
    TOLERANCE,
    Table,
    flag,
    integer,
    interval,
    joined,
    number,
    read_table,
    text,
    tolerances,
    write_table,
)

TABLE = Table(
    "example",
    (text("model", "Name of it."), integer("experts", "", "Number of them."), flag("fits", "Whether it fits.")),
    repeated=(number("gain_at_<limit>x", "", "Gain within it."), *interval("gain_at_<limit>x", "", "over sequences")),
)
HEADER = "model,experts,fits"
BLOCK = "gain_at_{0}x,gain_at_{0}x_low,gain_at_{0}x_high"


def written(folder, content: str):
    """A file with this content."""
    path = folder / "example.csv"
    path.write_text(content)
    return path


def test_read_table_is_typed_and_keeps_missing_cells(tmp_path):
    path = written(tmp_path, f"{HEADER}\na,8,True\n,,\n")
    frame = read_table(path, TABLE)
    assert [str(kind) for kind in frame.dtypes] == ["str", "Int64", "boolean"]
    assert frame["model"].tolist() == ["a", ""]
    assert frame["experts"].isna().tolist() == frame["fits"].isna().tolist() == [False, True]
    assert frame["fits"][0]


def test_written_table_is_read_as_it_was(tmp_path):
    path = written(tmp_path, f"{HEADER},{BLOCK.format('1.2')}\na,8,True,1.5,1.25,\nb,,,,,inf\n")
    frame = read_table(path, TABLE)
    write_table(tmp_path / "again.csv", frame, TABLE)
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("limits", [(), ("1.2",), ("1.05", "1.2", "2")])
def test_repeated_columns_are_a_block_for_each_value(limits):
    names = [*HEADER.split(","), *(name for limit in limits for name in BLOCK.format(limit).split(","))]
    assert [column.name for column in TABLE.columns_among(names)] == names
    assert {column.kind for column in TABLE.columns_among(names)[3:]} <= {"number"}


@pytest.mark.parametrize(
    "repeated",
    [
        "gain_at_1.2x,gain_at_1.2x_low",
        "gain_at_1.2x,gain_at_1.2x_high,gain_at_1.2x_low",
        "gain_at_1.2x,gain_at_2x,gain_at_1.2x_low,gain_at_2x_low,gain_at_1.2x_high,gain_at_2x_high",
        "gain_at_1.2x,gain_at_2x_low,gain_at_2x_high",
        "gain_at_1.2x_low,gain_at_1.2x_high",
        "gain_at_x,gain_at_x_low,gain_at_x_high",
        f"{BLOCK.format('1.2')},more",
    ],
)
def test_incomplete_or_mixed_blocks_are_refused(tmp_path, repeated):
    names = [*HEADER.split(","), *repeated.split(",")]
    with pytest.raises(ValueError, match="example"):
        write_table(tmp_path / "x.csv", pd.DataFrame(columns=names), TABLE)
    with pytest.raises(UserError, match=r"has column|columns, expected"):
        read_table(written(tmp_path, ",".join(names) + "\n"), TABLE)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "malformed CSV"),
        ("model,fits,experts\n", "column 'fits', expected 'experts'"),
        ("model,experts\n", "2 columns, expected 3"),
        (f"{HEADER}\na,8,True,1\n", "line 2 has 4 cells, expected 3"),
        (f"{HEADER}\na,8\n", "line 2 has 2 cells, expected 3"),
        (f"{HEADER}\na,many,True\n", "line 2: experts: got 'many', expected a value of type integer"),
        (f"{HEADER}\na,8,True\na,8.5,True\n", "line 3: experts: got '8.5', expected a value of type integer"),
        (f"{HEADER}\na,inf,True\n", "line 2: experts: got 'inf', expected a value of type integer"),
        (f"{HEADER}\na,8,yes\n", "line 2: fits: got 'yes', expected a value of type boolean"),
        (f'{HEADER}\n"a,8,True\n', "malformed CSV"),
    ],
)
def test_file_that_is_not_the_table_is_one_line(tmp_path, content, problem):
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=problem) as raised:
        read_table(path, TABLE)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_missing_table_is_one_line_with_what_builds_it(tmp_path):
    with pytest.raises(UserError, match=r"no such file.*snakemake"):
        read_table(tmp_path / "none.csv", TABLE)


def test_tolerances_join_tables_of_one_name():
    both = tolerances([Table("a", (integer("n", "", "A number."),)), Table("a", (number("x", "", "A number."),))])
    assert both == {"a.csv": {"n": 0, "x": TOLERANCE}}


def test_paths_follow_from_name_and_scenario():
    paths = [
        Table("table9", ()).path,
        Table("frontier", ()).path,
        Table("table1", (), by_scenario=True, extended=True).path,
    ]
    assert paths == ["tables/table9.csv", "tables/data/frontier.csv", "tables/{scenario_dir}extended/table1.csv"]


def test_joined_rows_are_those_of_all_frames_in_order():
    frames = (pd.DataFrame({"a": [number]}) for number in (2, 1))
    assert joined(frames, Path("tables/a.csv"))["a"].tolist() == [2, 1]


def test_joined_nothing_is_one_line_that_names_the_table():
    with pytest.raises(UserError, match=r"^tables/a\.csv: nothing that it could be made from is available\. The notes"):
        joined([], Path("tables/a.csv"))
