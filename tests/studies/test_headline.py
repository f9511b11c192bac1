"""The headline in other measures and under other assumptions: plain Python, an independent audit, and the law."""

import statistics

import numpy as np
import pandas as pd
import pytest

from prophet_moe import params
from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.memory import device_bytes
from prophet_moe.capacity.record import ESTIMATE, record
from prophet_moe.capacity.summary import extension_summary
from prophet_moe.capacity.under_engine import EngineChoice
from prophet_moe.catalog.engine import load_engine
from prophet_moe.present.quoted_numbers import scenario_numbers
from prophet_moe.settings.scenario import CALIBRATED, REPORTED, Routing
from studies.headline.compute import RULES, headline_sensitivity, resident_rules
from studies.headline.study import HeadlineSettings
from studies.kv_extension.compute import average_extension
from tests.conftest import ROOT

AUDITED = CALIBRATED.model_copy(
    update={"predictor_mb": 7.2, "lookahead_layers": 3, "routing": Routing(variation="fitted")}
)
"""What the audit recomputed: one size of predictor for all models, a staging buffer, an encoder like a decoder, and the
routing of recorded traces."""
BY_MEAN = AUDITED.model_copy(update={"resident": "mean"})


@pytest.fixture
def encoders_as_decoders(monkeypatch):
    """The audit's memory of encoder-decoders: their encoder keeps as many experts as their decoder."""
    monkeypatch.setattr(params, "encoder_moe_layers", lambda arch: 0)


@pytest.fixture
def rules(models, gpus, experiment, fitted_cvs, encoders_as_decoders) -> pd.DataFrame:
    """The table of rules for the resident experts, by rule, as audited."""
    table = resident_rules(Configured(models, gpus, AUDITED, fitted_cvs), experiment.batch_sizes)
    return table.set_index("resident")


@pytest.fixture
def by_mean(models, gpus, experiment, fitted_cvs, encoders_as_decoders) -> pd.DataFrame:
    """The record where the resident experts are those of the mean layer-step, as audited."""
    grid = capacity_grid(Configured(models, gpus, BY_MEAN, fitted_cvs), experiment.batch_sizes)
    return record(grid[grid["case"] == ESTIMATE])


def two_rows() -> pd.DataFrame:
    """A row where both fit, one where only Prophet does, and one where only the baseline does."""
    return pd.DataFrame(
        {
            "model": "M",
            "num_experts": 8,
            "gpu": ["a", "b", "c"],
            "batch_size": 1,
            "seq_len": [1000, 1000, 1000],
            "baseline_fits": [True, False, True],
            "prophet_fits": [True, True, False],
            "baseline_max_context": [800, 0, 200],
            "prophet_max_context": [3200, 50, 0],
            "kv_extension_factor": [4.0, np.nan, 0.0],
            "kv_cache_gb": [2.0, 2.0, 4.0],
            "expert_savings_pct": 50.0,
        }
    )


def test_summary_of_three_rows_by_hand():
    found = extension_summary(two_rows())
    assert (found["fitting_rows"], found["prophet_only_rows"]) == (2, 1)
    assert (found["median_extension"], found["mean_extension"], found["max_extension"]) == (2, 2, 4)
    assert found["geomean_extension"] == 0
    assert found["kv_bytes_ratio"] == pytest.approx(3200 * 2 / (800 * 2 + 200 * 4))


def test_summary_without_fitting_rows_is_undefined():
    found = extension_summary(two_rows().iloc[[1]])
    assert (found["fitting_rows"], found["prophet_only_rows"]) == (0, 1)
    assert all(np.isnan(found[name]) for name in ("median_extension", "geomean_extension", "kv_bytes_ratio"))


def test_table_2_by_hand():
    (row,) = average_extension(two_rows(), zero_fill=False).to_dict("records")
    assert row["median_floor_fitting"] == 2
    assert row["geomean_floor_fitting"] == 0
    assert row["native_floor_fitting"] == pytest.approx((1000 / 800 + 0) / 2)
    assert row["native_gain_rows"] == 1


def test_table_2_equals_plain_python(records):
    frame = records["calibrated"]
    for row in average_extension(frame, zero_fill=False).itertuples():
        mine = frame[(frame["model"] == row.model) & frame["baseline_fits"]]
        factors = mine["kv_extension_factor"].tolist()
        cut = [
            min(one.prophet_max_context, one.seq_len) / min(one.baseline_max_context, one.seq_len)
            for one in mine.itertuples()
        ]
        assert row.native_gain_rows == sum(factor > 1 for factor in cut)
        if factors:
            assert row.median_floor_fitting == pytest.approx(statistics.median(factors))
            assert row.geomean_floor_fitting == pytest.approx(statistics.geometric_mean(factors))
            assert row.native_floor_fitting == pytest.approx(statistics.fmean(cut))


