"""Components sum to the record, savings and contexts are those of the plain reference, and figures can be read."""

import numpy as np
import pandas as pd
import pytest

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.memory import device_bytes
from prophet_moe.capacity.record import EXTENDED_COLUMNS, record, with_intervals
from prophet_moe.capacity.reference import evaluate
from prophet_moe.settings.scenario import CALIBRATED
from prophet_moe.settings.style import Style
from prophet_moe.units import GB
from studies.memory_figures import abstract, components, contexts, longest, savings
from studies.memory_figures.compute import memory_by_context, saturation, savings_by_batch
from studies.memory_figures.study import MEMORY_BY_CONTEXT, SATURATION, SAVINGS_BY_BATCH, MemoryFiguresSettings
from tests.drawings import assert_no_texts_touch, assert_nothing_is_clipped, visible_texts

SETTINGS = MemoryFiguresSettings()
SHOWN = {"models": SETTINGS.component_models, "gpu": "A100-80GB", "batch_size": 16}
STYLE = Style()


@pytest.fixture(scope="module")
def configured(models, gpus, popularity_cvs) -> Configured:
    """All models and GPUs under the default scenario."""
    return Configured(models, gpus, CALIBRATED, popularity_cvs)


@pytest.fixture(scope="module")
def memories(configured):
    """Memory constants of all models."""
    return configured.constants()


@pytest.fixture(scope="module")
def by_context(configured) -> pd.DataFrame:
    """The table of memory by context."""
    return memory_by_context(configured, SETTINGS.context_models, "A100-80GB", SETTINGS)


@pytest.fixture(scope="module")
def by_batch(memories) -> pd.DataFrame:
    """Return the table of savings at every batch size of the settings."""
    return savings_by_batch(memories, CALIBRATED, SETTINGS.savings_batches)


@pytest.fixture(scope="module")
def saturated(memories) -> pd.DataFrame:
    """The table of saturating batches."""
    return saturation(memories, CALIBRATED)


@pytest.fixture(scope="module")
def extended(grids) -> pd.DataFrame:
    """The extended record of the default scenario."""
    return record(with_intervals(grids["calibrated"]), EXTENDED_COLUMNS)


@pytest.fixture(scope="module")
def averages() -> pd.DataFrame:
    """Made rows of table 2."""
    names = ["a-1", "b-2", "c-3", "d-4", "e-5", "f-6"]
    floor = [1.9, 1.7, 1.5, 1.2, 1.1, np.nan]
    within = [1.2, 1.1, 1.1, 1.05, 1.0, np.nan]
    return pd.DataFrame({"model": names, "mean_floor_fitting": floor, "mean_prophet_at_1.2x": within})


@pytest.fixture(scope="module")
def counts() -> pd.DataFrame:
    """Made rows of table 3."""
    columns = {"num_experts": [8, 64, 256], "mean_expert_savings_pct": [14.0, 30.0, 63.0]}
    return pd.DataFrame(columns | {"fitting_rows": [0, 24, 0], "mean_floor_fitting": [np.nan, 1.3, np.nan]})


def test_components_sum_to_the_record(extended):
    found = components.components(extended, **SHOWN)
    assert len(found) == 10 and len(components.PARTS) == 5
    assert found[list(components.PARTS)].sum(axis=1).to_numpy() == pytest.approx(found["total"].to_numpy())
    assert (found[list(components.PARTS)] >= 0).all(axis=None)
    row = extended[(extended["gpu"] == "A100-80GB") & (extended["batch_size"] == 16)].set_index("model")
    reserve = row["fixed_gb"] - row["non_expert_gb"] - row["activation_gb"]
    baseline = found[found["side"] == "baseline"].set_index("model")["reserve"]
    # The record has six digits of each number.
    assert baseline.to_numpy() == pytest.approx(reserve[baseline.index].to_numpy(), abs=0.002)


def test_memory_by_context_is_the_plain_references(by_context, memories, gpus):
    assert list(by_context.columns) == [column.name for column in MEMORY_BY_CONTEXT.columns]
    device = device_bytes(gpus["A100-80GB"], CALIBRATED)
    for row in by_context.itertuples():
        memory = memories[row.model]
        found = evaluate(memory, device, row.batch_size, CALIBRATED)
        cache = row.batch_size * memory.cached_bytes(row.context)
        assert row.prophet_total_gb * GB == pytest.approx(device - found["prophet_free_bytes"] + cache)
    assert by_context.groupby("model")["context"].agg(list).iloc[0] == [512, 1024, 2048, 4096, 8192, 16384]


