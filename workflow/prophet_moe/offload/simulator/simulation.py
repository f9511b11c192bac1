"""One run: a strategy's wishes, a hierarchy of caches, a link and a device's times, replayed on routed tokens."""

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
        """Return it if it can be; else a UserError."""
        if not self.capacities or min(self.capacities) < 1:
            raise UserError("capacity", f"got {self.capacities}, expected at least 1 expert in each tier", CORRECT)
        if self.inclusive and any(near >= far for near, far in zip(self.capacities, self.capacities[1:], strict=False)):
            problem = f"got {self.capacities}, expected each inclusive tier to be larger than the one it holds"
            raise UserError("capacity", problem, "Correct it, or make the tiers exclusive.")
        return self


ISO_CACHE_SHARES = (0.4, 0.4, 0.2)
"""Of the cache, for L1, L2 and L3 (004:104-110)."""


def iso_cache(total_mb: float, expert_mb: float, shares: Sequence[float] = ISO_CACHE_SHARES) -> tuple[int, ...]:
    """Experts in each tier of the report's iso-cache framework (004:104-110): 16, 16, 8 for 100 MB and 2.5 MB."""
    return tuple(int(total_mb * share / expert_mb) for share in shares)


@dataclass(frozen=True)
class Times:
    """What a device and its links take, seconds."""

    non_expert_seconds: Floats
    """(L,): all of a layer but its routed experts."""
    expert_seconds: Floats
    """(B + 1,): one expert that is handed 0 to B tokens."""
    transfer_seconds: tuple[float, ...]
    """A copy of one expert to the nearest tier from each farther one, and from behind the last."""
    chunk_seconds: float = np.inf
    """The part of a copy that is not interrupted."""

    def check(self) -> "Times":
        """Return them if they are times; else a UserError."""
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
    """What a run took and moved. L layers, M tiers."""

    step_seconds: Floats
    """(steps,)."""
    step_tokens: NDArray[np.int64]
    """(steps,): tokens decoded in each."""
    routed: int
    """Choices of all tokens and layers, duplicates of a batch counted."""
    counts: NDArray[np.int64]
    """(COUNTS, L), see engine: requests by cause, prefetches."""
    sources: NDArray[np.int64]
    """(M + 1, L): copies from each tier."""
    sums: Floats
    """(SUMS, L)."""
    compute_seconds: float
    """Computing alone, without waiting."""
    demand_seconds: float
    """Of the link, for missing experts."""
    prefetch_seconds: float
    """Of the link, for prefetches."""
    pending: int
    """Prefetches at the end that were not used yet."""
    oversubscribed: bool
    """Whether an ask was for more than the nearest tier holds."""

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return float(self.step_seconds.sum())

    @property
    def requests(self) -> NDArray[np.int64]:
        """(L,): experts asked for, in an ask each once."""
        return self.counts[[engine.KEPT, engine.PREFETCHED, engine.LATE, engine.MISSED]].sum(axis=0)

    def count(self, cause: int) -> int:
        """Of all layers."""
        return int(self.counts[cause].sum())

    @property
    def hit_rate(self) -> float:
        """Share of the requests that found their expert there."""
        return 1 - (self.count(engine.MISSED) + self.count(engine.LATE)) / int(self.requests.sum())

    @property
    def copies(self) -> int:
        """Experts copied to the nearest tier, or begun to be."""
        return self.count(engine.MISSED) + self.count(engine.COPIES)

    @property
    def request_dedup(self) -> float:
        """1 - requests / routed."""
        return 1 - int(self.requests.sum()) / self.routed


class PrefetchPlan(NamedTuple):
    """Wishes of a round in a compact form: at each point those from ids[begin] to ids[end], the most urgent first.

    A round has T (L + 1) points: in each step before the pass, and when each layer has asked. Points may share ids.
    """

    ids: Ids
    begins: NDArray[np.int64]
    """(T, L + 1)."""
    ends: NDArray[np.int64]
    """(T, L + 1)."""

    def array(self) -> NDArray[np.int64]:
        """(T, L + 1, W) ids, ended by -1."""
        counts = (self.ends - self.begins)[..., None]
        number = np.arange(max(1, counts.max(initial=0)))
        found = np.append(self.ids, NO_PREFETCH)[np.minimum(self.begins[..., None] + number, len(self.ids))]
        return np.where(number < counts, found, NO_PREFETCH)


Prefetches = PrefetchPlan | NDArray[np.integer]
"""In compact form, or an array (T, L + 1, W) of ids, the most urgent first, ended by -1."""


class Job(NamedTuple):
    """One round of a run: what is asked, and what is wished for."""

    batches: DecodeBatches
    accesses: LayerAccesses
    prefetches: Prefetches


NO_PREFETCH = -1


def no_prefetches(batches: DecodeBatches) -> PrefetchPlan:
    """Nothing, at any time."""
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
    """Replay rounds one after another; the caches keep what they hold.

    `popularity` (L, E) is how often each expert was chosen in training: `warm` caches start with the most popular ones.
    An access to more experts than the nearest tier holds is a UserError, unless layers may `oversubscribe`. Belady's
    rule needs all jobs at once; with any other, only one round is in memory at a time.
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
            raise UserError("capacity", problem, "Correct it, or allow waves.")
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
    """Empty caches."""
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
    """For every request the number of the ask that needs the same expert next; `upcoming` becomes that of the first."""
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
    """The wishes in compact form; those that no cache can hold are a UserError: a strategy's mistake."""
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
    """Of an array (T, L + 1, W)."""
    counts = np.logical_and.accumulate(prefetches != NO_PREFETCH, axis=2).sum(axis=2)
    begins = np.arange(counts.size).reshape(counts.shape) * prefetches.shape[2]
    return PrefetchPlan(prefetches.ravel(), begins, begins + counts)


@njit(cache=True)
def _wrong_request(ids, begins, ends, group_of, capacity):
    """Point and id of the first wish that is out of range, or one too many for its group; -1 if none is.

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
