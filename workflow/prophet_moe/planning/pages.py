"""A plan as text, with its chart of context against slowdown, and as JSON."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prophet_moe.planning.advice import Advice, Verdict, sizes
from prophet_moe.planning.demand import Demand
from prophet_moe.planning.engines import EngineCommand
from prophet_moe.planning.explain import Explained
from prophet_moe.planning.situation import Range, Situation
from prophet_moe.planning.solve import ANY_ENGINE, Limit, Split
from prophet_moe.units import GB

VERSION = 1
"""Version of the form of the JSON: a key that is renamed, removed or changed in meaning raises it."""
CHART_COLUMNS, WIDEST = 56, 100.0
"""Columns of the chart, and the largest slowdown that it shows."""


@dataclass(frozen=True)
class Plan:
    """All that is printed of one model on one GPU."""

    model: str
    gpu: str
    scenario: str
    engine: str
    formats: str
    situation: Situation
    law: str
    splits: tuple[Split, ...]
    """The split with the most slots at each context."""
    limits: tuple[Limit, ...]
    """By context and limit."""
    longest: tuple[tuple[float, int | None], ...]
    """By limit: the longest context within it."""
    advice: Advice
    tree: Verdict
    commands: tuple[EngineCommand, ...]
    lines: tuple[Explained, ...]
    demand: Demand | None = None
    """What arrivals ask of the GPU; None where the batch is given."""


def chart(splits: Sequence[Split], limits: Sequence[float]) -> list[str]:
    """Return the frontier as lines of text: a row a context, slowdown from left to right on a logarithmic axis.

    `o` is the slowdown with the most slots, the line its range, `|` are the limits, `>` goes on beyond the axis.
    """
    width = max((len(f"{each.context:,}") for each in splits), default=1)
    rows = [_row(each, limits, width) for each in splits if each.slowdown is not None]
    ticks = [" "] * (CHART_COLUMNS + 4)
    for tick in (1, 2, 5, 10, 20, 50, 100):
        ticks[_column(tick) : _column(tick) + len(str(tick))] = str(tick)
    axis = f"{'':{width}}  {''.join(ticks).rstrip()}  slowdown"
    return [*rows, axis]


def _column(slowdown: float) -> int:
    place = math.log(min(max(slowdown, 1.0), WIDEST)) / math.log(WIDEST)
    return round(place * (CHART_COLUMNS - 1))


def _row(found: Split, limits: Sequence[float], width: int) -> str:
    cells = [" "] * CHART_COLUMNS
    low, middle, high = (_column(end) for end in (found.slowdown.low, found.slowdown.middle, found.slowdown.high))
    cells[low : high + 1] = "-" * (high + 1 - low)
    for limit in limits:
        cells[_column(limit)] = "|"
    cells[middle] = "o"
    if found.slowdown.high > WIDEST:
        cells[-1] = ">"
    note = "" if found.works else "  does not work"
    return f"{found.context:>{width},}  {''.join(cells)}{note}".rstrip()


def between(found: Range | None, digits: int = 3, scale: float = 1.0) -> str:
    """Return a middle with its ends in words; empty where there is none."""
    if found is None:
        return ""
    low, middle, high = (f"{scale * end:,.{digits}g}" for end in (found.low, found.middle, found.high))
    return middle if low == high else f"{middle} ({low} to {high})"


def sentences(plan: Plan) -> Iterator[str]:
    """Yield the recommendation, its reasons, and what the report's tree says."""
    yield f"At {plan.advice.context:,} tokens: {plan.advice.sentence}"
    for reason in plan.advice.reasons:
        yield f"  - {reason}"
    yield plan.tree.sentence


def rests_on(plan: Plan) -> dict[str, str]:
    """Return what a plan rests on, a sentence each."""
    s = plan.situation
    times = (
        f"law {plan.law}; ranges reach from a clean link to a host that manages copies"
        if s.timed
        else "none: no bandwidths"
    )
    host = "not given" if s.host_bytes is None else f"{s.host_bytes / GB:,.1f} GB can be pinned"
    if s.host_bytes == 0:
        host = "none beside the GPU's"
    return {
        "experts": f"{sizes(s)} ({plan.formats})",
        "hit rates": f"{s.curve.origin}; interval: a factor of {s.curve.miss_factor:.3g} of the misses",
        "times": times,
        "host memory": f"{host}; every expert keeps a copy there",
    }


