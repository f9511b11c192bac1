"""One run: prefetch plans of a strategy, a hierarchy of caches, a link and the times of a device, replayed on routed
tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.offload.simulator import engine
from prophet_moe.offload.simulator.batching import ABSENT, DecodeBatches, Id, Ids, LayerAccesses

Floats = NDArray[np.float64]
CORRECT = "Correct it."


@dataclass(frozen=True)
class Hierarchy:
    """Tiers of expert caches, the nearest first; the device computes from the first."""

    capacities: tuple[int, ...]
    """Experts that each tier holds: of each layer, or of all layers together."""
    per_layer: bool = True
    inclusive: bool = False

    def check(self) -> "Hierarchy":
        """Return the hierarchy if it is possible; else raise a UserError that says what is wrong."""
        if not self.capacities or min(self.capacities) < 1:
            raise UserError("capacity", f"got {self.capacities}, expected at least 1 expert in each tier", CORRECT)
        if self.inclusive and any(near >= far for near, far in zip(self.capacities, self.capacities[1:], strict=False)):
            problem = f"got {self.capacities}, expected each inclusive tier to be larger than the one it holds"
            raise UserError("capacity", problem, "Correct it, or make the tiers exclusive.")
        return self


ISO_CACHE_SHARES = (0.4, 0.4, 0.2)
"""Shares of the cache that L1, L2 and L3 have (004:111-116)."""


def iso_cache(total_mb: float, expert_mb: float, shares: Sequence[float] = ISO_CACHE_SHARES) -> tuple[int, ...]:
    """Return the experts of each tier in report 004's iso-cache framework (004:111-116): 16, 16, 8 for 100 MB of 2.5
    MB.
    """
    return tuple(int(total_mb * share / expert_mb) for share in shares)


@dataclass(frozen=True)
class Times:
    """What a device and its links take for a layer, for an expert and for a copy, in seconds."""

    non_expert_seconds: Floats
    """(L,): seconds of everything in a layer but its routed experts."""
    expert_seconds: Floats
    """(B + 1,): seconds of one expert that computes 0 to B tokens."""
    transfer_seconds: tuple[float, ...]
    """Seconds of a copy of one expert to the nearest tier, from each farther one and from behind the last."""
    chunk_seconds: float = np.inf
    """Preemption granularity of a copy, in seconds: a demand copy waits at most this much of a running prefetch."""

    def check(self) -> "Times":
        """Return the times if all are finite and not negative; else raise a UserError."""
        for name in ("non_expert_seconds", "expert_seconds", "transfer_seconds"):
            values = np.asarray(getattr(self, name))
            if not (np.isfinite(values) & (values >= 0)).all():
                problem = f"got {values[~(np.isfinite(values) & (values >= 0))][0]}, expected finite seconds from 0 on"
                raise UserError(f"times: {name}", problem, CORRECT)
        if not self.chunk_seconds > 0:
            raise UserError("times: chunk_seconds", f"got {self.chunk_seconds}, expected seconds above 0", CORRECT)
        return self


@dataclass(frozen=True)
class Outcome:
    """What a run took and moved, by step and by layer. L layers, M tiers."""

    step_seconds: Floats
    """(steps,): seconds that each step took."""
    step_tokens: NDArray[np.int64]
    """(steps,): tokens decoded in each step."""
    routed: int
    """Choices of all tokens and layers, duplicates of a batch counted."""
    counts: NDArray[np.int64]
    """(COUNTS, L): requests by cause, and prefetches, as `engine` numbers them."""
    sources: NDArray[np.int64]
    """(M + 1, L): copies from each tier."""
    sums: Floats
    """(SUMS, L): seconds of stall and wasted prefetches, as `engine` numbers them."""
    compute_seconds: float
    """Seconds of computing alone, without waiting."""
    demand_seconds: float
    """Seconds that the link copied missing experts."""
    prefetch_seconds: float
    """Seconds that the link copied prefetches."""
    pending: int
    """Prefetches that were not used yet when the run ended."""
    oversubscribed: bool
    """Whether an access needed more experts than the nearest tier has slots."""

    @property
    def seconds(self) -> float:
        """Return the seconds that all steps took together."""
        return float(self.step_seconds.sum())

    @property
    def slowdown(self) -> float:
        """Return the seconds of the run over those of computing alone."""
        return self.seconds / self.compute_seconds

    @property
    def requests(self) -> NDArray[np.int64]:
        """Return (L,): experts accessed in each layer, each counted once an access."""
        return self.counts[[engine.KEPT, engine.PREFETCHED, engine.LATE, engine.MISSED]].sum(axis=0)

    def count(self, cause: int) -> int:
        """Return the count of one cause, summed over all layers."""
        return int(self.counts[cause].sum())

    @property
    def hit_rate(self) -> float:
        """Return the share of the requests that found their expert in a slot."""
        return 1 - (self.count(engine.MISSED) + self.count(engine.LATE)) / int(self.requests.sum())

    @property
    def copies(self) -> int:
        """Return how many experts were copied to the nearest tier, those under way included."""
        return self.count(engine.MISSED) + self.count(engine.COPIES)

    @property
    def request_dedup(self) -> float:
        """Return the share of the routed choices that deduplication saved, 1 - requests / routed."""
        return 1 - int(self.requests.sum()) / self.routed


class PrefetchPlan(NamedTuple):
    """The prefetches of decode batches in a compact form: at each point ids[begin:end], the most urgent first.

    Batches have T (L + 1) points: in each step one before the pass, and one after the access of each layer. Points may
    share ids.
    """

    ids: Ids
    begins: NDArray[np.int64]
    """(T, L + 1): where the ids of each point begin."""
    ends: NDArray[np.int64]
    """(T, L + 1): where they end."""

    def array(self) -> NDArray[np.int64]:
        """Return the same plan as an array (T, L + 1, P) of ids, each row ended by -1."""
        counts = (self.ends - self.begins)[..., None]
        number = np.arange(max(1, counts.max(initial=0)))
        padded = np.append(self.ids, NO_PREFETCH)[np.minimum(self.begins[..., None] + number, len(self.ids))]
        return np.where(number < counts, padded, NO_PREFETCH)


Prefetches = PrefetchPlan | NDArray[np.integer]
"""A plan in compact form, or an array (T, L + 1, P) of ids, the most urgent first, ended by -1."""


class Job(NamedTuple):
    """One piece of a run: batches, what their layers access, and what is to be prefetched."""

    batches: DecodeBatches
    accesses: LayerAccesses
    prefetches: Prefetches


NO_PREFETCH = -1


def no_prefetches(batches: DecodeBatches) -> PrefetchPlan:
    """Return a plan that prefetches nothing at any time."""
    nowhere = np.zeros((len(batches.rows), batches.layers + 1), np.int64)
    return PrefetchPlan(np.empty(0, Id), nowhere, nowhere)


def simulate(
    jobs: Iterable[Job],
    hierarchy: Hierarchy,
    times: Times,
    popularity: Floats,
    eviction: str = "lru",
    *,
    warm: bool = True,
    oversubscribe: bool = False,
) -> Outcome:
    """Replay jobs one after another; the caches keep what they hold from one to the next.

    `popularity` (L, E) is how often each expert was chosen in training: `warm` caches start with the most popular ones.
    An access to more experts than the nearest tier holds is a UserError, unless layers may `oversubscribe`. Belady's
    rule needs all jobs at once; with any other, only one job is in memory at a time.
    """
    hierarchy.check()
    times.check()
    layers, clairvoyant = len(popularity), engine.EVICTIONS[eviction].clairvoyant
    rules = _rules(hierarchy, times, *popularity.shape)
    state = _state(hierarchy, popularity, eviction, times.chunk_seconds)
    tally = engine.Tally(
        np.zeros((engine.COUNTS, layers), np.int64),
        np.zeros((len(hierarchy.capacities) + 1, layers), np.int64),
        np.zeros((engine.SUMS, layers)),
    )
    if clairvoyant:
        jobs = list(jobs)
        following = _next_accesses([job.accesses for job in jobs], state.upcoming)
    if warm:
        _fill(state, hierarchy, popularity)
    seconds, tokens, routed, widest, compute = [], [], 0, 0, 0.0
    for number, job in enumerate(jobs):
        widest = max(widest, job.accesses.widest)
        if widest > hierarchy.capacities[0] and not oversubscribe:
            problem = (
                f"got {hierarchy.capacities[0]}, expected at least {widest}, the experts that a layer needs at once"
            )
            raise UserError("capacity", problem, "Correct it, or allow layers to oversubscribe it.")
        planned = _checked(job, hierarchy, rules.group_of)
        spent = np.zeros(len(job.batches.rows))
        # No other rule looks ahead. One type of each array: the kernel is compiled once.
        ahead = following[number] if clairvoyant else np.empty(0, np.int64)
        engine.replay(state, rules, tally, job.accesses, ahead, planned, spent)
        seconds.append(spent)
        tokens.append((job.batches.rows != ABSENT).sum(axis=1))
        handed = np.bincount(job.accesses.tokens, minlength=len(rules.expert_seconds))
        routed += int(handed @ np.arange(len(handed)))
        compute += float(handed @ rules.expert_seconds + len(spent) * times.non_expert_seconds.sum())
    return Outcome(
        np.concatenate(seconds),
        np.concatenate(tokens),
        routed,
        *tally,
        compute,
        float(state.clock[engine.DEMAND_BUSY]),
        float(state.clock[engine.PREFETCH_BUSY]),
        int(state.prefetched_unused.sum()),
        widest > hierarchy.capacities[0],
    )


def _rules(hierarchy: Hierarchy, times: Times, layers: int, experts: int) -> engine.Rules:
    if len(times.transfer_seconds) != len(hierarchy.capacities):
        problem = (
            f"got {len(times.transfer_seconds)} for {len(hierarchy.capacities)} tiers, expected one from behind each"
        )
        raise UserError("times: transfer_seconds", problem, CORRECT)
    layer_of = np.repeat(np.arange(layers, dtype=Id), experts)
    return engine.Rules(
        np.array([0.0, *times.transfer_seconds]),
        np.asarray(times.non_expert_seconds, float),
        np.asarray(times.expert_seconds, float),
        layer_of,
        layer_of if hierarchy.per_layer else np.zeros_like(layer_of),
    )


def _state(hierarchy: Hierarchy, popularity: Floats, eviction: str, chunk: float) -> engine.State:
    """Return empty caches, and the clock at 0."""
    rule, ids = engine.EVICTIONS[eviction], popularity.size
    share = popularity.ravel() / popularity.sum(axis=1, keepdims=True).repeat(popularity.shape[1])
    groups = len(popularity) if hierarchy.per_layer else 1
    shape = (len(hierarchy.capacities), groups, max(hierarchy.capacities))
    state = engine.State(
        slots=np.zeros(shape, Id),
        keys=np.zeros(shape, np.int64),
        stamps=np.full((2, groups, shape[2] + 1), -1, np.int64),
        filled=np.zeros(shape[:2], np.int64),
        capacity=np.array(hierarchy.capacities),
        slot_of=np.full((len(hierarchy.capacities), ids), -1, np.int32),
        prefetched_unused=np.zeros(ids, np.bool_),
        score=rule.initial(share),
        upcoming=np.full(ids, engine.NEVER),
        clock=np.zeros(engine.CLOCKS),
        marks=np.zeros(engine.MARKS, np.int64),
    )
    state.clock[engine.CHUNK] = chunk
    state.marks[engine.IN_FLIGHT] = -1
    state.marks[engine.INCLUSIVE] = hierarchy.inclusive
    state.marks[engine.EVICTION] = list(engine.EVICTIONS).index(eviction)
    state.marks[engine.COUNTS_USES] = rule.counts_uses
    state.marks[engine.CLAIRVOYANT] = rule.clairvoyant
    state.marks[engine.DRAWS] = rule.draws
    return state


def _fill(state: engine.State, hierarchy: Hierarchy, popularity: Floats) -> None:
    """Put the most popular experts into the nearest tier, the next into the one behind, or into both if inclusive."""
    popular = popularity.reshape(state.filled.shape[1], -1)
    groups, begin = np.arange(len(popular))[:, None], 0
    ranked = np.argsort(-popular, axis=1, kind="stable") + groups * popular.shape[1]
    for tier, capacity in enumerate(hierarchy.capacities):
        chosen = ranked[:, begin : begin + capacity]
        count = chosen.shape[1]
        state.slots[tier, :, :count] = chosen
        rule = state.marks[engine.EVICTION]
        first = engine.first_keys(rule, state.score, state.upcoming, chosen) if tier == 0 else -np.arange(count)
        state.keys[tier, :, :count] = first
        state.filled[tier] = count
        state.slot_of[tier, chosen] = np.arange(count)
        begin += 0 if hierarchy.inclusive else capacity


def _next_accesses(accesses: Sequence[LayerAccesses], upcoming: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the number of the next access to the same expert by request; `upcoming` becomes that of the first."""
    last = sum(len(part.starts) - 1 for part in accesses)
    following = []
    for part in reversed(accesses):
        last -= len(part.starts) - 1
        following.append(_followed(part.starts, part.ids, last, upcoming))
    return following[::-1]


