"""Hit curves for every shape of router, plans beside what people measured, and some plans in full."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prophet_moe import params
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.catalog.engine_offload import EngineOffload, load_offload
from prophet_moe.catalog.link import link_named, load_links
from prophet_moe.catalog.model import load_model
from prophet_moe.errors import UserError
from prophet_moe.hardware.estimate import read_estimators
from prophet_moe.hardware.profile import read_profile
from prophet_moe.observed import offload_fit
from prophet_moe.observed.context import load_context
from prophet_moe.observed.hit_rates import HIT_RATE, OF_OTHERS
from prophet_moe.observed.schema import HIT_RATES, is_missing, read_observations
from prophet_moe.planning.build import Machine, situation_of
from prophet_moe.planning.curve import HitCurve, curve_of
from prophet_moe.planning.situation import CLEAN, HOSTED, MissCost, Range, Situation, miss_cost
from prophet_moe.planning.solve import Split, frontier, split
from prophet_moe.planning.stand_in import Routing, routings_in, stand_in
from prophet_moe.routing.calibrated import read_calibrated
from prophet_moe.routing.synthetic import Chains, Scalars, Setting, hit_curve
from prophet_moe.routing.trace import Router
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import write_table
from prophet_moe.units import GB, GIB, MB
from prophet_moe.validation import read_csv
from studies.planner.study import CURVES, PLAN, PLANNER, RATE, RATE_FACTOR, SLOTS, SLOTS_PCT, PlannerSettings

SEED = 2
"""Seed of the curves: neither that of the fits of the routings nor that of their evaluation."""
ROUTING = "routing "
"""Beginning of what a predicted hit rate rests on where a routing stands in."""
NORMAL_90 = 1.645
"""Standard deviations of a normal distribution that nine in ten lie within."""
SMALLEST_MISS = 0.005
"""Rounding of a published hit rate: fewer misses tell no ratio."""
DIFFERENT = 1.03
"""Ratio of two measured speeds from which on their order counts."""
SLOT_COLUMNS = (
    *(
        "id",
        "source",
        "engine",
        "model",
        "counted_as",
        "format",
        "moe_layers",
        "memory",
        "memory_unit",
        "slots",
        "slots_unit",
    ),
    *("anchor", "notes"),
)
"""Columns of resources/observations/slots.csv."""
SPLIT_COLUMNS = (
    *("id", "source", "engine", "engine_kind", "model", "quantisation", "experts_per_layer", "top_k", "moe_layers"),
    *("expert_mb", "kv_bytes_per_token", "gpu", "device_gib", "link_gb_per_s", "resident_ms", "context", "slots"),
    *("tokens_per_s", "anchor", "notes"),
)
"""Columns of resources/observations/splits.csv."""
CONTEXTS = 9
"""Contexts of a plan that is shown."""


def shapes_of(models: Sequence[ModelSpec]) -> list[tuple[int, int]]:
    """Return E and k of every router of the catalogue, once each."""
    routers = [model.architecture.moe for model in models if model.architecture.moe]
    return sorted({(moe.experts, min(moe.top_k, moe.experts)) for moe in routers})


def wanted(shapes: Sequence[tuple[int, int]], routings: Mapping[str, Routing]) -> list[tuple[str, int, int]]:
    """Return what curves are needed: of every routing at its own E and k, and of the nearest at every other."""
    own = {(name, *each.candidate[:2]) for name, each in routings.items()}
    nearest = {(stand_in("", *shape, routings)[0], *shape) for shape in shapes}
    return sorted(own | nearest)


def slots_tried(experts: int, top_k: int, points: int) -> list[int]:
    """Return numbers of slots in equal ratios from one token's k to all experts but one."""
    last = max(top_k, experts - 1)
    ratio = (last / top_k) ** (1 / (points - 1))
    return sorted({min(last, round(top_k * ratio**place)) for place in range(points)})


def curve_rows(
    needed: Sequence[tuple[str, int, int]], scalars: Mapping[str, Scalars], settings: PlannerSettings
) -> pd.DataFrame:
    """Return routing, experts, top_k, slots and hit_rate of every curve that is needed."""
    setting, chains = Setting(settings.tokens, settings.start, settings.lookup), Chains(settings.sequences)
    rows = []
    for routing, experts, top_k in needed:
        rates = hit_curve(scalars[routing], Router("", experts, top_k, ()), setting, SEED, chains)
        for slots in slots_tried(experts, top_k, settings.points):
            about = {"routing": routing, "experts": experts, "top_k": top_k, "slots": slots}
            rows.append(about | {"hit_rate": float(rates[slots - 1])})
    return pd.DataFrame(rows)


