"""Predicted against measured memory: the capacity model and the measurements of `collect memory`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prophet_moe.capacity import reference
from prophet_moe.capacity.memory import ModelMemory, Number, model_memory
from prophet_moe.capacity.reserve import OVERHEAD, with_reserve
from prophet_moe.catalog import Architecture, ModelSpec
from prophet_moe.catalog.architecture import first_layers
from prophet_moe.catalog.model import load_model
from prophet_moe.errors import UserError
from prophet_moe.hardware.recorded import read_recording
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import joined, write_table
from studies.memory_validation.study import VALIDATION

COLUMNS = tuple(column.name for column in VALIDATION.columns if column.name != "gpu")
"""Columns of a comparison on one GPU."""
NUMBERS = ("layers", "batch", "tokens", "value")
"""Columns of memory.csv that hold numbers, where a row has them."""
COMPARED = (
    *("parameter_bytes", "expert_parameter_bytes", "kv_bytes_per_token", "cross_kv_bytes_per_token"),
    *("state_bytes_per_sequence", "activation_peak_bytes", "max_context_tokens"),
)
"""Measurements that the capacity model predicts."""
DTYPES = ("bfloat16", "float16")
"""Bits of the types that models were measured in; activations are predicted for 16 bits alone."""


def read_memory(folder: Path) -> pd.DataFrame:
    """Read memory.csv in `folder`, after its checksums held: NUMBERS as float64 (NaN where empty), all else as text.

    A value that is compared but no number of at least 0 is a UserError.
    """
    recording = read_recording(folder, "memory")
    recording.require(("model", "dtype", "measurement", "phase", "method", *NUMBERS))
    rows = recording.rows
    needed = rows[rows["measurement"].isin([*COMPARED, "device_bytes", OVERHEAD])]
    recording.numbers(needed, "value", zero=True)
    for name in ("layers", "batch", "tokens"):
        recording.numbers(rows[rows[name] != ""], name)
    return rows.assign(**{name: pd.to_numeric(rows[name], errors="coerce").astype(np.float64) for name in NUMBERS})


def compare(measured: pd.DataFrame, architectures: Mapping[str, Architecture], scenario: Scenario) -> pd.DataFrame:
    """Compare measured memory with what the capacity model predicts.

    Parameters
    ----------
    measured : DataFrame
        Rows of memory.csv as `read_memory` returns them.
    architectures : mapping from str to Architecture
        Whole models by the name that `measured` uses.
    scenario : Scenario
        A scenario with published architectures; bits come from the measured type, layers from the measured ones.

    Returns
    -------
    DataFrame
        One row of COLUMNS per measured number that is predicted, in the order of `measured`; none for models in
        `left_out`. error_pct = 100 (predicted / measured - 1), 0 where both are 0.

    Raises
    ------
    UserError
        Where the scenario has reported architectures, or more layers were measured than the model has.

    Notes
    -----
    The longest context is predicted for the memory and the CUDA context of the device that measured, beside the
    scenario's prefill chunk.
    """
    if scenario.architecture != "published":
        raise UserError("scenario", f"architecture: got {scenario.architecture!r}, expected published", "Name another.")
    out = left_out(measured, architectures)
    chosen = measured["measurement"].isin(COMPARED) & (measured["model"] != "") & ~measured["model"].isin(out)
    device = _device_bytes(measured)
    overheads = measured.loc[measured["measurement"] == OVERHEAD, "value"]
    scenario = with_reserve(scenario, None if overheads.empty else int(overheads.max()))
    scenario = scenario.model_copy(update={"precision": "bf16", "kv_format": "bf16"})
    memories: dict[tuple, ModelMemory] = {}
    rows = []
    for row in measured[chosen].itertuples():
        key = row.model, int(row.layers)
        if key not in memories:
            cut = with_layers(architectures[row.model], int(row.layers))
            memories[key] = model_memory(ModelSpec.model_construct(architecture=cut, reported=None), scenario)
        predicted = _predicted(row, memories[key], scenario, device)
        given = (row.model, row.measurement, row.phase, row.method, row.batch, row.tokens)
        rows.append((*given, predicted, row.value, _error_pct(predicted, row.value)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def left_out(measured: pd.DataFrame, architectures: Mapping[str, Architecture]) -> dict[str, str]:
    """Return measured models that cannot be compared, each with the reason."""
    reasons = {}
    for model, dtype in (
        measured.loc[measured["model"] != "", ["model", "dtype"]].drop_duplicates().itertuples(index=False)
    ):
        if model not in architectures:
            reasons[model] = "not in the catalogue"
        elif dtype not in DTYPES:
            reasons[model] = f"measured as {dtype or 'nothing: it was not loaded'}, expected one of 16 bits"
    return reasons


def with_layers(arch: Architecture, layers: int) -> Architecture:
    """Return the first `layers` layers of `arch`, of either stack where it has two; more are a UserError."""
    most = len(arch.layers())
    if not 1 <= layers <= most:
        problem = f"got {layers}, expected 1 to the {most} of the catalogue"
        raise UserError("memory.csv: layers", problem, "Correct the plan.")
    return first_layers(arch, layers)


SHORT = re.compile(r"from ([1-9]\d{0,11}) tokens$")
"""End of the method of a cache's rows: the shorter of the two lengths, whose difference is measured."""


