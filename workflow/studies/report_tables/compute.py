"""Every cell of the reports' tables: printed, under the report's own constants, and corrected."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prophet_moe.capacity.configured import Configured, read_configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.memory import ModelMemory, device_bytes, model_memory
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.capacity.reference import evaluate
from prophet_moe.capacity.reserve import with_reserve
from prophet_moe.capacity.saturation import power_law_batch, saturating_batch
from prophet_moe.catalog.architecture import letters
from prophet_moe.printed import SCALES, bounds, read_printed
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import write_table
from prophet_moe.units import GB, MB
from studies.report_tables.own import constants_of
from studies.report_tables.study import REPORT_TABLES, ReportTablesSettings

COUNTED = (
    *("total_params_b", "layers", "hidden", "num_experts", "all_experts", "shared_experts", "top_k", "models"),
    *("expert_mb", "non_expert_gb", "kv_gb", "kv_increase_of_context", "baseline_expert_gb", "baseline_weights_gb"),
    *("one_layer_expert_gb", "other_layers_expert_gb", "int8_baseline_expert_gb", "int8_freed_gb", "predictor_gb"),
)
"""Quantities that follow from the published architecture alone."""
TIMED = ("slowdown",)
"""Quantities that take time: the study `alternatives` has them."""
ASSUMED = (
    *("activation_gb", "baseline_total_gb", "baseline_fixed_gb", "baseline_available_gb", "baseline_max_context"),
    *("baseline_fits_context", "slots_fixed_gb", "slots_available_gb", "slots_max_context", "slots_extension"),
)
"""Quantities that rest on the runtime reserve besides."""
INT8 = {"precision": "int8"}
EXTENSIONS = ("kv_extension_factor", "slots_extension")
Values = dict[str, float]


@dataclass(frozen=True)
class World:
    """Everything that cells are computed from, under one scenario."""

    configured: Configured
    """Models, GPUs and the scenario."""
    memories: Mapping[str, ModelMemory]
    """By model, with its popularity CV; models that the scenario does not cover are left out."""
    grid: pd.DataFrame
    """The capacity grid over the batch sizes of the experiment, estimated routing."""

    @property
    def reported(self) -> bool:
        """Return whether this is the world of the report's constants."""
        return self.scenario.architecture == "reported"

    @property
    def scenario(self) -> Scenario:
        """Return the scenario of this world."""
        return self.configured.scenario


def world_of(configured: Configured, batch_sizes: Sequence[int]) -> World:
    """Return the world of a scenario, with its capacity grid."""
    grid = capacity_grid(configured, batch_sizes)
    return World(configured, configured.constants(), grid[grid["case"] == ESTIMATE])


def report_tables(printed: pd.DataFrame, own: World, right: World, settings: ReportTablesSettings) -> pd.DataFrame:
    """Return the columns of REPORT_TABLES, one row per printed number, in the order of `printed`.

    Parameters
    ----------
    printed : DataFrame
        What `read_printed` returns.
    own : World
        That of the report's constants, for reports 000 to 002.
    right : World
        That of the default scenario.
    settings : ReportTablesSettings
        Constants of report 003 that it leaves unsaid.
    """
    rows = [_row(cell, printed, own, right, settings) for _, cell in printed.iterrows()]
    return pd.DataFrame(rows)[[column.name for column in REPORT_TABLES.columns]].astype({"reproduced": "boolean"})


def _row(cell: pd.Series, printed: pd.DataFrame, own: World, right: World, settings: ReportTablesSettings) -> dict:
    scale = SCALES.get(cell["unit"], 1.0)
    mine = under_own_constants(cell, printed, own, settings) / scale
    corrected = value_in(right, cell, printed) / scale
    claimed = cell["claimed"]
    return {
        "report_table": cell["table"],
        "row": cell["row"],
        "column": cell["column"],
        "unit": cell["unit"],
        "line": cell["source"],
        "claimed": claimed,
        "under_own_constants": mine,
        "reproduced": pd.NA if math.isnan(mine) else bool(abs(mine - claimed) <= cell["half"] * 1.0001),
        "corrected": corrected,
        "difference": corrected - claimed,
        "ratio": corrected / claimed if claimed else math.nan,
        "rests_on": rests_on(cell["quantity"]),
        "why_empty": why_empty(cell, right) if math.isnan(corrected) else "",
    }


def rests_on(quantity: str) -> str:
    """Return what the corrected value of a quantity rests on."""
    return "counted" if quantity in COUNTED else "assumed" if quantity in ASSUMED else "estimated"


def why_empty(cell: pd.Series, right: World) -> str:
    """Return why a cell has no corrected value."""
    if not _available(cell, right):
        return "not among the models and GPUs of this build"
    if cell["quantity"] in EXTENSIONS:
        return "the baseline does not fit" if cell["of"] == "at" else "the baseline fits nowhere"
    if cell["quantity"] in TIMED:
        return "a time: table 17 compares it"
    return "the law never needs all experts" if cell["quantity"] == "saturation_batch" else "not computed"


