"""The split of memory solved: slots beside a context, what they cost, and the longest context within a slowdown.

A step takes t = R + L u (1 - h) m + L l: R with all experts resident, L MoE layers, u distinct experts that it needs of
each, h the hit rate of the slots, m seconds a miss and l seconds a layer. With a slot for every expert it takes R.
Slots are of all layers together: (room - B * cache of the context) / bytes of an expert, at most L E.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from prophet_moe.planning.situation import Range, Situation
from prophet_moe.units import GB

FEWEST_CONTEXT = 128
"""Tokens of the shortest context that is tried."""
SCANNED = 24
"""Contexts between the shortest and the longest that are tried before the last one within a limit is searched for."""
CYCLE, HOST, NATIVE, ROOM = "one_token_cycle", "host_memory", "native_context", "memory"
"""Why something does not work."""
BATCH_CYCLE, BUFFER = "one_step_of_the_batch", "double_buffer"
"""Why some engines cannot: those with one cache for all layers, and FreeToken."""
ANY_ENGINE = (CYCLE, HOST, NATIVE, ROOM)
"""Reasons that hold for every engine."""


@dataclass(frozen=True)
class Refusal:
    """What does not work, and why."""

    kind: str
    reason: str


@dataclass(frozen=True)
class Split:
    """The memory of a GPU split at one context, and what a step then takes."""

    context: int
    slots: int
    """Experts of all layers together that have a slot."""
    experts: int
    layers: int
    hit: Range
    seconds: Range | None
    """Seconds of a decode step; None where times are not known."""
    resident_seconds: Range | None
    slowdown: Range | None
    prefill_seconds: float | None
    batch: int
    refusals: tuple[Refusal, ...]

    @property
    def per_layer(self) -> int:
        """Return the whole slots of every layer."""
        return self.slots // self.layers

    @property
    def share(self) -> float:
        """Return the share of the routed experts that have a slot."""
        return self.slots / (self.layers * self.experts)

    @property
    def works(self) -> bool:
        """Return whether an engine could keep this split; a double buffer is FreeToken's alone."""
        return not any(each.kind in ANY_ENGINE for each in self.refusals)

    @property
    def tokens_per_s(self) -> Range | None:
        """Return the tokens that all sequences together decode in a second, from slow to fast."""
        if self.seconds is None:
            return None
        return Range(*(self.batch / seconds for seconds in (self.seconds.high, self.seconds.middle, self.seconds.low)))


@dataclass(frozen=True)
class Limit:
    """What keeps a slowdown at one context."""

    limit: float
    context: int
    fewest_slots: int | None
    """The fewest slots that keep it; None where times are not known."""
    most_slots: int
    split: Split | None
    """The split with the fewest slots, where they fit."""

    @property
    def met(self) -> bool:
        """Return whether memory has those slots beside the context, and nothing else speaks against them."""
        return self.split is not None and self.split.works


def most_slots(s: Situation, context: int) -> int:
    """Return the most slots beside a context of every sequence; below 0 where the context alone does not fit."""
    left = s.room_bytes - s.batch * s.cached_bytes(context)
    return min(s.all_slots, math.floor(left / s.expert_bytes))


def beside_seconds(s: Situation, slots: int) -> tuple[Range, Range]:
    """Return the seconds that a step takes beside those with all experts resident, and the hit rate, with `slots`."""
    per_layer = slots / s.layers
    hit = s.curve.at(per_layer, s.unique)
    low, high = s.curve.interval(per_layer, s.unique)
    rates = Range(low, hit, high)
    if slots >= s.all_slots:
        return Range(0.0, 0.0, 0.0), rates
    misses = s.layers * s.unique
    return (
        Range(
            misses * (1 - high) * s.cost.miss.low + s.layers * s.cost.layer.low,
            misses * (1 - hit) * s.cost.miss.middle + s.layers * s.cost.layer.middle,
            misses * (1 - low) * s.cost.miss.high + s.layers * s.cost.layer.high,
        ),
        rates,
    )


def step_seconds(s: Situation, context: int, slots: int) -> tuple[Range, Range, Range]:
    """Return a step's seconds, those with all experts resident, and the hit rate with `slots` of all layers."""
    resident = s.resident(context)
    beside, rates = beside_seconds(s, slots)
    seconds = Range(resident.low + beside.low, resident.middle + beside.middle, resident.high + beside.high)
    return seconds, resident, rates


def slowdown_of(seconds: Range, resident: Range) -> Range:
    """Return a step's time over that with all experts resident: what is beside it, over the middle resident time."""
    return Range(
        1 + (seconds.low - resident.low) / resident.middle,
        seconds.middle / resident.middle,
        1 + (seconds.high - resident.high) / resident.middle,
    )