def _predicted(row: Any, memory: ModelMemory, scenario: Scenario, device_bytes: float) -> Number:
    m, experts = memory, memory.moe_layers * memory.experts * memory.expert_bytes
    if row.measurement == "activation_peak_bytes":
        in_flight = row.batch if row.phase == "decode" else row.batch * row.tokens
        return m.activation_bytes_per_token * in_flight + m.activation_bytes_per_sequence * row.batch
    if row.measurement == "max_context_tokens":
        return reference.evaluate(m, device_bytes, int(row.batch), scenario)["baseline_max_context"]
    if row.phase == "cache":
        per_token, state = _cache(row, m)
        return state if row.measurement == "state_bytes_per_sequence" else per_token
    return {"parameter_bytes": m.non_expert_bytes + experts, "expert_parameter_bytes": experts}[row.measurement]


def _cache(row: Any, memory: ModelMemory) -> tuple[float, float]:
    """Return bytes per token and whatever the length, as two lengths give them: a full window counts as a state."""
    told = SHORT.search(row.method)
    short, long = int(told[1]) if told else 0, row.tokens
    if not 0 < short < long:
        problem = f"got {row.method!r} with tokens {row.tokens:g}, expected from fewer tokens"
        raise UserError("memory.csv: method", problem, "Measure it again.")
    kept = [memory.cached_bytes(int(tokens)) for tokens in (short, long)]
    per_token = (kept[1] - kept[0]) / (long - short)
    return per_token, kept[0] - per_token * short + memory.state_bytes_per_sequence


def _device_bytes(measured: pd.DataFrame) -> float:
    """Return memory of the device that was measured; NaN on a CPU, whose file has no context either."""
    sizes = measured.loc[measured["measurement"] == "device_bytes", "value"].unique()
    if len(sizes) > 1 or (not len(sizes) and (measured["measurement"] == "max_context_tokens").any()):
        raise UserError("memory.csv", f"device_bytes: got {len(sizes)} values, expected one", "Measure it again.")
    return int(sizes[0]) if len(sizes) else np.nan


def _error_pct(predicted: Number, measured: float) -> float:
    if predicted == measured:
        return 0.0
    return 100 * (predicted / measured - 1) if measured else np.inf


def build(files, parameters):
    """Write one row per measured number that the capacity model predicts, GPU by GPU."""
    architectures = {path.stem: load_model(path).architecture for path in files.models}
    scenario = Scenario.model_validate(parameters["scenario"])
    folders = sorted({path.parent for path in files.measured})
    tables = [compare(read_memory(folder), architectures, scenario).assign(gpu=folder.name) for folder in folders]
    write_table(files.table, joined(tables, files.table), VALIDATION)
