"""Table 21: every number of the reports' tables, printed, under the reports' own constants, and corrected."""

import math

import pandas as pd
import pytest

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.memory import model_memory
from prophet_moe.capacity.reference import evaluate
from prophet_moe.errors import UserError
from prophet_moe.printed import PRINTED_FILE, bounds, read_printed
from prophet_moe.settings.scenario import CALIBRATED, REPORTED
from prophet_moe.settings.style import Style
from prophet_moe.units import GB
from studies.report_tables.compute import report_tables, world_of
from studies.report_tables.figure import NEAR, by_table, draw, findings, headline, ratios
from studies.report_tables.study import ReportTablesSettings
from tests.conftest import ROOT
from tests.drawings import assert_no_texts_touch, assert_nothing_is_clipped, visible_texts

PRINTED = read_printed(ROOT / PRINTED_FILE)


@pytest.fixture(scope="module")
def table(models, gpus, experiment, popularity_cvs) -> pd.DataFrame:
    """Table 21 with assumed reserves."""
    worlds = [
        world_of(Configured(models, gpus, scenario, popularity_cvs), experiment.batch_sizes)
        for scenario in (REPORTED, CALIBRATED)
    ]
    return report_tables(PRINTED, *worlds, ReportTablesSettings())


def cell(table: pd.DataFrame, line: str, row: str, column: str) -> pd.Series:
    """One row of table 21."""
    found = table[(table["line"] == line) & (table["row"] == row) & (table["column"] == column)]
    assert len(found) == 1
    return found.iloc[0]


def test_every_table_of_report_003_is_there(table):
    assert {f"003 T{number}" for number in range(1, 10)} <= set(table["report_table"])
    assert len(table) == len(PRINTED)
    assert table.loc[table["corrected"].isna(), "why_empty"].ne("").all()
    assert table.loc[table["corrected"].notna(), "why_empty"].eq("").all()
    assert "not computed" not in set(table["why_empty"])


def test_components_of_table_2_are_the_reports_arithmetic(table):
    """Its parts sum to its total, although the total of its printed expert size is another one."""
    parts = table[(table["report_table"] == "003 T2") & (table["column"] == "baseline")].set_index("row")
    own = parts["under_own_constants"]
    assert own.drop("total").sum() == pytest.approx(own["total"])
    assert bool(parts.loc["total", "reproduced"])
    printed = cell(table, "003:24", "Switch-XXL-128", "one expert")["claimed"] * 128 * 24 / 1000
    assert printed == pytest.approx(309.7, abs=0.1) and own["routed experts"] == 384


def test_kv_cache_of_table_5_is_half_of_the_stated_formula(table):
    rows = table[(table["report_table"] == "003 T5") & (table["column"] == "KV cache")]
    assert (rows["under_own_constants"] / rows["claimed"]).between(1.95, 2.1).all()
    assert not rows["reproduced"].any()
    assert rows["corrected"].to_numpy() == pytest.approx(rows["under_own_constants"].to_numpy())


def test_corrected_cells_are_those_of_the_plain_reference(table, models, gpus, popularity_cvs):
    memory = model_memory(models["Switch-Large-128"], CALIBRATED)
    memory = type(memory)(**memory.__dict__ | {"popularity_cv": popularity_cvs["Switch-Large-128"].value})
    device = gpus["A100-40GB"].memory_bytes("visible")
    found = evaluate(memory, device, 4, CALIBRATED)
    row = cell(table, "003:132", "B = 4", "Prophet total")
    fixed = device - found["prophet_free_bytes"]
    assert row["corrected"] == pytest.approx((fixed + 4 * memory.cached_bytes(512)) / GB)
    assert cell(table, "003:235", "B = 4", "Prophet context")["corrected"] == found["prophet_max_context"] / 1000