def split(s: Situation, context: int, slots: int | None = None) -> Split:
    """Return the split at a context with `slots`, or with the most that fit, and what speaks against it."""
    slots = most_slots(s, context) if slots is None else slots
    held = max(0, slots)
    seconds = resident = slowdown = None
    low, high = s.curve.interval(held / s.layers, s.unique)
    hit = Range(low, s.curve.at(held / s.layers, s.unique), high)
    if s.timed and slots >= 0:
        seconds, resident, hit = step_seconds(s, context, held)
        slowdown = slowdown_of(seconds, resident)
    prefill = s.prefill(context, held / s.layers) if s.prefill and slots >= 0 else None
    found = tuple(refusals(s, context, slots))
    return Split(context, held, s.experts, s.layers, hit, seconds, resident, slowdown, prefill, s.batch, found)


def refusals(s: Situation, context: int, slots: int) -> list[Refusal]:
    """Return what does not work with so many slots beside a context, and why."""
    found = []
    if context > s.native_context:
        reason = f"{context:,} tokens are beyond the {s.native_context:,} that the model was trained for"
        found.append(Refusal(NATIVE, reason))
    if slots < 0:
        lack = (s.batch * s.cached_bytes(context) - s.room_bytes) / GB
        return [*found, Refusal(ROOM, f"{lack:,.1f} GB lack before any expert has a slot")]
    if slots >= s.all_slots:
        return found
    fewest = s.layers * s.top_k
    if slots < fewest:
        reason = f"{slots:,} slots are fewer than the {fewest:,} that one token needs"
        found.append(Refusal(CYCLE, f"{reason} ({s.top_k} of each of {s.layers} layers): a cache keeps nothing"))
    elif slots < s.cycle_slots:
        reason = f"{slots:,} slots are fewer than the {math.ceil(s.cycle_slots):,} that one step of the batch needs"
        found.append(Refusal(BATCH_CYCLE, f"{reason}: a cache of all layers together keeps nothing, one a layer some"))
    if slots < 2 * s.experts:
        reason = f"{slots:,} slots are fewer than 2E = {2 * s.experts:,}, the double buffer of FreeToken's prefill"
        found.append(Refusal(BUFFER, f"{reason} (E = {s.experts:,} without overlap)"))
    needed = s.all_slots * s.expert_bytes
    if s.host_bytes is not None and needed > s.host_bytes:
        reason = f"the experts take {needed / GB:,.1f} GB of pinned host memory, {s.host_bytes / GB:,.1f} GB are there"
        found.append(Refusal(HOST, f"{reason}: misses would come from pageable memory or a disk"))
    return found


def fewest_slots(s: Situation, context: int, limit: float) -> int | None:
    """Return the fewest slots that keep a slowdown at a context; all of them always do. None where times are unknown.

    At least those of one token: fewer keep nothing. More slots never miss more, so that halving finds them.
    """
    if not s.timed:
        return None

    def kept(slots: int) -> bool:
        seconds, resident, _ = step_seconds(s, context, slots)
        return seconds.middle <= limit * resident.middle

    least = s.layers * s.top_k
    return least + bisect_left(range(least, s.all_slots), True, key=kept)


def at_limit(s: Situation, context: int, limit: float) -> Limit:
    """Return what keeps a slowdown at a context, and whether memory has it."""
    needed, most = fewest_slots(s, context, limit), most_slots(s, context)
    fits = needed is not None and needed <= most
    return Limit(limit, context, needed, most, split(s, context, needed) if fits else None)


def longest_context(s: Situation, limit: float) -> int | None:
    """Return the longest context, at most the native one, within a slowdown; None where none is, or without times.

    The slowdown need not grow with the context: a resident step grows, too. So contexts are tried from long to short,
    and the last one is searched for between neighbours.
    """
    if not s.timed:
        return None

    def kept(context: int) -> bool:
        return at_limit(s, context, limit).met

    tried = contexts_between(FEWEST_CONTEXT, s.native_context, SCANNED)
    within = [kept(context) for context in tried]
    if not any(within):
        return None
    last = max(place for place, each in enumerate(within) if each)
    if last == len(tried) - 1:
        return tried[-1]
    inside = range(tried[last], tried[last + 1] + 1)
    return inside[bisect_right(inside, False, key=lambda context: not kept(context)) - 1]


def contexts_between(least: int, most: int, count: int) -> list[int]:
    """Return ascending contexts in equal ratios from the least to the most, at most `count` of them."""
    least = min(least, most)
    ratio = (most / least) ** (1 / max(1, count - 1))
    return sorted({min(most, round(least * ratio**place)) for place in range(count)} | {most})


def frontier(s: Situation, contexts: Sequence[int]) -> list[Split]:
    """Return the split with the most slots at each context: the frontier of context against slowdown."""
    return [split(s, context) for context in contexts]