def _available(cell: pd.Series, world: World) -> bool:
    """Whether a world has the models and the GPU that a cell names, and any configuration of its selection."""
    named, low, high = cell["model"].split(), *bounds(cell["batch"])
    chosen = [name for name, memory in world.memories.items() if _chosen(name, memory, cell)]
    batches = world.grid["batch_size"].between(low, high).any() or cell["of"] in ("at", "count")
    gpu = cell["gpu"] in ("", *world.configured.gpus)
    return set(named) <= set(world.memories) and bool(chosen) and batches and gpu


def under_own_constants(cell: pd.Series, printed: pd.DataFrame, own: World, settings: ReportTablesSettings) -> float:
    """Return what the report's own constants and formulas give for a cell; NaN where it has none."""
    if not cell["source"].startswith("003") or cell["table"] == "003 T1":
        return value_in(own, cell, printed)
    if not _available(cell, own):
        return math.nan
    reported = own.configured.models[cell["model"]].reported
    shares = settings.model_dump() | {"device_gb": own.configured.gpus[cell["gpu"]].memory_nominal_gb}
    constants = constants_of(cell, printed, reported.active_params_b.value, shares)
    context, slots = (_number(cell[name]) for name in ("context", "slots"))
    found = constants.values(int(cell["batch"]), context, slots)
    if cell["quantity"] == "kv_increase_of_context":
        return context / _first_context(cell, printed)
    return found.get(cell["quantity"], math.nan)


def _number(text: str) -> float:
    return float(text) if text else 0.0


def _first_context(cell: pd.Series, printed: pd.DataFrame) -> float:
    """Return the shortest context of a report's table, which its increases are relative to."""
    return min(float(each) for each in printed.loc[printed["table"] == cell["table"], "context"])


def value_in(world: World, cell: pd.Series, printed: pd.DataFrame) -> float:
    """Return the value of a cell in a world; NaN where that has none."""
    if not _available(cell, world):
        return math.nan
    names = [name for name, memory in world.memories.items() if _chosen(name, memory, cell)]
    if cell["quantity"] == "models":
        return float(len(names))
    if cell["quantity"] == "saturation_batch":
        return _over([_saturation(world, name) for name in names], cell["of"])
    if cell["of"] == "at":
        return _at(world, cell, printed)
    rows = world.grid[world.grid["model"].isin(names)]
    low, high = bounds(cell["batch"])
    rows = rows[rows["batch_size"].between(low, high)]
    return _over(list(_column(world, rows, cell["quantity"], cell["of"])), cell["of"])


def _chosen(name: str, memory: ModelMemory, cell: pd.Series) -> bool:
    wanted, (low, high) = cell["model"].split(), bounds(cell["experts"])
    return (not wanted or name in wanted) and low <= memory.experts <= high


def _saturation(world: World, name: str) -> float:
    memory, routing = world.memories[name], world.scenario.routing
    if routing.law == "power_law":
        return power_law_batch(memory.experts, memory.top_k, routing.exponent)
    found = saturating_batch(memory, world.scenario)
    return math.nan if found is None else float(found)


def _column(world: World, rows: pd.DataFrame, quantity: str, of: str) -> np.ndarray:
    """Return a column of the grid; extensions without a baseline count in means alone, and only where a scenario says.

    A largest or smallest extension is one of the configurations whose baseline fits.
    """
    if quantity == "num_experts":
        return rows["experts"].to_numpy(float)
    values = rows[quantity].to_numpy(float)
    if quantity == "kv_extension_factor" and of != "mean":
        return np.where(rows["baseline_fits"], values, math.nan)
    return values


def _over(values: list[float], of: str) -> float:
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return math.nan
    return float({"mean": np.mean, "max": np.max, "min": np.min}[of](known))


def _at(world: World, cell: pd.Series, printed: pd.DataFrame) -> float:
    name, quantity = cell["model"], cell["quantity"]
    if quantity == "kv_increase_of_context":
        cached = world.memories[name].cached_bytes
        return cached(int(cell["context"])) / cached(int(_first_context(cell, printed)))
    described = dict(_described(world, name))
    if quantity in described or not cell["batch"]:
        return described.get(quantity, math.nan)
    return dict(_situation(world, cell)).get(quantity, math.nan)


