"""Table 17 and its figure: sizes are those of the counts, times those of the formulas, and the report's arithmetic."""

from dataclasses import replace

import pandas as pd
import pytest

from prophet_moe import params
from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.capacity.reference import evaluate
from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.catalog.link import load_links
from prophet_moe.hardware.estimate import read_estimators
from prophet_moe.predict.discrimination import read_discrimination
from prophet_moe.printed import PRINTED_FILE, read_printed
from prophet_moe.routing.calibrated import calibrated_routings
from prophet_moe.settings.scenario import CALIBRATED, REPORTED
from prophet_moe.settings.style import Style
from prophet_moe.tables import from_sources
from prophet_moe.units import GB
from studies.alternatives.compute import (
    Bench,
    Way,
    alternatives,
    hidden_batch,
    reported_rows,
    simulations_of,
)
from studies.alternatives.figure import draw, findings, shown
from studies.alternatives.study import ALTERNATIVES, AlternativesSettings
from tests.conftest import ROOT
from tests.drawings import assert_legend_is_what_is_drawn, assert_no_texts_touch, assert_nothing_is_clipped

PRINTED = read_printed(ROOT / PRINTED_FILE)
NAMES = ["Mixtral-8x7B", "Switch-XXL-128", "OLMoE-1B-7B"]
SETTINGS = AlternativesSettings(
    gpus=["A100-80GB"], formats=["int8", "int4_group128"], sequences=16, tokens=32, layers=2
)
MODELS = load_models(ROOT / "config/models", NAMES)
GPUS = load_gpus(ROOT / "config/gpus.yaml", SETTINGS.gpus)
GPU = GPUS["A100-80GB"]
FITS, README = ROOT / "resources/operators", ROOT / "workflow/studies/alternatives/README.md"
BENCH = Bench(
    "A100-80GB",
    GPU,
    read_estimators(FITS, GPUS)["A100-80GB"],
    load_links(ROOT / "config/links.yaml")["pinned"],
    4096,
)


@pytest.fixture(scope="module")
def table(popularity_cvs) -> pd.DataFrame:
    """Table 17 of some models on one GPU, calibrated."""
    routings = calibrated_routings(ROOT / "resources/routing")
    power = read_discrimination(ROOT / "resources/statistics/gpt-oss-20b-decode/discrimination.csv")
    configured = Configured(MODELS, GPUS, CALIBRATED, popularity_cvs)
    found = simulations_of(configured, [BENCH], routings, power, 4.0, SETTINGS)
    return from_sources(alternatives(configured, [BENCH], found, SETTINGS, PRINTED), ALTERNATIVES)


@pytest.fixture(scope="module")
def reported() -> pd.DataFrame:
    """The same by the report's constants."""
    configured = Configured(MODELS, GPUS, REPORTED)
    return from_sources(alternatives(configured, [BENCH], {}, SETTINGS, PRINTED), ALTERNATIVES)


def test_rows_are_ways_times_formats(table):
    assert list(table.columns) == [column.name for column in ALTERNATIVES.columns]
    assert len(table) == len(MODELS) * 2 * 3 * (5 + 2 * len(SETTINGS.resident_shares))


def test_bytes_are_those_of_the_counts(table):
    for row in table[table["approach"] == "all_resident"].itertuples():
        spec, form = MODELS[row.model], CALIBRATED.model_copy(update={"precision": row.format})
        stored = params.weight_bytes(spec.architecture, form.precision_of(spec.precision))
        assert row.weights_gb == pytest.approx(sum(stored.values()) / GB)
        assert row.expert_gb == pytest.approx(stored["routed_experts"] / GB)
        assert row.host_gb == row.moved_gb == 0


def test_contexts_are_those_of_the_plain_reference(table):
    """The baseline and slots, with Prophet's predictor."""
    for row in table[table["approach"].isin(["all_resident", "expert_slots", "prophet"])].itertuples():
        at = CALIBRATED.model_copy(update={"precision": row.format})
        memory = model_memory(MODELS[row.model], at)
        slots = memory.experts
        if row.approach != "all_resident":
            slots = max(memory.top_k, round(row.resident_share * memory.experts))
        kept = row.approach == "prophet"
        device = device_bytes(GPU, at)
        found = evaluate(memory, device, row.batch_size, at, slots, staging_kept=False, predictor_kept=kept)
        assert row.max_context == found["prophet_max_context"]


def test_slowdowns_are_step_and_copies_over_the_baseline(table):
    keys = ["model", "batch_size"]
    base = table[(table["approach"] == "all_resident") & (table["format"] == "bf16")].set_index(keys)["step_ms"]
    link = BENCH.link
    for row in table.itertuples():
        whole = base[row.model, row.batch_size]
        speed = link.share * GPU.link_gb_per_s
        bytes_ms = 1e3 * row.moved_gb / speed
        if row.approach == "all_resident":
            assert row.slowdown == row.slowdown_low == row.slowdown_high == pytest.approx(row.step_ms / whole)
        elif row.approach in ("streamed", "streamed_kv"):
            assert max(row.step_ms, bytes_ms) / whole <= row.slowdown <= 1.01 * max(row.step_ms, bytes_ms) / whole + 0.1
        elif row.approach != "prophet":
            copies = (
                1e3
                * row.moved_gb
                * GB
                / params.expert_bytes(
                    MODELS[row.model].architecture,
                    CALIBRATED.model_copy(update={"precision": row.format}).precision_of(MODELS[row.model].precision),
                )
                * link.copy_us
                / 1e6
            )
            assert (row.step_ms + bytes_ms) / whole <= row.slowdown * (1 + 1e-9)
            assert row.slowdown <= (row.step_ms + bytes_ms + copies) / whole * (1 + 1e-9)
        assert row.slowdown_low <= row.slowdown <= row.slowdown_high
        assert row.slowdown_bound <= row.slowdown or row.approach == "prophet"


