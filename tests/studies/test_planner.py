"""Plans beside what people measured: curves, factors, rows by row, order, slots, the figure; and the goals."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from prophet_moe.catalog.engine_offload import load_offload
from prophet_moe.observed import offload_fit
from prophet_moe.observed.hit_rates import HIT_RATE, OF_OTHERS
from prophet_moe.observed.schema import HIT_RATES, read_observations
from prophet_moe.planning.stand_in import routings_in
from prophet_moe.routing.calibrated import read_calibrated
from prophet_moe.routing.synthetic import Scalars
from prophet_moe.settings.style import Style
from prophet_moe.validation import read_csv
from studies.planner.compute import (
    SLOT_COLUMNS,
    SPLIT_COLUMNS,
    Predictor,
    curve_rows,
    in_order,
    miss_factors,
    plan_rows,
    rate_rows,
    slot_rows,
    slots_tried,
    split_rows,
    table_of,
    wanted,
)
from studies.planner.figure import draw, findings, headline
from studies.planner.study import PLANNER, RATE, PlannerSettings
from tests.conftest import ROOT
from tests.drawings import assert_no_texts_touch, assert_nothing_is_clipped
from tests.unit.planning.situations import curve, situation

SETTINGS = PlannerSettings(tokens=64, sequences=2, points=12)
FOLDER = ROOT / "resources/routing"
ROUTINGS = routings_in(FOLDER)
SHAPES = [(64, 6), (128, 2), (128, 4), (128, 6), (128, 8), (256, 6), (256, 8), (512, 10)]
OBSERVED = read_observations(ROOT / "resources/observations/hit_rates.csv", HIT_RATES)
PRESETS = load_offload(ROOT / "config/offload.yaml")
PRINTED = [
    dict(zip(SLOT_COLUMNS, row, strict=True))
    for row in read_csv(ROOT / "resources/observations/slots.csv", list(SLOT_COLUMNS))
]
SPLITS = [
    dict(zip(SPLIT_COLUMNS, row, strict=True))
    for row in read_csv(ROOT / "resources/observations/splits.csv", list(SPLIT_COLUMNS))
]
BYTES = {("Qwen3.5-35B-A3B", "q4_k"): 1.77e6, ("GLM-4.7-Flash", "q4_k"): 5.31e6}


@pytest.fixture(scope="module")
def curves() -> pd.DataFrame:
    """Coarse hit rates of a few shapes, with made-up factors."""
    scalars = {name: Scalars(**read_calibrated(FOLDER / f"{name}.json").scalars.model_dump()) for name in ROUTINGS}
    found = curve_rows(wanted(SHAPES, ROUTINGS), scalars, SETTINGS)
    return found.assign(miss_factor_own=1.5, miss_factor_stand_in=2.0)


@pytest.fixture(scope="module")
def using(curves) -> Predictor:
    """What plans rest on in these tests; a shape that is not in the table has a made-up curve."""
    return Predictor(curves, ROUTINGS, lambda routing, experts, top_k: replace(curve(experts, top_k), origin=routing))


@pytest.fixture(scope="module")
def table(using) -> pd.DataFrame:
    """Table 15 on coarse curves."""
    rates = rate_rows(OBSERVED, PRESETS, using) + split_rows(SPLITS, PRESETS, using)
    rows = in_order(rates) + slot_rows(PRINTED, BYTES)
    for number in range(4):
        slow = replace(situation().cost.miss, middle=1.0 + number, high=4.0 + number)
        rows += plan_rows(f"model {number}", "GPU", situation(cost=replace(situation().cost, miss=slow)))
    return table_of(rows)


def test_slots_tried_reach_from_one_token_to_all_but_one():
    assert slots_tried(128, 8, 12)[0] == 8 and slots_tried(128, 8, 12)[-1] == 127
    assert slots_tried(2, 2, 5) == [2]


def test_curves_rise_with_slots(curves):
    for _, of in curves.groupby(["routing", "experts", "top_k"]):
        assert of["slots"].is_monotonic_increasing and of["hit_rate"].is_monotonic_increasing
        assert of["hit_rate"].between(0, 1).all()
    assert ("qwen3-30b-a3b", 128, 8) in set(zip(curves["routing"], curves["experts"], curves["top_k"], strict=True))


def test_miss_factors_count_every_model_once_and_no_fitted_row():
    rows = pd.DataFrame(
        [
            ("a", HIT_RATE, 0.8, 0.9, True, "routing ra"),
            ("a", HIT_RATE, 0.8, 0.9, True, "routing ra"),
            ("b", HIT_RATE, 0.9, 0.9, True, "routing rb"),
            ("a", HIT_RATE, 0.1, 0.9, False, "routing ra, fitted to it"),
            ("a", OF_OTHERS, 0.8, 0.6, True, "routing rb"),
            ("a", HIT_RATE, 0.8, 0.1, True, "replay of the recorded session"),
        ],
        columns=["model", "quantity", "measured", "predicted", "held_out", "basis"],
    ).assign(clean=True)
    own, others = miss_factors(rows, {"ra": "a", "rb": "b"})
    assert own == pytest.approx(np.exp(1.645 * np.sqrt(np.log(2) ** 2 / 2)))
    assert others == pytest.approx(np.exp(1.645 * np.log(2)))


def test_stand_in_of_a_model_left_out_is_of_another(using):
    assert using.curve("Qwen3-30B-A3B", 128, 8).origin == "qwen3-30b-a3b"
    assert using.curve("Qwen3-30B-A3B", 128, 8, left_out=True).origin != "qwen3-30b-a3b"
    assert using.curve("Qwen3-30B-A3B", 128, 8).miss_factor == 1.5
    assert using.curve("Qwen3-235B", 128, 8).miss_factor == 2.0


def test_rates_are_the_affine_law_at_the_predicted_hit_rate(table):
    pairs = offload_fit.pairs_of(OBSERVED)
    rates = table[table["part"] == RATE].set_index("id")
    for name in ("EC-005", "EC-037", "EC-103"):
        row, pair = rates.loc[name], pairs.loc[name]
        preset = PRESETS[pair["kind"]]
        misses = pair["misses"] / (1 - row["hit_rate_measured"]) * (1 - row["hit_rate"])
        step = pair["resident"] + misses * (pair["miss"] + preset.miss_overhead_us / 1e3)
        step += preset.step_overhead_us(int(pair["layers"])) / 1e3
        assert row["predicted"] == pytest.approx(1e3 / step, rel=1e-6)
        assert row["low"] <= row["predicted"] <= row["high"]


def test_rows_that_fix_the_link_of_others_are_not_judged(table):
    judged = set(table["id"])
    assert {"EC-101", "EC-105", "EC-107", "EC-110", "EC-122"}.isdisjoint(judged)
    assert {"EC-001", "EC-030", "EC-103", "EC-124"} <= judged


def test_left_out_predictions_use_no_overheads_of_their_own_rows(table):
    rates = table[table["part"] == RATE].set_index("id")
    own = rates.loc["EC-004"]
    assert own["predicted_left_out"] != own["predicted"]


def test_order_counts_pairs_of_one_run_once_from_each_side(table):
    rates = table[table["part"] == RATE]
    assert (rates["pairs_right"] <= rates["pairs"]).all()
    assert rates["pairs"].sum() % 2 == 0 and rates["pairs_right"].sum() % 2 == 0
    imp = rates[rates["run"].str.startswith("imp, Qwen3-30B-A3B, Q4_K_M GGUF")]
    assert len(imp) == 6 and (imp["pairs_right"] == imp["pairs"]).all()


def test_slots_of_a_split_are_what_the_context_leaves(using):
    first, second = split_rows(SPLITS, PRESETS, using)
    anchor = SPLITS[0]
    tokens = 2**30 * (23.64 - 23.70) + (int(anchor["context"]) - 50_000) * float(anchor["kv_bytes_per_token"])
    slots = int(anchor["slots"]) + tokens / 2.447e6
    assert first["resident_share_pct"] == pytest.approx(100 * slots / (48 * 512), rel=1e-3)
    assert first["context"] == 50_000 and second["resident_share_pct"] > first["resident_share_pct"]


def test_slots_follow_from_bytes_or_from_their_run():
    rows = {row["id"]: row for row in slot_rows(PRINTED, BYTES)}
    assert rows["S-001"]["predicted"] == pytest.approx(9e9 / (40 * 1.77e6))
    assert rows["S-006"]["predicted"] == pytest.approx(73 * 50 / 15)
    assert "S-004" not in rows


def test_committed_rows_meet_the_goals_that_the_findings_name(table):
    """The goals of the planner: misses are named row by row, not hidden."""
    rates = table[table["part"] == RATE]
    text = findings(table)
    for row in rates[~rates["within_goal"].astype(bool)]["id"]:
        assert f"* {row} (" in text
    assert headline(table) in text
    assert table.loc[table["part"] == "slots", "within_goal"].all()


def test_table_has_the_declared_columns_and_types(table):
    assert list(table.columns) == [column.name for column in PLANNER.columns]
    assert str(table["within_goal"].dtype) == "boolean" and str(table["pairs"].dtype) == "Int64"


def test_figure_is_drawn_without_clipping_or_touching_texts(table):
    figures = {"planner": draw(table, Style())}
    assert_nothing_is_clipped(figures)
    assert_no_texts_touch(figures)
