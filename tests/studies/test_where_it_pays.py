"""Table 16 and its figure: break-even of models and machines, held against the formulas and the plain reference."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from prophet_moe import params
from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.capacity.reference import evaluate
from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.catalog.bus import load_buses
from prophet_moe.catalog.link import load_links
from prophet_moe.errors import UserError
from prophet_moe.hardware.estimate import read_estimators
from prophet_moe.offload.break_even import slowdown
from prophet_moe.routing.calibrated import calibrated_routings
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.settings.scenario import CALIBRATED
from prophet_moe.settings.style import Style
from prophet_moe.tables import from_sources
from prophet_moe.units import MB
from studies.where_it_pays.compute import hit_curves, machines_of, simulated, where_it_pays
from studies.where_it_pays.figure import draw, findings, headline, marks, shown
from studies.where_it_pays.study import OWN, SHIPPED, WHERE_IT_PAYS, WhereItPaysSettings
from tests.conftest import ROOT
from tests.drawings import assert_nothing_is_clipped, visible_texts

NAMES = ["OLMoE-1B-7B", "Mixtral-8x7B", "Switch-Base-128"]
SETTINGS = WhereItPaysSettings(
    current=["gpt-oss-20b"],
    gpus=["H100-80GB", "RTX5090-32GB", "DGX-Spark-128GB"],
    buses={"nvlink_c2c": ["GH200-96GB"], "ssd_pcie4_x4": ["H100-80GB"]},
    formats=["mxfp4"],
    simulated=["GH200-96GB"],
    tokens=64,
    sequences=8,
    layers=3,
)
MODELS = load_models(ROOT / "config/models", NAMES) | load_models(ROOT / "config/models/current", SETTINGS.current)
GPUS = load_gpus(ROOT / "config/gpus.yaml", [*SETTINGS.gpus, "GH200-96GB"])
BUSES, PINNED = load_buses(ROOT / "config/buses.yaml"), load_links(ROOT / "config/links.yaml")["pinned"]
ROUTINGS = calibrated_routings(ROOT / "resources/routing")
MACHINES = machines_of(GPUS, BUSES, PINNED, SETTINGS)
STEP = DecodeStep()


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Rows of some models, machines and formats, without those columns that are simulated."""
    estimators, curves = read_estimators(ROOT / "resources/operators", GPUS), hit_curves(MODELS, ROUTINGS, SETTINGS)
    return where_it_pays(Configured(MODELS, GPUS, CALIBRATED), MACHINES, estimators, curves, STEP, SETTINGS)


@pytest.fixture(scope="module")
def table(rows) -> pd.DataFrame:
    """Table 16 of the same."""
    found = simulated(rows, MODELS, MACHINES, ROUTINGS, 4.0, SETTINGS)
    return from_sources(rows.join(found), WHERE_IT_PAYS)


def test_rows_are_models_times_formats_times_machines(table):
    assert len(table) == len(MODELS) * 2 * 5
    assert list(table.columns) == [column.name for column in WHERE_IT_PAYS.columns]
    assert set(table["link"]) == {"PCIe 5", "unified memory", "NVLink-C2C", "SSD, PCIe 4 x4"}


def test_needed_hit_rate_keeps_the_claimed_slowdown(table):
    linked = table[~table["unified_memory"]]
    ratios = 1 - linked["hit_rate_needed"], linked["expert_share"], linked["link_ratio"]
    found = slowdown(*ratios)
    assert (found <= STEP.claimed_slowdown * (1 + 1e-9)).all()
    assert found[linked["hit_rate_needed"] > 0] == pytest.approx(STEP.claimed_slowdown)
    assert slowdown(1, *ratios[1:]) == pytest.approx(linked["cold_slowdown"])
    ordered = ["hit_rate_needed_prefetched", "hit_rate_needed_in_place", "hit_rate_needed"]
    assert (linked[ordered].diff(axis=1).iloc[:, 1:] >= -1e-12).all(axis=None)
    assert (linked["hit_rate_needed_low"] <= linked["hit_rate_needed"]).all()
    assert (linked["hit_rate_needed"] <= linked["hit_rate_needed_high"]).all()


def test_share_of_the_step_is_that_of_bytes_read(table):
    """f T is the time of the bytes of k experts in every MoE layer, at the datasheet of the memory."""
    for row in table.itertuples():
        spec, form = MODELS[row.model], CALIBRATED.model_copy(update={"precision": row.format})
        size = params.expert_bytes(spec.architecture, form.precision_of(spec.precision))
        assert row.expert_mb == pytest.approx(size / MB)
        read = size * row.top_k * len(spec.architecture.moe_layers)
        seconds = row.expert_share * row.step_ms / 1e3
        assert seconds == pytest.approx(read / (GPUS[row.gpu].hbm_gb_per_s * 1e9))