@njit(cache=True)
def _followed(starts, ids, first, upcoming):
    following = np.empty(len(ids), np.int64)
    for access in range(len(starts) - 2, -1, -1):
        for request in range(starts[access], starts[access + 1]):
            following[request] = upcoming[ids[request]]
            upcoming[ids[request]] = first + access
    return following


def _checked(job: Job, hierarchy: Hierarchy, group_of: Ids) -> PrefetchPlan:
    """Return the plan in compact form; one that no cache can hold is a UserError, since the strategy is wrong."""
    batches, capacity, fix = job.batches, hierarchy.capacities[0], "Correct the strategy's plan_prefetches()."
    layers, experts = batches.layers, batches.experts
    points = len(batches.rows), layers + 1
    if isinstance(job.prefetches, PrefetchPlan):
        planned = job.prefetches
        ids, begins, ends = planned
        if begins.shape != points or ends.shape != points or not ((begins >= 0) & (ends <= len(ids))).all():
            raise UserError("strategy", f"prefetches are not ranges of their {len(ids)} ids, of shape {points}", fix)
    elif job.prefetches.shape[:-1] == points and np.issubdtype(job.prefetches.dtype, np.integer):
        planned = _compact(job.prefetches)
    else:
        shape = f"({points[0]}, {points[1]}, any)"
        problem = (
            f"prefetches are {job.prefetches.dtype} of shape {job.prefetches.shape}, expected whole numbers {shape}"
        )
        raise UserError("strategy", problem, fix)
    position, expert, crowded = _wrong_request(
        planned.ids, planned.begins.ravel(), planned.ends.ravel(), group_of, capacity
    )
    if position < 0:
        return planned._replace(ids=planned.ids.astype(Id, copy=False))
    step, point = divmod(position, layers + 1)
    when = "before the pass" if point == 0 else f"after layer {point - 1}"
    if crowded:
        problem = f"more prefetches than the {capacity} experts of capacity"
    else:
        problem = f"prefetches of expert id {expert}, expected layer * {experts} + expert, below {layers * experts}"
    raise UserError("strategy", f"step {step}, {when}: {problem}", fix)