def test_context_increase_of_table_7_needs_a_baseline_that_fits(table):
    rows = table[(table["report_table"] == "003 T7") & (table["column"] == "context increase")]
    assert rows["corrected"].isna().all() and set(rows["why_empty"]) == {"the baseline does not fit"}
    assert list(rows["under_own_constants"]) == [128, 32, 16, 8, 4, 2, 1]


def test_means_count_what_their_scenario_says(table):
    row = cell(table, "000:451", "DeepSeek-MoE-16B", "average extension")
    assert row["reproduced"] and row["difference"] == pytest.approx(row["corrected"] - row["claimed"])
    assert math.isnan(cell(table, "000:335", "Qwen2-MoE-57B", "average extension")["corrected"])


def test_cells_of_models_and_gpus_that_are_not_there_are_empty(models, gpus, popularity_cvs):
    """As in a build of a small selection."""
    few = {name: models[name] for name in ("Mixtral-8x7B", "Switch-Base-128")}
    one = {"A100-80GB": gpus["A100-80GB"]}
    given = [Configured(few, one, scenario, popularity_cvs) for scenario in (REPORTED, CALIBRATED)]
    worlds = [world_of(configured, [1, 16]) for configured in given]
    found = report_tables(PRINTED, *worlds, ReportTablesSettings())
    empty = found[found["why_empty"] == "not among the models and GPUs of this build"]
    assert set(empty.loc[empty["report_table"] == "003 T2", "row"]) and empty["corrected"].isna().all()
    assert cell(found, "000:440", "Switch-Base-128, A100-80GB, B = 16", "extension")["reproduced"]
    assert "not computed" not in set(found["why_empty"])
    assert len(found) == len(PRINTED)
    draw(found, Style())
    assert "nan" not in findings(found, 5)


def test_caption_says_how_wide_the_band_is():
    text = (ROOT / "workflow/studies/report_tables/README.md").read_text()
    assert f"a difference of {100 * NEAR:.0f} %" in text


def test_ends_of_a_selection_are_read():
    assert bounds("8-16") == (8, 16) and bounds("8") == (8, 8) and bounds("") == (0, math.inf)


@pytest.mark.parametrize(("printed", "half"), [("1.20", 0.005), ("48", 0.5), ("~400", 50), ("✓", 0), ("~2.5", 0.05)])
def test_last_digit_says_how_exact_a_number_is(tmp_path, printed, half):
    path = tmp_path / "printed.csv"
    lines = (ROOT / PRINTED_FILE).read_text().splitlines()
    first = lines[1].split(",")
    first[5] = printed
    path.write_text("\n".join([lines[0], ",".join(first)]) + "\n")
    assert read_printed(path)["half"].iloc[0] == pytest.approx(half)


def test_printed_word_is_one_line_of_error(tmp_path):
    path = tmp_path / "printed.csv"
    lines = (ROOT / PRINTED_FILE).read_text().splitlines()
    first = lines[1].split(",")
    first[5] = "many"
    path.write_text("\n".join([lines[0], ",".join(first)]) + "\n")
    with pytest.raises(UserError, match=r"line 2: printed: got 'many'"):
        read_printed(path)


def test_ratio_of_a_printed_zero_is_one_or_none():
    made = pd.DataFrame({"claimed": [0.0, 0.0, 4.0], "corrected": [0.0, 2.0, 2.0]})
    found = ratios(made, "corrected")
    assert found[0] == 1 and math.isnan(found[1]) and found[2] == 0.5


def test_headline_counts_the_table(table):
    counts = by_table(table)
    assert counts["cells"].sum() == len(table)
    assert f"give {table['reproduced'].sum()} of the {len(table)} numbers" in headline(table)
    assert "nan" not in findings(table, 5)


def test_texts_of_report_tables_can_be_read(table):
    figure = draw(table, Style())
    assert_nothing_is_clipped({"report_tables": figure})
    assert_no_texts_touch({"report_tables": figure})
    assert min(text.get_fontsize() for text in visible_texts(figure)) >= 6
