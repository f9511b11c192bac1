"""The runtime reserve: a GPU's own where its memory was measured, the scenario's assumption elsewhere."""

from pathlib import Path

import pandas as pd
import pytest

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.record import ESTIMATE, EXTENDED_COLUMNS, record, with_intervals
from prophet_moe.capacity.reserve import measured_reserves, with_reserve
from prophet_moe.errors import UserError
from prophet_moe.files import write_text
from prophet_moe.routing.store import seal
from prophet_moe.settings.scenario import CALIBRATED, REPORTED
from prophet_moe.units import GB, MIB
from studies.memory_validation.compute import compare, read_memory

GPU, MEASURED = "A100-80GB", 600 * MIB
ROWS = f"""\
model,layers,dtype,attention,experts,measurement,phase,method,batch,tokens,value,value_low,repeats
,,,,,context_overhead_bytes,start,driver,,,{430 * MIB},,
,,,,,device_bytes,start,driver,,,85094825984,,
Mixtral-8x7B,2,bfloat16,sdpa,grouped_mm,context_overhead_bytes,passes,driver,,,{MEASURED},,
Mixtral-8x7B,2,bfloat16,sdpa,grouped_mm,max_context_tokens,context,bisection,16,,1000,,
"""


def recorded(folder: Path, gpus, device: str = "NVIDIA A100-SXM4-80GB", rows: str = ROWS) -> Path:
    """A finished measurement of one GPU below `folder`, which is returned."""
    write_text(folder / GPU / "memory.csv", rows)
    machine = {"device": device, "memory_bytes": gpus[GPU].memory_bytes("visible")}
    seal(folder / GPU, {"kind": "memory", "machine": machine}, "memory.csv")
    return folder


def test_measured_reserve_is_largest_overhead_of_gpu(tmp_path, gpus):
    assert measured_reserves(recorded(tmp_path, gpus), gpus) == {GPU: MEASURED}
    assert measured_reserves(tmp_path / "none", gpus) == {}


def test_measured_reserve_replaces_assumption_on_that_gpu(tmp_path, models, gpus, popularity_cvs, grids):
    """424 MiB less are reserved on the A100-80GB, and all of them go to the KV cache; other GPUs stay as they are."""
    reserves = measured_reserves(recorded(tmp_path, gpus), gpus)
    grid = capacity_grid(Configured(models, gpus, CALIBRATED, popularity_cvs, reserves), [1, 16])
    before = grids["calibrated"]
    before = before[before["batch_size"].isin([1, 16])].reset_index(drop=True)
    pd.testing.assert_series_equal(grid["model"] + grid["gpu"], before["model"] + before["gpu"])
    here = grid["gpu"] == GPU
    assert (before.loc[here, "fixed_bytes"] - grid.loc[here, "fixed_bytes"] == 1024 * MIB - MEASURED).all()
    pd.testing.assert_frame_equal(grid[~here], before[~here])
    assert (grid.loc[here, "prophet_max_context"] >= before.loc[here, "prophet_max_context"]).all()
    extended = record(with_intervals(grid), EXTENDED_COLUMNS).set_index("gpu")
    assert set(extended.loc[GPU, "runtime_reserve_basis"]) == {"measured"}
    assert extended.loc[GPU, "runtime_reserve_gb"].iloc[0] == pytest.approx(MEASURED / GB, rel=1e-5)
    assert set(extended.drop(index=GPU)["runtime_reserve_basis"]) == {"assumed"}


def test_assumed_reserve_ignores_measurement(models, gpus, popularity_cvs, grids):
    """Scenario `reported` reserves nothing, whatever was measured."""
    grid = capacity_grid(Configured(models, gpus, REPORTED, popularity_cvs, {GPU: MEASURED}), [1])
    assert (grid["runtime_reserve_bytes"] == 0).all()
    assert set(grid["runtime_reserve_basis"]) == {"assumed"}
    assert set(grid["case"]) == {ESTIMATE}
    assert with_reserve(REPORTED, MEASURED) == REPORTED
    assert with_reserve(CALIBRATED, None) == CALIBRATED


def test_validation_predicts_context_with_measured_reserve(tmp_path, gpus, models):
    """The comparison tests the model as it is used: with the reserve of the GPU that measured."""
    measured = read_memory(recorded(tmp_path, gpus) / GPU)
    architectures = {"Mixtral-8x7B": models["Mixtral-8x7B"].architecture}
    found, assumed = (
        compare(measured, architectures, CALIBRATED.model_copy(update={"runtime_reserve": basis}))["predicted"].iloc[0]
        for basis in ("measured", "assumed")
    )
    per_token = 16 * 2 * 2 * 2 * 8 * 128
    assert found - assumed == pytest.approx((1024 * MIB - MEASURED) / per_token, abs=1)


@pytest.mark.parametrize(
    ("device", "rows", "told"),
    [
        ("NVIDIA H100 80GB HBM3", ROWS, "machine.device: got 'NVIDIA H100 80GB HBM3', expected a name with"),
        ("NVIDIA A100-SXM4-80GB", ROWS.replace("context_overhead", "other"), "holds no row of measurement context_ov"),
        ("NVIDIA A100-SXM4-80GB", ROWS.replace(str(MEASURED), "much"), "value: got 'much', expected a number above 0"),
    ],
)
def test_measured_reserve_of_wrong_recording_is_refused(tmp_path, gpus, device, rows, told):
    with pytest.raises(UserError, match=told):
        measured_reserves(recorded(tmp_path, gpus, device, rows), gpus)
