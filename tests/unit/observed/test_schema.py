"""Files of observations: every mistake is one line that names the file, the line and the column."""

import math

import pytest

from prophet_moe.errors import UserError
from prophet_moe.observed.schema import KINDS, MEMORY, check_text, read_observations, result_frame, result_row
from tests.conftest import ROOT
from tests.unit.observed.builders import ROW, csv_of


def test_committed_observations_are_valid():
    rows = read_observations(ROOT / "resources/observations/memory.csv", MEMORY)
    assert len(rows) == 57
    assert rows["source"].str.len().min() > 0


def test_missing_columns_are_empty(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(csv_of(ROW))
    rows = read_observations(path, MEMORY)
    assert list(rows.columns) == [column.name for column in MEMORY.columns]
    assert math.isnan(rows["kv_cache_gib_per_gpu"][0])
    assert rows["notes"][0] == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": ""}, "line 2: source: is empty"),
        ({"id": ""}, "line 2: id: is empty"),
        ({"gpu_memory_utilization": "1.2"}, "line 2: gpu_memory_utilization: got 1.2, expected 0 to 1"),
        ({"kv_cache_gib_per_gpu": "80"}, "got 80 GiB, the KV pool is above the card's 79.11"),
        ({"kv_cache_gib_per_gpu": "40"}, "are 96.8803 GiB, the card has 79.11"),
        ({"weights_gib_per_gpu": "-1"}, "weights_gib_per_gpu: got -1"),
        ({"weights_gib_per_gpu": "many"}, "weights_gib_per_gpu: got 'many'"),
        ({"tp": "1.5"}, "tp: got '1.5'"),
        ({"tp": "0"}, "tp: got 0, expected 1"),
        ({"max_num_seqs": "inf"}, "max_num_seqs"),
        ({"weights": "57"}, "column 'weights' is unknown"),
    ],
)  # fmt: skip
def test_impossible_row_is_refused_by_line_and_column(changes, told, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(csv_of(ROW | changes))
    with pytest.raises(UserError) as refused:
        read_observations(path, MEMORY)
    assert told in str(refused.value)
    assert "snakemake" not in str(refused.value)
    assert "mine.csv" in str(refused.value) and "\n" not in str(refused.value)


def test_file_without_a_source_column_is_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(csv_of({name: cell for name, cell in ROW.items() if name != "source"}))
    with pytest.raises(UserError, match="column 'source' is missing"):
        read_observations(path, MEMORY)


def test_id_given_twice_is_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(csv_of(ROW, ROW))
    with pytest.raises(UserError, match=r"line 3: id: got 'a1' a second time"):
        read_observations(path, MEMORY)


def test_time_without_a_unit_and_hit_rate_above_one_are_refused():
    with pytest.raises(UserError, match="unit: is empty"):
        check_text("id,quantity,value,unit,source\nt1,TPOT,10,,a\n", KINDS["times"], "times.csv")
    with pytest.raises(UserError, match=r"hit_rate: got 1\.5, expected 0 to 1"):
        check_text("id,engine,model,hit_rate,source\nh1,imp,OLMoE,1.5,a\n", KINDS["hit_rates"], "hit_rates.csv")


def test_negative_pool_of_a_model_that_does_not_fit_is_possible(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(csv_of(ROW | {"kv_cache_gib_per_gpu": "-2.14"}))
    assert read_observations(path, MEMORY)["kv_cache_gib_per_gpu"][0] == -2.14


def test_error_of_a_result_is_relative_to_what_was_measured():
    frame = result_frame([result_row(id="a", measured=50.0, predicted=51.0), result_row(id="b", measured=0.0)])
    assert frame["error_pct"][0] == pytest.approx(2.0)
    assert math.isnan(frame["error_pct"][1])
    assert result_row(id="c", left_out="a reason")["clean"] is False