def test_rules_give_the_means_of_the_audit(rules):
    """1.643, 1.598 and 1.536 of 102 rows; the audit's quantile was simulated."""
    assert rules["fitting_rows"].tolist() == [102] * 3
    np.testing.assert_allclose(rules["mean_extension"], [1.643, 1.598, 1.536], atol=0.004)
    np.testing.assert_allclose(rules["median_extension"], [1.278, 1.231, 1.200], atol=0.001)
    assert rules.loc["mean", "geomean_extension"] == pytest.approx(1.49, abs=0.005)
    assert rules.loc["mean", "kv_bytes_ratio"] == pytest.approx(1.36, abs=0.005)


def test_rules_overflow_as_often_as_they_say(rules):
    assert rules.loc["mean", "mean_overflow_share"] > 0.15
    assert 0 < rules.loc["quantile 0.99", "max_overflow_share"] <= 0.01
    assert rules.loc["never_overflows", "max_overflow_share"] == 0
    assert rules["prophet_only_rows"].is_monotonic_decreasing


def test_rules_of_a_power_law_leave_the_quantile_out(models, gpus):
    found = resident_rules(Configured(models, gpus, REPORTED), [1, 16])
    assert found["resident"].tolist() == [name for name in RULES if name != "quantile 0.99"]
    assert found["mean_overflow_share"].isna().all()


def test_sensitivity_is_the_audits(models, gpus, experiment, fitted_cvs, encoders_as_decoders):
    found = headline_sensitivity(
        Configured(models, gpus, BY_MEAN, fitted_cvs), experiment.batch_sizes, HeadlineSettings()
    )
    expected = {
        ("runtime_reserve_mib", 0): (108, 2.19, 1.28, 27.0, 52),
        ("runtime_reserve_mib", 1024): (102, 1.64, 1.28, 6.6, 55),
        ("runtime_reserve_mib", 2048): (102, 1.73, 1.31, 8.6, 54),
        ("runtime_reserve_mib", 3072): (102, 1.89, 1.32, 12.7, 52),
        ("usable_memory_share", 0.9): (102, 2.67, 1.37, 33.8, 42),
        ("usable_memory_share", 1): (102, 1.64, 1.28, 6.6, 55),
        ("prefill_chunk_tokens", 512): (108, 5.92, 1.32, 174, 50),
        ("prefill_chunk_tokens", 2048): (102, 1.64, 1.28, 6.6, 55),
        ("prefill_chunk_tokens", 8192): (102, 1.69, 1.30, 7.7, 52),
    }
    columns = ["fitting_rows", "mean_extension", "median_extension", "max_extension", "prophet_only_rows"]
    for row in found.set_index(["assumption", "value"])[columns].itertuples():
        np.testing.assert_allclose(row[1:], expected.pop(row.Index), rtol=0.008, err_msg=str(row.Index))
    assert not expected


def test_sensitivity_under_an_engine_changes_its_share_alone(models, gpus):
    """The engine's own terms take the place of the reserve and of the tokens of a chunk."""
    scenario = CALIBRATED.model_copy(update={"routing": Routing(variation=0), "engine": "vllm-0.10"})
    engine, few = EngineChoice(load_engine(ROOT / "config/engines/vllm-0.10.yaml")), ("Mixtral-8x7B", "OLMoE-1B-7B")
    configured = Configured({name: models[name] for name in few}, gpus, scenario, engine=engine)
    found = headline_sensitivity(configured, [1, 16], HeadlineSettings(usable_memory_share=[0.7, 1.0]))
    assert found["assumption"].tolist() == ["usable_memory_share"] * 2
    assert found["as_given"].tolist() == [False, True]
    grid = capacity_grid(configured, [1, 16])
    own = extension_summary(record(grid))
    assert {name: found.iloc[1][name] for name in own} == own
    rules = resident_rules(configured, [1, 16]).set_index("resident")
    assert {name: rules.loc["quantile 0.99", name] for name in own} == own


def test_sensitivity_marks_the_scenarios_own_values(models, gpus, popularity_cvs, records, experiment):
    few = HeadlineSettings(runtime_reserve_mib=[1024], usable_memory_share=[0.5], prefill_chunk_tokens=[2048])
    found = headline_sensitivity(Configured(models, gpus, CALIBRATED, popularity_cvs), experiment.batch_sizes, few)
    assert found["as_given"].tolist() == [True, False, True]
    own = extension_summary(records["calibrated"])
    for row in found[found["as_given"]].to_dict("records"):
        assert {name: row[name] for name in own} == own


def test_numbers_show_what_is_gained_within_native(by_mean):
    """16 of the 102 rows, 1.08 in the mean, where the resident experts are those of the mean layer-step."""
    numbers = scenario_numbers("", by_mean)
    assert (numbers["BothRows"], numbers["NativeGainRows"], numbers["NativeMeanExtension"]) == ("102", "16", "1.08")
    assert (numbers["MedianExtensionFitting"], numbers["GeomeanExtensionFitting"]) == ("1.28", "1.49")
    assert numbers["KvBytesRatio"] == "1.36"


def test_usable_memory_is_a_share_of_the_devices(gpus):
    gpu = gpus["A100-80GB"]
    whole = gpu.memory_bytes("visible")
    assert device_bytes(gpu, CALIBRATED) == whole
    assert device_bytes(gpu, CALIBRATED.model_copy(update={"usable_memory_share": 0.9})) == int(whole * 0.9)