def test_saving_is_the_same_at_every_context(by_context):
    for _, rows in by_context.groupby("model"):
        differences = rows["baseline_total_gb"] - rows["prophet_total_gb"]
        assert differences.to_numpy() == pytest.approx(contexts.gap(rows))


def test_savings_fall_to_nothing_at_the_saturating_batch(by_batch, saturated):
    assert list(by_batch.columns) == [column.name for column in SAVINGS_BY_BATCH.columns]
    assert list(saturated.columns) == [column.name for column in SATURATION.columns]
    batch = by_batch["model"].map(saturated.set_index("model")["saturating_batch"])
    assert ((by_batch["savings_pct"] == 0) == (by_batch["batch_size"] >= batch)).all()
    closed = by_batch["model"].map(saturated.set_index("model")["power_law_batch"])
    assert ((by_batch["power_law_savings_pct"] < 1e-9) == (by_batch["batch_size"] >= closed)).all()


def test_saturating_batches_are_later_than_by_the_power_law(saturated):
    assert (savings.ratio(saturated) > 1).all()
    found = savings.thresholds(saturated)
    assert found.loc[(8, 2), "power_law"] == pytest.approx(4 ** (1 / 0.932))


def test_longest_contexts_are_those_of_the_record(records):
    rows, model = records["calibrated"], SETTINGS.map_models[0]
    cells = longest.longest(rows, model)
    row = rows.set_index(["model", "gpu", "batch_size"]).loc[model, "A100-80GB", 16]
    assert cells["prophet"].loc["A100-80GB", 16] == row["prophet_max_context"]
    assert cells["baseline"].loc["A100-80GB", 16] == row["baseline_max_context"]
    assert [longest.tokens(number) for number in (860, 4210, 9960, 42000, 1048576)] == [
        "860",
        "4.2k",
        "10k",
        "42k",
        "1.05M",
    ]


def test_both_maps_have_one_scale_and_mark_what_does_not_fit(records):
    figure = longest.draw(records["calibrated"], STYLE, SETTINGS.map_models[0])
    cells = longest.longest(records["calibrated"], SETTINGS.map_models[0])
    texts = [text.get_text() for text in figure.findobj() if hasattr(text, "get_text")]
    assert texts.count("×") == sum(int((found == 0).to_numpy().sum()) for found in cells.values())
    assert len(figure.axes) == 3


def test_abstract_has_the_five_largest(averages):
    found = abstract.extensions(averages, 1.2)
    assert list(found.index) == ["a-1", "b-2", "c-3", "d-4", "e-5"] and found["within"].iloc[0] == 1.2
    assert abstract.extensions(averages.drop(columns="mean_prophet_at_1.2x"), 1.2)["within"].isna().all()
    assert "1.20×" in abstract.headline(averages, 1.2)


def test_findings_have_no_missing_numbers(extended, records, by_batch, saturated, by_context, averages, counts):
    rows = records["calibrated"]
    told = [
        components.findings(extended, **SHOWN),
        savings.findings(by_batch, saturated),
        contexts.findings(by_context),
        longest.findings(rows, SETTINGS.map_models[0]),
        abstract.findings(rows, averages, counts, **SHOWN, claimed_slowdown=1.2),
    ]
    assert all("nan" not in text.lower().replace("nano", "") for text in told)


def test_texts_of_memory_figures_can_be_read(extended, records, by_batch, saturated, by_context, averages, counts):
    rows = records["calibrated"]
    figures = {
        "components": components.draw(extended, STYLE, **SHOWN),
        "savings": savings.draw(by_batch, saturated, STYLE),
        "contexts": contexts.draw(by_context, STYLE),
        "longest": longest.draw(rows, STYLE, SETTINGS.map_models[0]),
        "abstract": abstract.draw(rows, averages, counts, STYLE, **SHOWN, claimed_slowdown=1.2),
    }
    assert_nothing_is_clipped(figures)
    assert_no_texts_touch(figures)
    assert all(min(text.get_fontsize() for text in visible_texts(figure)) >= 6 for figure in figures.values())