def test_prophet_moves_what_the_same_slots_miss(table):
    slotted = table[table["approach"].isin(["expert_slots", "prophet"])]
    pairs = slotted.pivot_table(
        index=["model", "batch_size", "format", "resident_share"], columns="approach", values=["moved_gb", "hit_rate"]
    )
    for name in ("moved_gb", "hit_rate"):
        assert pairs[name, "prophet"].to_numpy() == pytest.approx(pairs[name, "expert_slots"].to_numpy())
    assert slotted["hit_rate"].between(0, 1).all()


def test_streaming_is_hidden_from_its_batch_on():
    spec, way = MODELS["Mixtral-8x7B"], Way("streamed", "bf16")
    batch = hidden_batch(way, spec, BENCH, CALIBRATED)
    arch, copying = spec.architecture, 0.84 * GPU.link_gb_per_s * GB
    moved = sum(params.weight_bytes(arch).values()) - params.weight_bytes(arch)["embeddings"]
    below, above = (BENCH.step(spec, CALIBRATED, size, arch.moe.experts).seconds for size in (batch // 2, batch))
    assert below < moved / copying <= 1.01 * above
    faster = replace(BENCH, spec=GPU.model_copy(update={"link_gb_per_s": 4 * GPU.link_gb_per_s}))
    assert hidden_batch(way, spec, faster, CALIBRATED) < batch


def test_reported_rows_have_the_report_beside_them(table, reported):
    for found in (table, reported):
        given = found[found["reported_low"].notna()].set_index(["approach", "format"])
        assert set(given["model"]) == {"Switch-XXL-128"} and set(given["batch_size"]) == {16}
        assert given["reported_expert_gb"].to_dict() == {
            ("all_resident", "bf16"): 384,
            ("every_expert", "bf16"): 16,
            ("prophet", "bf16"): 48,
            ("all_resident", "int8"): 192,
            ("prophet", "int8"): 24,
        }
    whole = reported[(reported["model"] == "Switch-XXL-128") & (reported["approach"] == "all_resident")]
    assert whole.groupby("format")["expert_gb"].first()["bf16"] == pytest.approx(750)
    assert reported[["slowdown", "step_ms", "hit_rate", "hidden_batch"]].isna().all(axis=None)


def test_both_comparisons_of_the_reports_say_the_same():
    cells = PRINTED.set_index(["row", "column"])["claimed"]
    both = [cells[PRINTED["table"].to_numpy() == name] for name in ("000 offload comparison", "002 alternatives")]
    assert len(both[0]) == 9 and both[1].loc[both[0].index].to_dict() == both[0].to_dict()


def test_reported_formats_share_the_bytes(reported):
    sizes = reported.pivot_table(index=["model", "batch_size", "approach"], columns="format", values="expert_gb")
    assert (sizes["int8"] * 2).to_numpy() == pytest.approx(sizes["bf16"].to_numpy())
    assert (sizes["int4_group128"] * 4).to_numpy() == pytest.approx(sizes["bf16"].to_numpy())


def test_arithmetic_of_the_readme_is_right():
    text = README.read_text()
    given = reported_rows(PRINTED).rename(columns=lambda name: name.removeprefix("reported_"))
    rows = {(row.approach, row.format): row for row in given.itertuples()}
    whole, offload, prophet = (rows[way, "bf16"] for way in ("all_resident", "every_expert", "prophet"))
    pcie = 10
    said = [
        f"{whole.expert_gb:g} / 24 = {whole.expert_gb / 24:g} GB",
        f"{whole.expert_gb:g} / 8 = {prophet.expert_gb:g} GB",
        f"{whole.expert_gb:g} GB take {whole.expert_gb / pcie:.1f} s and the {prophet.expert_gb:g} GB of Prophet "
        f"{prophet.expert_gb / pcie:.1f} s",
        f"takes {GPU.hbm_gb_per_s / pcie:.0f} times as long",
        f"{GPU.link_gb_per_s:g} GB/s of that GPU's datasheet it takes {GPU.hbm_gb_per_s / GPU.link_gb_per_s:.0f} times",
        f"{offload.low:g} / {prophet.low:g} = {offload.low / prophet.low:.1f}",
        f"{offload.low - 1:g} / {prophet.low - 1:.1g}, is {(offload.low - 1) / (prophet.low - 1):.0f}",
    ]
    plain = " ".join(text.split())
    assert offload.expert_gb == whole.expert_gb / 24
    for words in said:
        assert words in plain, words


def test_figure_of_alternatives_can_be_read(table):
    figure = draw(table, Style(), "A100-80GB", NAMES[:2])
    assert_nothing_is_clipped({"alternatives": figure})
    assert_no_texts_touch({"alternatives": figure})
    assert_legend_is_what_is_drawn(figure)
    assert len(figure.axes) == 4
    assert shown(table, "A100-80GB", NAMES)["weights_share"].max() == pytest.approx(100)
    assert "nan" not in findings(table, "A100-80GB", NAMES[:2])