def context_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the table of contexts: most slots, resident share, hit rate, tokens per second, slowdown, prefill."""
    return [
        (
            f"{each.context:,}",
            f"{each.slots:,}",
            f"{each.per_layer:,} of {each.experts:,}",
            f"{100 * each.share:.1f} %",
            between(each.hit),
            between(each.tokens_per_s),
            between(each.slowdown),
            "" if each.prefill_seconds is None else f"{each.prefill_seconds:,.3g} s",
        )
        for each in plan.splits
    ]


def limit_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the table of limits: at each context the fewest slots that keep a slowdown, and whether they fit."""
    rows = []
    for each in plan.limits:
        needed = "" if each.fewest_slots is None else f"{each.fewest_slots:,}"
        found = each.split
        rows.append(
            (
                f"{each.limit:g}",
                f"{each.context:,}",
                needed,
                f"{max(0, each.most_slots):,}",
                "yes" if each.met else "no",
                "" if found is None else f"{100 * found.share:.1f} %",
                "" if found is None else between(found.hit),
                "" if found is None else between(found.tokens_per_s),
            )
        )
    return rows


def failures(plan: Plan) -> list[str]:
    """Return what does not work and why, a line for each context and reason, and limits that no context keeps."""
    found = []
    for each in plan.splits:
        for refusal in each.refusals:
            which = "does not work" if refusal.kind in ANY_ENGINE else "not everywhere"
            found.append(f"{which}: {each.context:,} tokens: {refusal.reason}")
    return found + [
        f"does not work: a slowdown of {limit:g}: no context keeps it with the slots that fit"
        for limit, longest in plan.longest
        if longest is None and plan.situation.timed
    ]


def as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON: bytes, seconds, tokens; a range has `low`, `middle` and `high`, null is unknown."""
    s = plan.situation
    return {
        "version": VERSION,
        "model": plan.model,
        "gpu": plan.gpu,
        "scenario": plan.scenario,
        "engine": plan.engine,
        "law": plan.law,
        "batch": s.batch,
        "arrivals": None if plan.demand is None else asdict(plan.demand) | {"keeps_up": plan.demand.keeps_up},
        "experts": s.experts,
        "top_k": s.top_k,
        "moe_layers": s.layers,
        "unique_experts": s.unique,
        "expert_bytes": s.expert_bytes,
        "room_bytes": s.room_bytes,
        "host_bytes_needed": s.all_slots * s.expert_bytes,
        "native_context": s.native_context,
        "rests_on": rests_on(plan),
        "recommendation": asdict(plan.advice) | {"reasons": list(plan.advice.reasons)},
        "decision_tree": asdict(plan.tree),
        "contexts": [_split_json(each) for each in plan.splits],
        "limits": [
            {
                "limit": each.limit,
                "context": each.context,
                "fewest_slots": each.fewest_slots,
                "most_slots": max(0, each.most_slots),
                "met": each.met,
                "split": None if each.split is None else _split_json(each.split),
            }
            for each in plan.limits
        ],
        "longest_contexts": [{"limit": limit, "context": context} for limit, context in plan.longest],
        "commands": [asdict(each) | {"source": each.source} for each in plan.commands],
        "budget": [asdict(each) for each in plan.lines],
    }


def _split_json(found: Split) -> dict[str, Any]:
    return {
        "context": found.context,
        "slots": found.slots,
        "slots_per_layer": found.per_layer,
        "resident_share": found.share,
        "hit_rate": asdict(found.hit),
        "tokens_per_s": _range(found.tokens_per_s),
        "step_seconds": _range(found.seconds),
        "resident_step_seconds": _range(found.resident_seconds),
        "slowdown": _range(found.slowdown),
        "prefill_seconds": found.prefill_seconds,
        "works": found.works,
        "refusals": [asdict(each) for each in found.refusals],
    }


def _range(found: Range | None) -> dict[str, float] | None:
    return None if found is None else asdict(found)