def _compact(prefetches: NDArray[np.integer]) -> PrefetchPlan:
    """Return the plan that an array (T, L + 1, P) describes."""
    counts = np.logical_and.accumulate(prefetches != NO_PREFETCH, axis=2).sum(axis=2)
    begins = np.arange(counts.size).reshape(counts.shape) * prefetches.shape[2]
    return PrefetchPlan(prefetches.ravel(), begins, begins + counts)


@njit(cache=True)
def _wrong_request(ids, begins, ends, group_of, capacity):
    """Return the point and id of the first prefetch that is out of range or one too many for its group; -1 if none is.

    `wanted` counts ids[first:last] by group. From point to point it loses and gains what differs: points share ids.
    """
    wanted = np.zeros(group_of[-1] + 1, np.int64)
    first, last = 0, 0
    for point in range(len(begins)):
        begin, end = begins[point], ends[point]
        if not first <= begin < last <= end:
            wanted[:] = 0
            first = last = begin
        for number in range(first, begin):
            wanted[group_of[ids[number]]] -= 1
        for number in range(last, end):
            expert = ids[number]
            if expert < 0 or expert >= len(group_of):
                return point, np.int64(expert), False
            wanted[group_of[expert]] += 1
            if wanted[group_of[expert]] > capacity:
                return point, np.int64(expert), True
        first, last = begin, end
    return -1, np.int64(-1), False