def test_unified_memory_needs_nothing(table):
    unified = table[table["unified_memory"]]
    assert set(unified["gpu"]) == {"DGX-Spark-128GB"}
    assert (unified["hit_rate_needed"] == 0).all() and (unified["freed_gb"] == 0).all()


def test_faster_links_keep_fewer_experts(table):
    h100 = table[table["gpu"] == "H100-80GB"].pivot_table(
        index=["model", "format"], columns="bus", values="resident_share_needed"
    )
    assert (h100[OWN] <= h100["ssd_pcie4_x4"]).all() and (h100[OWN] < h100["ssd_pcie4_x4"]).any()
    assert (table["resident_share_low"] <= table["resident_share_needed"]).all()
    assert (table["resident_share_needed"] <= table["resident_share_high"]).all()
    assert (table["resident_share_prefetched"] <= table["resident_share_needed"]).all()


def test_memory_agrees_with_the_plain_reference(table):
    for row in table.itertuples():
        at = CALIBRATED.model_copy(update={"precision": row.format})
        memory = model_memory(MODELS[row.model], at)
        device, slots = device_bytes(GPUS[row.gpu], at), round(row.resident_share_needed * row.num_experts)
        found = evaluate(memory, device, 1, at, resident=slots, predictor_kept=False)
        assert row.slots_max_context == found["prophet_max_context"]
        assert row.baseline_max_context == found["baseline_max_context"]
        if row.state == "all_fit":
            assert row.baseline_max_context >= row.context
        if row.state == "slots":
            assert row.baseline_max_context < row.context <= row.slots_max_context
        if row.state == "too_slow":
            assert row.slots_max_context < row.context


def test_simulated_slowdown_lies_within_the_closed_forms(table):
    found = table[table["simulated_slowdown"].notna()]
    assert set(found["gpu"]) == {"GH200-96GB"} and set(found["format"]) == {SHIPPED} and len(found) == len(MODELS)
    assert (found["closed_form_prefetched"] <= found["simulated_slowdown"] + 1e-9).all()
    assert (found["simulated_slowdown"] <= found["closed_form_slowdown"] + 1e-9).all()
    one = found[found["top_k"] == 1]
    assert one["simulated_slowdown"].to_numpy() == pytest.approx(one["closed_form_slowdown"].to_numpy())


def test_unknown_bus_ends_in_one_line():
    wrong = SETTINGS.model_copy(update={"buses": {"pcie7": ["H100-80GB"]}})
    with pytest.raises(UserError, match="unknown bus 'pcie7'"):
        machines_of(GPUS, BUSES, PINNED, wrong)


def test_buses_have_the_speeds_of_their_generations():
    speeds = [BUSES[f"pcie{number}_x16"].gb_per_s for number in (3, 4, 5)]
    assert np.diff(np.log2(speeds)) == pytest.approx(1, abs=0.01)
    assert BUSES["ssd_pcie4_x4"].gb_per_s == pytest.approx(speeds[1] / 4, rel=0.01)
    assert BUSES["pcie6_x16"].basis == "bound" and BUSES["pcie6_x16"].share == 1


def test_figure_names_every_machine_apart(table):
    figure = draw(table, Style(), STEP.claimed_slowdown)
    assert_nothing_is_clipped({"where_it_pays": figure})
    texts = {text.get_text(): text for text in visible_texts(figure)}
    names = [text for text in texts if any(text.startswith(f"{mark.name}: ") for mark in marks(table))]
    assert len(names) == len(marks(table)) == shown(table).groupby(["gpu", "link"]).ngroups
    # Names are turned: their lines are apart where their beginnings are.
    starts = sorted(texts[name].get_position()[0] for name in names)
    width = figure.axes[0].get_window_extent().width
    turned = np.sin(np.radians(texts[names[0]].get_rotation()))
    heights = [texts[name].get_fontsize() / 72 * figure.dpi for name in names]
    assert min(np.diff(starts)) * width * turned >= max(heights)
    flat = [text for text in texts.values() if not text.get_rotation()]
    for one, other in combinations(flat, 2):
        assert not one.get_window_extent().padded(-1).overlaps(other.get_window_extent().padded(-1)), (one, other)
    assert min(text.get_fontsize() for text in texts.values()) >= 6


def test_findings_are_of_the_table(table):
    text = findings(table, STEP.claimed_slowdown)
    assert "nan" not in text
    assert headline(table, STEP.claimed_slowdown).startswith("On demand within 1.2x, a GPU keeps ")
