"""Table 7: decode steps, and whether the GPU holds what they assume."""

import pandas as pd
import pytest

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.catalog.link import load_links
from prophet_moe.hardware.estimate import Estimator, read_estimators
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.settings.scenario import CALIBRATED
from studies.decode_steps.compute import decode_steps, with_estimates, with_fit
from studies.decode_steps.study import DECODE_STEPS
from tests.conftest import ROOT

LINKS, FITS = load_links(ROOT / "config/links.yaml"), ROOT / "resources/operators"


@pytest.fixture(scope="module")
def configured(models, gpus, popularity_cvs) -> Configured:
    """All models and GPUs under the default scenario."""
    return Configured(models, gpus, CALIBRATED, popularity_cvs)


@pytest.fixture(scope="module")
def table(configured, gpus, experiment) -> pd.DataFrame:
    """Table 7 of the default scenario, by datasheets."""
    profiles = {name: datasheet_profile(name, spec) for name, spec in gpus.items()}
    return decode_steps(configured, profiles, experiment.batch_sizes, DecodeStep())


def test_with_fit_marks_hypothetical_times(table, grids):
    """All experts of Mixtral are 90 GB: no GPU of the grid holds them, Switch-Base's fit everywhere."""
    grid = grids["calibrated"]
    marked = with_fit(table, grid[grid["case"] == ESTIMATE])
    assert list(marked).index("baseline_fits") == list(marked).index("context") + 1
    pd.testing.assert_frame_equal(marked.drop(columns="baseline_fits"), table)
    fits = marked.groupby("model")["baseline_fits"]
    assert not fits.any()["Mixtral-8x7B"]
    assert fits.all()["Switch-Base-128"]
    record = grid[grid["case"] == ESTIMATE].set_index(["model", "gpu", "batch_size"])["baseline_max_context"]
    for row in marked.itertuples():
        assert row.baseline_fits == (record[row.model, row.gpu, row.batch_size] >= row.context)


def test_with_fit_of_model_outside_grid_is_empty(table, grids):
    grid = grids["calibrated"]
    grid = grid[(grid["case"] == ESTIMATE) & (grid["model"] != "DBRX-132B")]
    marked = with_fit(table, grid)
    assert marked.loc[marked["model"] == "DBRX-132B", "baseline_fits"].isna().all()
    assert marked.loc[marked["model"] != "DBRX-132B", "baseline_fits"].notna().all()


@pytest.fixture(scope="module")
def estimators(gpus) -> dict[str, Estimator]:
    """What estimates of the GPUs of the grid are made of, as committed."""
    return read_estimators(FITS, gpus)


def test_with_estimates_adds_columns_after_the_bounds(table, configured, estimators):
    found = with_estimates(table, configured, estimators, DecodeStep(), LINKS["pinned"])
    pd.testing.assert_frame_equal(found[table.columns], table)
    declared = [column.name for column in DECODE_STEPS.columns if column.name != "baseline_fits"]
    assert list(found.columns) == declared
    assert (found["all_resident_estimate_low_ms"] >= found["all_resident_ms"]).all()
    assert (
        found["all_resident_estimate_ms"]
        .between(found["all_resident_estimate_low_ms"], found["all_resident_estimate_high_ms"])
        .all()
    )
    assert (found["cold_on_demand_estimate_ms"] > found["cold_on_demand_ms"]).all()
    known = {"operators": {"A100-40GB", "A100-80GB", "H100-80GB"}, "share of bandwidth": {"V100-32GB"}}
    for basis, names in known.items():
        assert set(found.loc[found["estimate_basis"] == basis, "gpu"]) == names


def test_with_estimates_agrees_with_a_plain_row(table, configured, estimators):
    """The cold step of Mixtral: its estimate, and 32 layers of u(B) copies at 0.84 of the link and 10 us each."""
    row = table[(table["model"] == "Mixtral-8x7B") & (table["gpu"] == "H100-80GB") & (table["batch_size"] == 4)]
    (found,) = with_estimates(row, configured, estimators, DecodeStep(), LINKS["pinned"]).to_dict("records")
    copy_ms = 0.01 + found["expert_mb"] / (0.84 * 63)
    fetching = 32 * found["unique_experts"] * copy_ms
    assert found["cold_on_demand_estimate_ms"] == pytest.approx(found["all_resident_estimate_ms"] + fetching)
    assert found["hit_rate_needed_estimated"] == pytest.approx(1 - 0.2 * found["all_resident_estimate_ms"] / fetching)
