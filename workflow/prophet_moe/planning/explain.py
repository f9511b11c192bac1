"""Every line of the budget of a plan, with its formula and its source."""

from collections.abc import Iterator
from dataclasses import dataclass

from prophet_moe.capacity.budget import Line
from prophet_moe.capacity.engine import EngineBudget
from prophet_moe.catalog.engine import EngineSpec
from prophet_moe.planning.situation import MissCost, Situation
from prophet_moe.planning.solve import Split
from prophet_moe.units import GB

COUNTED = "counted from the architecture: docs/models.md, docs/precision.md"
SCENARIO = "the scenario, config/experiment.yaml"
FORMULAS = {
    "activations": ("bytes per token in flight x tokens of a prefill chunk + logits", "docs/model.md"),
    "workspace and runtime reserve": ("workspace_mib + runtime_reserve_mib", SCENARIO),
    "libraries and activations of the engine": ("sum of the engine's lines", "config/engines/"),
    "tables, padding and copies of the engine": ("sum of the engine's lines", "config/engines/"),
    "recurrent states of the batch": ("states x B", COUNTED),
    "draft layers": ("counted like other layers", COUNTED),
}
"""Formula and source of lines that are no sizes of weights."""


@dataclass(frozen=True)
class Explained:
    """One number that a plan rests on."""

    what: str
    value: str
    formula: str
    source: str


def explained(
    s: Situation,
    found: Split,
    lines: list[Line],
    engine: EngineSpec,
    budget: EngineBudget | None,
    sources: dict[str, str],
) -> list[Explained]:
    """Return the lines of a plan at one context: the device, what it holds, the split, then times.

    `lines` are those of `capacity.budget`, `budget` that of the engine where there is one. `sources` says where link,
    law, resident time and host memory come from.
    """
    return [*_memory(s, lines), *_engine(engine, budget), *_split(s, found), *_times(s, found, sources)]


def _memory(s: Situation, lines: list[Line]) -> Iterator[Explained]:
    device, *taken = lines
    yield Explained("device memory", _gb(device.baseline), "visible memory x share of the engine", "config/gpus.yaml")
    for line in taken[:-1]:
        if line.what == "routed experts" or line.what.startswith("Prophet's"):
            continue
        formula, source = FORMULAS.get(line.what, ("parameters x bits, with scales", COUNTED))
        yield Explained(line.what, f"- {_gb(line.baseline)}", formula, source)
    yield Explained("room for slots and KV cache", f"= {_gb(s.room_bytes)}", "the lines above", "")


def _engine(engine: EngineSpec, budget: EngineBudget | None) -> Iterator[Explained]:
    for line in budget.lines if budget else ():
        if line.group == "weights" and not line.term:
            continue
        evidence = engine.evidence.get(line.term)
        yield Explained(
            f"{engine.name}: {line.what}", _gb(line.bytes), line.formula, evidence.source if evidence else COUNTED
        )


def _split(s: Situation, found: Split) -> Iterator[Explained]:
    cache = s.batch * s.cached_bytes(found.context)
    formula = f"B = {s.batch:,} x the cache of {found.context:,} tokens"
    yield Explained("KV cache", _gb(cache), formula, COUNTED)
    yield Explained("one expert", f"{s.expert_bytes / 1e6:,.3f} MB", "its matrices with scales", COUNTED)
    formula = f"(room - KV cache) / one expert, at most {s.layers} x {s.experts}"
    yield Explained("slots", f"{found.slots:,} experts", formula, "planning.solve")
    one = s.cached_bytes(found.context) / found.context
    if one:
        formula = "one expert / mean bytes of a token of one sequence"
        yield Explained("one slot", f"{s.expert_bytes / one:,.0f} tokens of KV", formula, "planning.solve")
    formula = f"the curve at {found.slots / s.layers:,.1f} slots a layer"
    between = f"{found.hit.middle:.3f} ({found.hit.low:.3f} to {found.hit.high:.3f})"
    yield Explained("hit rate", between, formula, s.curve.origin)


def _times(s: Situation, found: Split, sources: dict[str, str]) -> Iterator[Explained]:
    host = s.all_slots * s.expert_bytes
    yield Explained("pinned host memory", _gb(host), "every expert has a copy there", sources["host"])
    if not s.timed or found.seconds is None:
        return
    cost: MissCost = s.cost
    resident = found.resident_seconds
    yield Explained("step, all resident", _ms(resident), "sum of operators, or share of bandwidth", sources["resident"])
    yield Explained("misses", f"{s.layers * s.unique * (1 - found.hit.middle):,.1f}", "L x u(B) x (1 - hit)", "")
    yield Explained("one miss", _ms(cost.miss), "copy + bytes / link + overhead of the host", sources["link"])
    yield Explained("one layer", _ms(cost.layer), "overhead of the host", sources["law"])
    yield Explained("step", _ms(found.seconds), "resident + misses x one miss + L x one layer", "planning.solve")
    if found.prefill_seconds is not None:
        formula = "max(compute, experts streamed a chunk), the least of any order"
        yield Explained("prefill", f"{found.prefill_seconds:,.3g} s", formula, "docs/model.md#time-of-a-prefill")


def _gb(size: float) -> str:
    return f"{size / GB:,.3f} GB"


def _ms(seconds) -> str:
    return f"{1e3 * seconds.middle:,.3g} ms ({1e3 * seconds.low:,.3g} to {1e3 * seconds.high:,.3g})"