def miss_factors(rows: pd.DataFrame, models: Mapping[str, str]) -> tuple[float, float]:
    """Return within what factor misses of a model more lie: by its own routing, and by that of another model.

    Parameters
    ----------
    rows : DataFrame
        Rows of the study `observed`, predicted hit rates beside measured ones.
    models : mapping from str to str
        Model by calibrated routing.

    Returns
    -------
    float, float
        exp(1.645 s), s the root mean square over models of the logarithm of measured over predicted misses, each model
        counted once. No row counts that the routing was fitted to.
    """
    found = rows[rows["clean"] & rows["held_out"] & rows["quantity"].isin([HIT_RATE, OF_OTHERS])]
    found = found[found["basis"].str.startswith(ROUTING) & (found["measured"] > 0)]
    routing = found["basis"].str.removeprefix(ROUTING).str.split(",").str[0]
    own = routing.map(models) == found["model"]
    return _factor(found[own & (found["quantity"] == HIT_RATE)]), _factor(found[~own])


def _factor(rows: pd.DataFrame) -> float:
    if rows.empty:
        return 1.0
    missed, predicted = (np.maximum(1 - rows[name], SMALLEST_MISS) for name in ("measured", "predicted"))
    squares = np.log(missed / predicted) ** 2
    return float(math.exp(NORMAL_90 * math.sqrt(squares.groupby(rows["model"]).mean().mean())))


def curves_of(table: pd.DataFrame) -> dict[tuple[str, int, int], HitCurve]:
    """Return the curves of the table by routing, E and k, with the factor of a stand-in."""
    factor = float(table["miss_factor_stand_in"].iloc[0])
    return {
        (routing, experts, top_k): _curve(of, routing, experts, top_k, factor)
        for (routing, experts, top_k), of in table.groupby(["routing", "experts", "top_k"])
    }


def _curve(rows: pd.DataFrame, routing: str, experts: int, top_k: int, factor: float) -> HitCurve:
    return curve_of(experts, top_k, list(zip(rows["slots"], rows["hit_rate"], strict=True)), routing, factor)


class Predictor:
    """What plans rest on, without a catalogue: curves by routing, and which routing stands in."""

    def __init__(self, table: pd.DataFrame, routings: Mapping[str, Routing], extra: Any) -> None:
        """`extra` makes the curve of a shape that the table has not."""
        self.routings, self.curves, self.extra = dict(routings), curves_of(table), extra
        self.own_factor = float(table["miss_factor_own"].iloc[0])

    def curve(self, model: str, experts: int, top_k: int, left_out: bool = False) -> HitCurve:
        """Return the curve that stands in for a model; `left_out` leaves its own routing out."""
        kept = {name: each for name, each in self.routings.items() if not (left_out and each.model == model)}
        name, own = stand_in("" if left_out else model, experts, top_k, kept)
        key = name, experts, top_k
        if key not in self.curves:
            self.curves[key] = self.extra(*key)
        found = self.curves[key]
        factor = self.own_factor if own else found.miss_factor
        return HitCurve(found.experts, found.top_k, found.points, found.origin, factor)


def rate_rows(observed: pd.DataFrame, presets: Mapping[str, EngineOffload], using: Predictor) -> list[dict[str, Any]]:
    """Return a row of PLANNER for every measured speed whose slots, bytes, link and resident time are known.

    Bytes, link and resident time are those of its source; the hit rate is the planner's, not the measured one.
    """
    pairs = offload_fit.pairs_of(observed)
    rows = []
    for row in observed.to_dict("records"):
        needed = ("tokens_per_s", "experts_per_layer", "top_k", "resident_share")
        if any(is_missing(row[name]) for name in needed) or row["engine_kind"] not in presets or _left_out(row):
            continue
        pair = pairs.loc[row["id"]]
        if not np.isfinite(pair[["resident", "miss"]].to_numpy(float)).all():
            continue
        rows.append(_rate_row(row, pair, presets, using, _overheads_without(row, pairs, presets)))
    return rows


