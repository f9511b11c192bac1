"""The record and the tables: shape, types, agreement of the formats, and plain references of what tables compute."""

import csv
import json
import math
import statistics
from dataclasses import replace

import jsonschema
import pandas as pd
import pytest

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.capacity.record import EXTENDED_COLUMNS, RECORD, RECORD_COLUMNS, record, rows_of, with_intervals
from prophet_moe.capacity.reference import evaluate
from prophet_moe.capacity.reserve import with_reserve
from prophet_moe.errors import UserError
from prophet_moe.files import write_csv, write_json
from prophet_moe.present.averages import average_extension
from prophet_moe.present.catalog_table import catalog_table
from prophet_moe.settings.scenario import CALIBRATED, Routing
from prophet_moe.tables import read_table
from prophet_moe.units import MIB
from prophet_moe.validation import read_json
from studies.kv_extension.compute import by_expert_count, kv_extension, max_context
from tests.conftest import ROOT
from tests.unit.capacity.test_capacity import spec_of
from tests.unit.hardware.test_hardware import MODELS
from tests.unit.hardware.test_roofline import DENSE

HEADER = ",".join(column.name for column in RECORD_COLUMNS) + "\n"
SCENARIOS = ("calibrated", "reported")


@pytest.fixture(params=SCENARIOS)
def frame(request, records) -> pd.DataFrame:
    """The record of each scenario in turn."""
    return records[request.param]


def test_shape_and_keys(frame):
    assert frame.shape == (384, 24)
    assert list(frame) == [column.name for column in RECORD_COLUMNS]
    assert not frame.duplicated(["model", "gpu", "batch_size"]).any()


def test_csv_and_json_are_equal_row_for_row(frame, tmp_path):
    write_csv(tmp_path / "r.csv", frame)
    write_json(tmp_path / "r.json", rows_of(frame))
    from_json = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(from_json, read_json(ROOT / "workflow/schemas/record.schema.json"))
    with (tmp_path / "r.csv").open() as stream:
        for text, row in zip(csv.DictReader(stream), from_json, strict=True):
            for name, value in row.items():
                assert _parsed(text[name], value) == value, name
    pd.testing.assert_frame_equal(read_table(tmp_path / "r.csv", RECORD), frame, check_dtype=False)


def _parsed(text: str, like: object) -> object:
    if like is None:
        return None if text == "" else text
    return {bool: lambda t: t == "True", int: int, float: float, str: str}[type(like)](text)


def test_numbers_have_six_significant_digits(frame):
    numbers = frame.select_dtypes("float64").melt()["value"].dropna()
    assert all(float(f"{value:.6g}") == value for value in numbers)


def test_extension_is_undefined_where_the_baseline_does_not_fit(records):
    calibrated, reported = records["calibrated"], records["reported"]
    assert (calibrated["kv_extension_factor"].isna() == ~calibrated["baseline_fits"]).all()
    assert ((reported["kv_extension_factor"] == 0) == ~reported["baseline_fits"]).all()


def test_extended_record_states_fit_native_limit_and_evidence(grids):
    for grid in grids.values():
        extended = record(with_intervals(grid), EXTENDED_COLUMNS)
        assert list(extended)[:24] == [column.name for column in RECORD_COLUMNS]
        names = {(True, True): "both", (False, True): "prophet_only", (True, False): "baseline_only"}
        fits = zip(extended["baseline_fits"], extended["prophet_fits"], strict=True)
        assert extended["fit_state"].tolist() == [names.get(pair, "neither") for pair in fits]
        known = extended["seq_len"].notna()
        assert (extended.loc[known, "prophet_native_context"] <= extended.loc[known, "seq_len"]).all()
    assert set(record(with_intervals(grids["calibrated"]), EXTENDED_COLUMNS)["evidence"]) == {"computed"}


