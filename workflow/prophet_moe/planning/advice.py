"""One recommendation for a model on a GPU, with its reasons, beside the decision tree of report 002."""

from collections.abc import Sequence
from dataclasses import dataclass

from prophet_moe.planning.situation import Situation
from prophet_moe.planning.solve import ROOM, Split, at_limit, split
from prophet_moe.units import GB

KEEP_ALL, QUANTISE, SLOTS, MORE_GPUS = "keep_all", "quantise", "expert_slots", "more_gpus"
TREE = "report 002, lines 247 to 267"
LATENCY, THROUGHPUT = range(1, 17), range(32, 65)
"""Batch sizes of the two sides of the tree."""
FEW, MANY = range(8, 17), 64
"""Experts of a layer of its leaves: these, or at least so many."""
LEAVES = {
    ("latency", "few"): ("Prophet, of limited benefit", (SLOTS, KEEP_ALL)),
    ("latency", "many"): ("Prophet, optimal (2 to 10 times the context)", (SLOTS,)),
    ("throughput", "few"): ("quantisation or CPU offloading", (QUANTISE, SLOTS)),
    ("throughput", "many"): ("Prophet with quantisation", (QUANTISE, SLOTS)),
}
"""What the leaves say, and the recommendations here that agree."""


@dataclass(frozen=True)
class Alternatives:
    """What else would hold every expert beside a context."""

    format: str | None
    """The widest of the tried formats that does; None: none of them."""
    gpus: int | None
    """The fewest GPUs that do, by tensor parallelism; None: none of the tried numbers."""


@dataclass(frozen=True)
class Advice:
    """What to do, and why."""

    kind: str
    context: int
    sentence: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What the decision tree says of a configuration."""

    leaf: str | None
    """None where the tree has no branch for it."""
    agrees: bool | None
    sentence: str


def advise(s: Situation, context: int, limits: Sequence[float], others: Alternatives) -> Advice:
    """Return one recommendation at a context: all experts, slots within the strictest limit, else fewer bits, else
    slots within the widest limit, else more GPUs.
    """
    strict, wide = min(limits), max(limits)
    found = split(s, context)
    if found.slots >= s.all_slots:
        reason = f"every expert fits beside {context:,} tokens of {s.batch:,} {_sequences(s.batch)}: nothing is copied"
        return Advice(KEEP_ALL, context, "Keep all experts on the GPU.", (reason,))
    lacks = any(each.kind == ROOM for each in found.refusals)
    reasons = [] if lacks else [_of_slots(found, s)]
    kept = {limit: at_limit(s, context, limit).met for limit in (strict, wide)}
    if found.works and kept[strict]:
        reasons.append(f"that is within {strict:g} times the resident time")
        return Advice(SLOTS, context, _slots_sentence(found), tuple(reasons))
    if others.format:
        reasons.append(f"in {others.format} all experts fit beside that context, and no copy is waited for")
        reasons.append("what fewer bits cost in quality is not judged here")
        return Advice(QUANTISE, context, f"Quantise the weights to {others.format}, and keep all experts.", (*reasons,))
    reasons.append("none of the tried formats makes all experts fit")
    if found.works and kept[wide]:
        reasons.append(f"that is within {wide:g} times the resident time")
        return Advice(SLOTS, context, _slots_sentence(found), tuple(reasons))
    reasons += [each.reason for each in found.refusals if not found.works]
    if others.gpus:
        reasons.append(f"{others.gpus} such GPUs hold all experts and that context by tensor parallelism")
        return Advice(MORE_GPUS, context, f"Use {others.gpus} GPUs.", tuple(reasons))
    reasons.append("no tried number of such GPUs holds all experts and that context")
    return Advice(MORE_GPUS, context, "Use larger GPUs, or more of them.", tuple(reasons))


def _of_slots(found: Split, s: Situation) -> str:
    held = f"{found.slots:,} of {s.all_slots:,} experts have a slot beside {found.context:,} tokens"
    if found.slowdown is None:
        return held
    between = f"{found.slowdown.low:.3g} to {found.slowdown.high:.3g}"
    return f"{held}, a step takes {found.slowdown.middle:.3g} times the resident time ({between})"


def _slots_sentence(found: Split) -> str:
    return f"Keep {found.per_layer:,} of {found.experts:,} experts of each layer in slots, the others in host memory."


def _sequences(batch: int) -> str:
    return "sequence" if batch == 1 else "sequences"


def tree_verdict(s: Situation, advice: Advice) -> Verdict:
    """Return what the report's tree says of this batch size and number of experts, and whether the plan agrees."""
    side = "latency" if s.batch in LATENCY else "throughput" if s.batch in THROUGHPUT else None
    size = "few" if s.experts in FEW else "many" if s.experts >= MANY else None
    if side is None or size is None:
        lack = f"a batch of {s.batch:,}" if side is None else f"{s.experts:,} experts a layer"
        return Verdict(None, None, f"The decision tree ({TREE}) has no branch for {lack}.")
    leaf, agreeing = LEAVES[side, size]
    if advice.kind in agreeing:
        return Verdict(leaf, True, f"The decision tree ({TREE}) says the same: {leaf}.")
    blind = "It asks for the batch and the number of experts alone, not for memory, context or link"
    return Verdict(leaf, False, f"The decision tree ({TREE}) disagrees: {leaf}. {blind}.")


def sizes(s: Situation) -> str:
    """Return what the experts take in words."""
    return f"{s.all_slots:,} experts of {s.expert_bytes / 1e6:,.2f} MB, {s.all_slots * s.expert_bytes / GB:,.1f} GB"