def split_rows(
    observed: Sequence[Mapping[str, str]],
    presets: Mapping[str, EngineOffload],
    using: Predictor,
) -> list[dict[str, Any]]:
    """Return a row of PLANNER for every speed of which the source tells the context, and no slots.

    Slots are those that the memory leaves beside that context. What is neither slots nor KV is that of the row that
    `anchor` names, which prints both.
    """
    by_id = {row["id"]: row for row in observed}
    rows = []
    for row in (row for row in observed if row["anchor"]):
        anchor, expert = by_id[row["anchor"]], float(row["expert_mb"]) * MB
        other = float(anchor["device_gib"]) * GIB - float(anchor["slots"]) * expert - _cached(anchor)
        slots = math.floor((float(row["device_gib"]) * GIB - other - _cached(row)) / expert)
        layers, experts = int(row["moe_layers"]), int(row["experts_per_layer"])
        told = {name: row[name] for name in ("id", "source", "engine", "engine_kind", "model", "quantisation", "gpu")}
        told |= {"experts_per_layer": experts, "top_k": int(row["top_k"]), "moe_layers": layers, "notes": row["notes"]}
        told |= {"resident_share": slots / (layers * experts), "hit_rate": None, "tokens_per_s": row["tokens_per_s"]}
        miss = float(row["expert_mb"]) / float(row["link_gb_per_s"])
        pair = pd.Series({"miss": miss, "resident": float(row["resident_ms"])})
        preset = presets[row["engine_kind"]]
        others = offload_fit.Overheads(preset.miss_overhead_us, preset.layer_overhead_us)
        rows.append(_rate_row(told, pair, presets, using, others) | {"context": int(row["context"])})
    return rows


def _cached(row: Mapping[str, str]) -> float:
    return int(row["context"]) * float(row["kv_bytes_per_token"])


def _left_out(row: Mapping[str, Any]) -> bool:
    """Return whether a row's speed does not count: prefetches, or the run that fixes the link of others."""
    if is_missing(row["left_out"]):
        return False
    return any(part.startswith(f"{RATE}:") or part.startswith("all:") for part in str(row["left_out"]).split("; "))


def _overheads_without(
    row: Mapping[str, Any], pairs: pd.DataFrame, presets: Mapping[str, EngineOffload]
) -> offload_fit.Overheads:
    """Return overheads that neither the row's engine and model nor, with too few others, its source fixed."""
    preset = presets[row["engine_kind"]]
    fixing = pairs[pairs.index.isin(preset.rows)]
    own = pairs.loc[row["id"]]
    if row["id"] not in preset.rows:
        return offload_fit.Overheads(preset.miss_overhead_us, preset.layer_overhead_us)
    others = fixing[fixing["group"] != own["group"]]
    if len(others) < offload_fit.LEAST_OTHERS:
        others = fixing[fixing["source"] != own["source"]]
    return offload_fit.fit(others)


def _rate_row(
    row: Mapping[str, Any],
    pair: pd.Series,
    presets: Mapping[str, EngineOffload],
    using: Predictor,
    others: offload_fit.Overheads,
) -> dict[str, Any]:
    experts, top_k, layers = int(row["experts_per_layer"]), int(row["top_k"]), int(row["moe_layers"])
    preset = presets[row["engine_kind"]]
    slots = round(float(row["resident_share"]) * experts * layers)
    found = split(
        _measured_situation(pair, experts, top_k, layers, using.curve(row["model"], experts, top_k), preset), 1, slots
    )
    left_out = preset.model_copy(update={"miss_overhead_us": others.miss_us, "layer_overhead_us": others.layer_us})
    curve = using.curve(row["model"], experts, top_k, left_out=True)
    again = split(_measured_situation(pair, experts, top_k, layers, curve, left_out), 1, slots)
    speed, measured = found.tokens_per_s, float(row["tokens_per_s"])
    without = again.tokens_per_s.middle
    gpu = "" if is_missing(row["gpu"]) else row["gpu"]
    run = ", ".join(str(row[name]) for name in ("engine", "model", "quantisation", "top_k")) + f", {gpu}"
    return {
        "id": row["id"],
        "part": RATE,
        "run": run,
        "engine": f"{row['engine']} ({row['engine_kind']})",
        "model": row["model"],
        "gpu": gpu,
        "context": None,
        "resident_share_pct": 100 * found.share,
        "hit_rate": found.hit.middle,
        "hit_rate_measured": np.nan if is_missing(row["hit_rate"]) else float(row["hit_rate"]),
        "measured": measured,
        "predicted": speed.middle,
        "low": speed.low,
        "high": speed.high,
        "predicted_left_out": without,
        "unit": "tok/s",
        "factor": speed.middle / measured,
        "within_goal": _within(speed.middle, measured, RATE_FACTOR),
        "left_out_within_goal": _within(without, measured, RATE_FACTOR),
        "source": row["source"],
        "note": "" if is_missing(row["notes"]) else row["notes"],
    }