def _described(world: World, name: str) -> Iterator[tuple[str, float]]:
    """Yield what holds of a model, whatever is done with it."""
    spec, memory = world.configured.models[name], world.memories[name]
    yield "total_params_b", memory.total_params / 1e9
    yield "num_experts", float(memory.experts)
    yield "top_k", float(memory.top_k)
    yield "non_expert_gb", memory.non_expert_bytes / GB
    if world.reported:
        yield "expert_mb", float(spec.reported.expert_mb.value or math.nan)
        yield "layers", float(memory.moe_layers)
        return
    arch = spec.architecture
    patterns = [arch.pattern, *([arch.encoder.pattern] if arch.encoder else [])]
    yield "expert_mb", memory.expert_bytes / MB
    yield "layers", float(sum(len(list(letters(pattern))) for pattern in patterns))
    yield "hidden", float(arch.hidden)
    yield "shared_experts", float(arch.moe.shared_experts)
    yield "all_experts", float(memory.experts + arch.moe.shared_experts)


def _situation(world: World, cell: pd.Series) -> Iterator[tuple[str, float]]:
    """Yield what holds of a model on a GPU, at a batch size, a context and perhaps a number of resident experts."""
    name, batch, slots = cell["model"], int(cell["batch"]), _number(cell["slots"])
    here = with_reserve(world.scenario, world.configured.reserves.get(cell["gpu"]))
    device = device_bytes(world.configured.gpus[cell["gpu"]], here)

    memory = world.memories[name]
    found = evaluate(memory, device, batch, here, resident=int(slots) or None)
    yield from ((quantity, float(value)) for quantity, value in found.items())
    for quantity in ("baseline_expert", "prophet_expert", "expert_savings", "activation"):
        yield f"{quantity}_gb", found[f"{quantity}_bytes"] / GB
    yield "asked_experts", _asked(world, memory, batch, found)
    yield "predictor_gb", memory.predictor_bytes / GB
    one_layer = memory.experts * memory.expert_bytes / GB
    yield "one_layer_expert_gb", one_layer
    yield "other_layers_expert_gb", found["baseline_expert_bytes"] / GB - one_layer
    kv = batch * memory.cached_bytes(int(_number(cell["context"]))) / GB
    yield "kv_gb", kv
    for side in ("baseline", "prophet"):
        fixed = (found[f"{side}_total_bytes"] - found["kv_cache_bytes"]) / GB
        if math.isnan(fixed):  # without a native context the totals are unknown, not what is fixed
            fixed = (device - found[f"{side}_free_bytes"]) / GB
        yield f"{side}_weights_gb", (memory.non_expert_bytes + found[f"{side}_expert_bytes"]) / GB
        yield f"{side}_fixed_gb", fixed
        yield f"{side}_total_gb", fixed + kv
        yield f"{side}_available_gb", found[f"{side}_free_bytes"] / GB
        yield f"{side}_fits_context", float((fixed + kv) * GB <= device)
    freed = (found["prophet_free_bytes"] - found["baseline_free_bytes"]) / GB
    yield "total_freed_gb", freed
    yield "total_freed_pct", 100 * freed / ((device - found["baseline_free_bytes"]) / GB + kv)
    if slots:
        yield "slots_fixed_gb", (device - found["prophet_free_bytes"]) / GB
        yield "slots_available_gb", found["prophet_free_bytes"] / GB
        yield "slots_max_context", float(found["prophet_max_context"])
        yield "slots_extension", float(found["kv_extension_factor"])
    small = {side: size / GB for side, size in _int8_bytes(world, memory, found, name).items()}
    yield "int8_baseline_expert_gb", small["baseline"]
    yield "int8_prophet_expert_gb", small["prophet"]
    yield "int8_freed_gb", found["baseline_expert_bytes"] / GB - small["baseline"]
    yield "int8_prophet_freed_gb", found["baseline_expert_bytes"] / GB - small["prophet"]


def _asked(world: World, memory: ModelMemory, batch: int, found: Values) -> float:
    """Return the experts that a batch asks for: of the power law also those beyond E, as the report prints them."""
    routing = world.scenario.routing
    return memory.top_k * batch**routing.exponent if routing.law == "power_law" else float(found["unique_experts"])


def _int8_bytes(world: World, memory: ModelMemory, found: Values, name: str) -> dict[str, float]:
    """Return the bytes of all and of Prophet's experts in INT8: half of the report's, else with the format's scales."""
    share = 0.5
    if not world.reported:
        small = world.scenario.model_copy(update=INT8)
        share = model_memory(world.configured.models[name], small).expert_bytes / memory.expert_bytes
    return {side: share * found[f"{side}_expert_bytes"] for side in ("baseline", "prophet")}


def build(files, parameters):
    """Write table 21, all cells of the reports' tables."""
    worlds = [
        world_of(read_configured(files, parameters | {"scenario": parameters[key]}), parameters["batch_sizes"])
        for key in ("reported", "scenario")
    ]
    settings = ReportTablesSettings.model_validate(parameters["report_tables"])
    write_table(files.table, report_tables(read_printed(files.printed), *worlds, settings), REPORT_TABLES)
