"""Scenario `reported` gives the numbers that the report prints, at the printed precision."""

import pandas as pd
import pytest

from prophet_moe.capacity.configured import Configured
from prophet_moe.printed import PRINTED_FILE, read_printed
from prophet_moe.settings.scenario import REPORTED
from studies.kv_extension import compute as tables
from studies.report_tables.compute import World, under_own_constants, world_of
from studies.report_tables.study import ReportTablesSettings
from tests.conftest import ROOT

PRINTED = read_printed(ROOT / PRINTED_FILE)
GOLDEN = PRINTED[PRINTED["evidence"] != ""]
"""Numbers that nobody disputes: law (no fitted constant), fitted (constants fitted to them), forced (preset)."""


@pytest.fixture(scope="module")
def world(experiment, models, gpus) -> World:
    """The grid of the report's constants."""
    return world_of(Configured(models, gpus, REPORTED), experiment.batch_sizes)


@pytest.mark.parametrize("at", GOLDEN.index, ids=lambda at: f"{GOLDEN['source'][at]} {GOLDEN['quantity'][at]}")
def test_printed_number(at, world):
    cell = GOLDEN.loc[at]
    scale = 1000 if cell["unit"] == "thousand tokens" else 1
    found = under_own_constants(cell, PRINTED, world, ReportTablesSettings()) / scale
    assert found == pytest.approx(cell["claimed"], abs=cell["half"] * 1.0001)


def test_golden_numbers_are_as_many_as_were_found():
    assert GOLDEN["evidence"].value_counts().to_dict() == {"law": 61, "fitted": 36, "forced": 8}


def test_tables_2_and_3_hold_the_means_of_the_report(records):
    """What figures and tables 2 and 3 are made of gives the same means as the cells above."""
    rows = GOLDEN[(GOLDEN["of"] == "mean") & GOLDEN["table"].isin(["000 T2", "000 T3"])]
    by_model = tables.average_extension(records["reported"], zero_fill=True).set_index("model")
    by_count = tables.by_expert_count(records["reported"]).set_index("num_experts")
    columns = {
        "kv_extension_factor": "mean_floor_zero_filled",
        "expert_savings_pct": "mean_expert_savings_pct",
        "dedup_factor": "mean_dedup_factor",
    }
    assert set(rows["quantity"]) == set(columns)
    for cell in rows.itertuples():
        table, key = (by_model, cell.model) if cell.model else (by_count, int(cell.experts))
        found = table.loc[key, columns[cell.quantity]]
        assert found == pytest.approx(cell.claimed, abs=cell.half * 1.0001), cell.source


@pytest.mark.parametrize("name", ["expert_total_gb", "activation_gb_per_sequence"])
def test_recorded_constants_agree_with_the_formulas(name, models):
    """The recorded totals are what the scenario's formulas give: nothing is kept twice with two values."""
    for spec in models.values():
        told = spec.reported
        if name == "expert_total_gb" and told.expert_mb.value:
            computed = told.expert_mb.value * told.experts.value * told.layers.value / 1024
        elif name == "activation_gb_per_sequence" and told.total_params_b.value:
            computed = REPORTED.activation.gb_per_billion_parameters * told.total_params_b.value
        else:
            assert getattr(told, name).value is None
            continue
        assert getattr(told, name).value == pytest.approx(computed, rel=2e-4), spec.name


def test_what_is_forced_is_marked(grids, models):
    evidence = grids["reported"].groupby("model")["evidence"].first()
    assert (evidence == "forced").sum() == 11
    assert set(evidence) == {"forced", "fitted"}
    assert all((evidence[name] == "forced") == spec.reported.forced_not_fitting for name, spec in models.items())


def test_every_printed_number_has_its_line_and_quantity():
    assert PRINTED["source"].str.fullmatch(r"00[0-3]:\d+").all()
    assert PRINTED["of"].isin(["at", "mean", "max", "min", "count"]).all()
    assert isinstance(PRINTED, pd.DataFrame) and not PRINTED.duplicated(["source", "row", "column"]).any()
