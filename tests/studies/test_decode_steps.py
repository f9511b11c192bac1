"""Table 7: decode steps, and whether the GPU holds what they assume."""

import pandas as pd
import pytest

from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.settings.scenario import CALIBRATED
from studies.decode_steps.compute import decode_steps, with_fit


@pytest.fixture(scope="module")
def table(models, gpus, popularity_cvs, experiment) -> pd.DataFrame:
    """Table 7 of the default scenario, by datasheets."""
    profiles = {name: datasheet_profile(name, spec) for name, spec in gpus.items()}
    return decode_steps(models, profiles, experiment.batch_sizes, CALIBRATED, popularity_cvs, DecodeStep())


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
