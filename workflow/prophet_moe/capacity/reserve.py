"""The runtime reserve of a GPU: measured where it was, else what the scenario assumes."""

from collections.abc import Mapping
from pathlib import Path

from prophet_moe.catalog import GpuSpec
from prophet_moe.hardware.profile import check_device
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import MIB

OVERHEAD = "context_overhead_bytes"
"""Measurement of memory.csv: device memory in use that is not PyTorch's, which are the CUDA context and libraries."""


def measured_reserves(folder: Path, gpus: Mapping[str, GpuSpec]) -> dict[str, int]:
    """Read the bytes that the CUDA context takes on every GPU with a finished measurement in `folder`/<gpu>/.

    The largest that `python -m prophet_moe.collect memory` saw. A changed measurement, or one of another device, is a
    UserError.
    """
    if not folder.exists():
        return {}
    # Only measurements need pandas and pyarrow, whose imports take a quarter of a second.
    from prophet_moe.routing.store import SUMS

    return {name: _largest(folder / name, name, spec) for name, spec in gpus.items() if (folder / name / SUMS).exists()}


def reserves_for(scenario: Scenario, folder: Path, gpus: Mapping[str, GpuSpec]) -> dict[str, int]:
    """Return the measured reserves of `folder` where the scenario takes its runtime reserve from them, else none."""
    return measured_reserves(folder, gpus) if scenario.runtime_reserve == "measured" else {}


def _largest(folder: Path, gpu: str, spec: GpuSpec) -> int:
    from prophet_moe.hardware.recorded import read_recording

    recording = read_recording(folder, "memory")
    check_device(recording, gpu, spec)
    recording.require(("measurement", "value"))
    rows = recording.where(measurement=OVERHEAD)
    return int(recording.numbers(rows, "value")["value"].max())


def reserve_basis(scenario: Scenario, measured: int | None) -> str:
    """Return what the reserve of a GPU rests on: measured or assumed."""
    return "assumed" if measured is None or scenario.runtime_reserve == "assumed" else "measured"


def with_reserve(scenario: Scenario, measured: int | None) -> Scenario:
    """Return the scenario on a GPU: its reserve is the `measured` bytes where there are any and it wants them."""
    if measured is None or reserve_basis(scenario, measured) == "assumed":
        return scenario
    return scenario.model_copy(update={"runtime_reserve_mib": measured / MIB})