def _measured_situation(
    pair: pd.Series, experts: int, top_k: int, layers: int, curve: HitCurve, preset: EngineOffload
) -> Situation:
    """Return the situation of a published row, whose bytes, link and resident time its source tells."""
    miss, layer = float(pair["miss"]) / 1e3 + preset.miss_overhead_us / 1e6, preset.layer_overhead_us / 1e6
    resident = float(pair["resident"]) / 1e3
    return Situation(
        experts=experts,
        top_k=top_k,
        layers=layers,
        expert_bytes=1.0,
        batch=1,
        unique=float(top_k),
        room_bytes=float(layers * experts),
        cached_bytes=lambda tokens: 0.0,
        native_context=1,
        curve=curve,
        cost=MissCost(Range(miss, miss, miss), Range(layer, layer, layer)),
        resident=lambda tokens: Range(resident, resident, resident),
    )


def _within(predicted: float, measured: float, factor: float) -> bool:
    return max(predicted / measured, measured / predicted) <= factor


def in_order(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of speeds with the pairs that each makes with others of its run, and how many are in order."""
    return [{**row, **_order(row, rows)} for row in rows]


def _order(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return with how many configurations of its run a row can be compared, and how many are in the right order."""
    others = [
        other
        for other in rows
        if other["run"] == row["run"]
        and abs(other["resident_share_pct"] - row["resident_share_pct"]) > 0.01
        and max(other["measured"] / row["measured"], row["measured"] / other["measured"]) > DIFFERENT
    ]
    right = [
        other for other in others if (other["predicted"] - row["predicted"]) * (other["measured"] - row["measured"]) > 0
    ]
    return {"pairs": len(others), "pairs_right": len(right)}


def slot_rows(observed: Sequence[Mapping[str, str]], bytes_of: Mapping[tuple[str, str], float]) -> list[dict[str, Any]]:
    """Return a row of PLANNER for every printed number of slots.

    The slots follow from the memory and the bytes of an expert (`bytes_of` by model and format), or from another row of
    the same run, where the bytes of the format are not known. A row that fixes another is not judged.
    """
    by_id = {row["id"]: row for row in observed}
    fixing = {row["anchor"] for row in observed if row["anchor"]}
    rows = []
    for row in observed:
        if row["id"] in fixing:
            continue
        memory, measured, layers = float(row["memory"]), float(row["slots"]), int(row["moe_layers"])
        if row["anchor"]:
            anchor = by_id[row["anchor"]]
            predicted = float(anchor["slots"]) * memory / float(anchor["memory"])
        else:
            predicted = memory * GB / (layers * bytes_of[row["counted_as"], row["format"]])
        rows.append(
            {
                "id": row["id"],
                "part": SLOTS,
                "run": f"{row['engine']}, {row['model']}",
                "engine": row["engine"],
                "model": row["model"],
                "gpu": "",
                "measured": measured,
                "predicted": predicted,
                "unit": row["slots_unit"],
                "factor": predicted / measured,
                "within_goal": abs(predicted / measured - 1) <= SLOTS_PCT / 100,
                "source": row["source"],
                "note": f"{memory:g} {row['memory_unit']}; {row['notes']}",
            }
        )
    return rows


def plan_rows(name: str, gpu: str, s: Situation) -> list[dict[str, Any]]:
    """Return a row of PLANNER for every context of a plan: the slowdown with the most slots, where it works."""
    least = min(1024, s.native_context)
    ratio = (s.native_context / least) ** (1 / (CONTEXTS - 1))
    contexts = sorted({round(least * ratio**place) for place in range(CONTEXTS)} | {s.native_context})
    return [_plan_row(name, gpu, found) for found in frontier(s, contexts) if found.works]


def _plan_row(name: str, gpu: str, found: Split) -> dict[str, Any]:
    return {
        "id": "",
        "part": PLAN,
        "run": "",
        "engine": CLEAN,
        "model": name,
        "gpu": gpu,
        "context": found.context,
        "resident_share_pct": 100 * found.share,
        "hit_rate": found.hit.middle,
        "predicted": found.slowdown.middle,
        "low": found.slowdown.low,
        "high": found.slowdown.high,
        "unit": "x",
        "note": f"{found.per_layer} of {found.experts} experts a layer, {found.tokens_per_s.middle:.3g} tok/s",
    }


def planned(
    spec: ModelSpec, gpu: str, listed: GpuSpec, scenario: Scenario, using: Predictor, files: Any, parameters: Any
) -> Situation:
    """Return the situation of a model of the catalogue on a GPU, one sequence, without an engine's own memory."""
    memory, precision, moe = model_memory(spec, scenario), scenario.precision_of(spec.precision), spec.architecture.moe
    top_k = min(moe.top_k, moe.experts)
    link = link_named(parameters["link"], load_links(files.links))
    presets = load_offload(files.presets)
    estimator = read_estimators(Path(parameters["operators"]), {gpu: listed})[gpu]
    profile = read_profile(Path(parameters["profiles"]), gpu, listed)
    return situation_of(
        memory,
        spec.architecture,
        precision,
        scenario,
        device_bytes(listed, scenario),
        1,
        float(top_k),
        using.curve(spec.name, moe.experts, top_k),
        miss_cost(memory.expert_bytes, listed.link_gb_per_s, link, presets[CLEAN], presets[HOSTED], CLEAN),
        Machine(estimator, profile, link, parameters["compute_share"]),
    )


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows with all columns of PLANNER, typed as declared."""
    names = [column.name for column in PLANNER.columns]
    frame = pd.DataFrame(list(rows), columns=names)
    whole = [column.name for column in PLANNER.columns if column.kind == "integer"]
    flags = [column.name for column in PLANNER.columns if column.kind == "boolean"]
    texts = [column.name for column in PLANNER.columns if column.kind == "text"]
    return frame.astype(dict.fromkeys(whole, "Int64") | dict.fromkeys(flags, "boolean")).fillna(
        dict.fromkeys(texts, "")
    )


def build(files, parameters):
    """Write the hit curves, and table 15."""
    settings = PlannerSettings.model_validate(parameters["planner"])
    scenario = Scenario.model_validate(parameters["scenario"])
    context = load_context()
    folder = Path(parameters["routings"])
    routings = routings_in(folder)
    scalars = {name: Scalars(**read_calibrated(folder / f"{name}.json").scalars.model_dump()) for name in routings}
    models = {path.stem: load_model(path) for path in map(Path, files.models)}
    table = curve_rows(wanted(shapes_of(list(models.values())), routings), scalars, settings)
    own, others = miss_factors(pd.read_csv(files.observed), {name: each.model for name, each in routings.items()})
    table = table.assign(miss_factor_own=own, miss_factor_stand_in=others)

    def extra(routing: str, experts: int, top_k: int) -> HitCurve:
        rows = curve_rows([(routing, experts, top_k)], scalars, settings)
        return _curve(rows, routing, experts, top_k, others)

    using = Predictor(table, routings, extra)
    presets = load_offload(files.presets)
    rows = rate_rows(read_observations(Path(files.hit_rates), HIT_RATES), presets, using)
    slots = [dict(zip(SLOT_COLUMNS, row, strict=True)) for row in read_csv(Path(files.slots), list(SLOT_COLUMNS))]
    splits = [dict(zip(SPLIT_COLUMNS, row, strict=True)) for row in read_csv(Path(files.splits), list(SPLIT_COLUMNS))]
    rows += split_rows(splits, presets, using)
    rows = in_order(rows)
    rows += slot_rows(slots, _expert_bytes(slots, context, scenario))
    shown = scenario.model_copy(update={"precision": "shipped"})
    for model, gpu in settings.pairs.items():
        if model not in models or gpu not in context.gpus:
            problem = f"got {model!r} on {gpu!r}, expected a model of config/models/ and a GPU of config/gpus.yaml"
            raise UserError("studies.planner.pairs", problem, "Correct it.")
        s = planned(models[model], gpu, context.gpus[gpu], shown, using, files, parameters)
        rows += plan_rows(model, gpu, s)
    write_table(files.curves, table[[column.name for column in CURVES.columns]], CURVES)
    write_table(files.table, table_of(rows), PLANNER)


def _expert_bytes(rows: Sequence[Mapping[str, str]], context: Any, scenario: Scenario) -> dict[tuple[str, str], float]:
    """Return the bytes of an expert of every model and format that slots are counted in."""
    found = {}
    for model, format in {(row["counted_as"], row["format"]) for row in rows if row["format"]}:
        spec, _ = context.model(model)
        precision = scenario.model_copy(update={"precision": format}).precision_of(spec.precision)
        found[model, format] = float(params.expert_bytes(spec.architecture, precision))
    return found