def test_grid_of_unlike_models_is_the_reference_row_by_row(gpus):
    """Windows, compressed entries, states and a dense model in one grid, on several GPUs with reserves of their own."""
    scenario = CALIBRATED.model_copy(update={"routing": Routing(variation=0.5), "precision": "shipped"})
    names = ("gpt-oss-120b", "Mixtral-8x7B", "DeepSeek-V4-Flash", "Qwen3-Next-80B-A3B", "DeepSeek-V3.2")
    models = {name: spec_of(MODELS[name]) for name in names} | {"dense": spec_of(DENSE)}
    reserves = {"H100-80GB": 500 * MIB}
    grid = capacity_grid(Configured(models, gpus, scenario, reserves=reserves), [1, 16])
    assert len(grid) == len(models) * len(gpus) * 2
    for row in grid.to_dict("records"):
        memory = replace(model_memory(models[row["model"]], scenario), popularity_cv=0.5)
        here = with_reserve(scenario, reserves.get(row["gpu"]))
        plain = evaluate(memory, device_bytes(gpus[row["gpu"]], here), row["batch_size"], here)
        for name in ("baseline_max_context", "prophet_max_context", "kv_cache_bytes", "prophet_total_bytes"):
            assert row[name] == plain[name], (row["model"], row["gpu"], name)
    extended = record(with_intervals(grid), EXTENDED_COLUMNS).groupby("model").first()
    assert extended.loc["gpt-oss-120b", ["kv_bytes_per_token", "kv_bounded_gb"]].tolist() == [36_864, 0.00471859]
    assert extended.loc["Mixtral-8x7B", ["kv_bytes_per_token", "kv_bounded_gb"]].tolist() == [131_072, 0]
    compressed = extended.loc["DeepSeek-V4-Flash"]
    # 43 windows of 128 entries of 512 values; of 21 layers an entry and an index key per 4 tokens, of 20 one per 128.
    assert compressed["kv_bounded_gb"] == pytest.approx(43 * 128 * 1024 / 1e9, rel=1e-5)
    assert compressed["kv_bytes_per_token"] == pytest.approx(21 * (1024 + 256) / 4 + 20 * 1024 / 128, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model,gpu\nx,y\n", "column 'gpu', expected 'total_params_b'"),
        (",".join(c.name for c in RECORD_COLUMNS[:-1]) + "\n", "23 columns, expected 24"),
        (HEADER + "x," * 40 + "\n", "malformed CSV: line 2 has 41 cells, expected 24"),
        (
            HEADER + "DBRX,many" + ",1" * 22 + "\n",
            "line 2: total_params_b: got 'many', expected a value of type number",
        ),
        (HEADER + '"unclosed\n', "malformed CSV"),
    ],
)
def test_a_broken_record_is_one_line(tmp_path, text, problem):
    path = tmp_path / "record.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=problem) as raised:
        read_table(path, RECORD)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def plain_mean_extension(frame: pd.DataFrame, **where) -> tuple[float, int, float]:
    """Mean over fitting rows, their count, mean with zeros, by plain Python."""
    rows = [row for row in rows_of(frame) if all(row[key] == value for key, value in where.items())]
    fitting = [row["kv_extension_factor"] for row in rows if row["baseline_fits"]]
    return statistics.fmean(fitting) if fitting else math.nan, len(fitting), sum(fitting) / len(rows)


def test_average_extension_equals_plain_python(frame):
    for row in average_extension(frame, zero_fill=False).itertuples():
        mean, count, zero_filled = plain_mean_extension(frame, model=row.model)
        assert row.mean_floor_fitting == pytest.approx(mean, nan_ok=True)
        assert (row.fitting_rows, row.mean_floor_zero_filled) == (count, pytest.approx(zero_filled))


def test_groups_by_expert_count_equal_plain_python(frame):
    table = by_expert_count(frame)
    assert table["models"].sum() == 16
    for row in table.itertuples():
        mean, count, zero_filled = plain_mean_extension(frame, num_experts=row.num_experts)
        assert row.mean_floor_fitting == pytest.approx(mean, nan_ok=True)
        assert (row.fitting_rows, row.mean_floor_zero_filled) == (count, pytest.approx(zero_filled))


def test_ranking_follows_the_scenario(records):
    zero_filled = average_extension(records["reported"], zero_fill=True)["mean_floor_zero_filled"]
    fitting = average_extension(records["calibrated"], zero_fill=False)["mean_floor_fitting"].dropna()
    assert zero_filled.is_monotonic_decreasing
    assert fitting.is_monotonic_decreasing


def test_tables_1_and_4_show_the_reference_rows(frame):
    chosen = frame[(frame["gpu"] == "A100-80GB") & (frame["batch_size"] == 16)].set_index("model")
    extension = kv_extension(frame, "A100-80GB", 16).set_index("model")
    context = max_context(frame, "A100-80GB", 16).set_index("model")
    assert len(extension) == len(context) == 16
    for name, row in chosen.iterrows():
        assert extension.loc[name, "kv_increase_tokens"] == row["kv_increase_tokens"]
        assert context.loc[name, "prophet_max_context"] == row["prophet_max_context"]
        if not pd.isna(row["seq_len"]):
            assert context.loc[name, "prophet_native_context"] == min(row["prophet_max_context"], row["seq_len"])


def test_catalogue_table_shows_both_forms_and_every_status(models):
    table = catalog_table(models)
    assert set(table["status"]) == {"exact", "inferred", "unknown"}
    assert len(table) == 16 * table["quantity"].nunique()
    mixtral = table[table["model"] == "Mixtral-8x7B"].set_index("quantity")
    assert mixtral.loc["expert_mb", "published_over_reported"] == pytest.approx(1.5, rel=1e-4)
