"""The simulator in plain Python, to be read beside `engine.py` and to hold it to what it says.

`simulate` takes and returns what `simulation.simulate` does, checks nothing, and is some hundred times slower. Where
two experts have equal keys, the one in the lower slot is evicted: slots are numbered as they were filled, and the
expert in the last slot fills the slot of one that is removed.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from prophet_moe.offload.simulator.batching import ABSENT, LayerAccesses
from prophet_moe.offload.simulator.engine import (
    COPIES,
    COUNTS,
    EVICTIONS,
    HALF_LIFE,
    KEPT,
    LATE,
    MISSED,
    NEVER,
    PREFETCHED,
    SKIPPED,
    STALL,
    SUMS,
    WASTED,
    WASTED_SHARE,
    drawn,
)
from prophet_moe.offload.simulator.simulation import Floats, Hierarchy, Job, Outcome, PrefetchPlan, Times


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
    """Replay jobs one by one, as `simulation.simulate`; a layer may always need more experts than it has slots."""
    jobs = list(jobs)
    accessed, first_accesses = requests_of([job.accesses for job in jobs])
    replay = Replay(hierarchy, times, popularity, Rule(eviction, popularity, first_accesses))
    if warm:
        replay.fill(popularity)
    seconds = []
    for job, accesses in zip(jobs, accessed, strict=True):
        layers = job.batches.layers
        planned = job.prefetches.array() if isinstance(job.prefetches, PrefetchPlan) else job.prefetches
        for step, prefetches in enumerate(planned):
            of_layers = pairwise(job.accesses.of_layer[step * layers : (step + 1) * layers + 1])
            seconds.append(replay.step([accesses[first:last] for first, last in of_layers], prefetches))
    handed = [tokens for job in jobs for tokens in job.accesses.tokens.tolist()]
    return Outcome(
        step_seconds=np.array(seconds),
        step_tokens=np.array([int((row != ABSENT).sum()) for job in jobs for row in job.batches.rows]),
        routed=sum(handed),
        counts=replay.counts,
        sources=replay.sources,
        sums=replay.sums,
        compute_seconds=float(
            sum(times.expert_seconds[tokens] for tokens in handed) + len(seconds) * sum(times.non_expert_seconds)
        ),
        demand_seconds=replay.queue.demand_seconds,
        prefetch_seconds=replay.queue.prefetch_seconds,
        pending=len(replay.prefetched_unused),
        oversubscribed=max(job.accesses.widest for job in jobs) > hierarchy.capacities[0],
    )


@dataclass(frozen=True)
class Request:
    """One expert of an access, and how many tokens chose it."""

    expert: int
    tokens: int
    following: int
    """Number of the access that needs the expert next, or NEVER."""


def requests_of(parts: list[LayerAccesses]) -> tuple[list[list[list[Request]]], dict[int, int]]:
    """Return the requests of each access of each job, and the number of the access that needs each expert first."""
    number = sum(len(part.starts) - 1 for part in parts)
    upcoming: dict[int, int] = {}
    accessed = []
    for part in reversed(parts):
        accesses = []
        for first, last in reversed(list(pairwise(part.starts))):
            number -= 1
            handed = list(zip(part.ids[first:last].tolist(), part.tokens[first:last].tolist(), strict=True))
            accesses.append([Request(expert, tokens, upcoming.get(expert, NEVER)) for expert, tokens in handed])
            upcoming |= {expert: number for expert, _ in handed}
        accessed.append(accesses[::-1])
    return accessed[::-1], upcoming


class Rule:
    """An eviction rule of `engine.EVICTIONS`, and what it knows of each expert."""

    def __init__(self, eviction: str, popularity: Floats, upcoming: dict[int, int]) -> None:
        """Start a run, in which `upcoming` holds the number of the access that needs an expert first."""
        self.row, self.upcoming = EVICTIONS[eviction], upcoming
        shares = (popularity / popularity.sum(axis=1, keepdims=True)).ravel().tolist()
        self.scores = [float(self.row.initial(share)) for share in shares]

    def use(self, request: Request, step: int) -> None:
        """Take note of a use in a step, the first of which is 1."""
        self.upcoming[request.expert] = request.following
        if self.row.counts_uses:
            self.scores[request.expert] += 2 ** (step / HALF_LIFE)

    def key(self, expert: int, tick: int) -> float:
        """Return the key of an expert; the one of the least key is evicted first.

        Ticks number uses, ends of prefetches and moves of a run from 1 on. Before the run they are 0 for the most
        popular expert of a tier, -1 for the next, and so on.
        """
        return self.row.plain_key(self.scores[expert], self.upcoming.get(expert, NEVER), tick)

    def pick(self, tick: int) -> int:
        """Return a number that decides among experts of the same key: 0 for the first, or one at random."""
        return int(drawn(tick)) if self.row.draws else 0


class NearTier:
    """The nearest tier, from which the device computes."""

    def __init__(self, capacity: int) -> None:
        """Start without any expert, with `capacity` slots."""
        self.capacity = capacity
        self.experts: list[int] = []
        """The expert in each slot."""
        self.keys: dict[int, float] = {}

    def slot_for(self, untouchable: set[int], precious: list[set[int]], pick: int) -> int | None:
        """Return the slot to copy an expert to: a free one, or that of the least key among those that are not
        untouchable.

        What is in one of the `precious` sets is taken only when nothing else is left, what is in the first the last.
        `pick` decides, by what is left when it is divided, among those of the same key. None says that there is no
        slot.
        """
        if len(self.experts) < self.capacity:
            return len(self.experts)
        ranks = {
            slot: self.rank(expert, precious) for slot, expert in enumerate(self.experts) if expert not in untouchable
        }
        equal = [slot for slot, rank in ranks.items() if rank == min(ranks.values())]
        return equal[pick % len(equal)] if equal else None

    def rank(self, expert: int, precious: list[set[int]]) -> tuple:
        """Return the rank of an expert; the least is evicted first."""
        return *(expert in dear for dear in precious), self.keys[expert]

    def put(self, slot: int, expert: int) -> int | None:
        """Put an expert into a slot and return the expert that was there, if any."""
        self.keys[expert] = 0
        if slot == len(self.experts):
            self.experts.append(expert)
            return None
        evicted, self.experts[slot] = self.experts[slot], expert
        del self.keys[evicted]
        return evicted

    def remove(self, expert: int) -> None:
        """Take an expert out; the expert in the last slot takes its place."""
        slot, last = self.experts.index(expert), self.experts.pop()
        if last != expert:
            self.experts[slot] = last
        del self.keys[expert]


class FarTier:
    """A farther tier, least recently used: experts in the order of their last move or copy, the most recent last."""

    def __init__(self, capacity: int) -> None:
        """Start without any expert, with `capacity` slots."""
        self.capacity = capacity
        self.experts: OrderedDict[int, None] = OrderedDict()

    def renew(self, expert: int, kept: Iterable[int] = ()) -> int | None:
        """Make an expert the most recent; return the one that left for it: the least recent that is not `kept`."""
        evicted = None
        if expert not in self.experts and len(self.experts) == self.capacity:
            evicted = next(other for other in self.experts if other not in kept)
            del self.experts[evicted]
        self.experts[expert] = None
        self.experts.move_to_end(expert)
        return evicted


class Caches:
    """All tiers of a group, which is one layer, or all layers together."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        """Start all tiers of the hierarchy without experts."""
        self.inclusive = hierarchy.inclusive
        self.near = NearTier(hierarchy.capacities[0])
        self.far = [FarTier(capacity) for capacity in hierarchy.capacities[1:]]

    def source(self, expert: int) -> int:
        """Return the number, from 1 on, of the nearest far tier that holds the expert, or of what is behind them."""
        holding = (number for number, tier in enumerate(self.far, 1) if expert in tier.experts)
        return next(holding, len(self.far) + 1)

    def take(self, expert: int) -> int:
        """Take an expert out of the exclusive tier it is copied from, or into all inclusive ones; return the ticks it
        took.
        """
        if self.inclusive:
            for nearer, tier in reversed(list(pairwise([self.near, *self.far]))):
                tier.renew(expert, nearer.experts)
            return len(self.far)
        for tier in self.far:
            tier.experts.pop(expert, None)
        return 0

    def demote(self, expert: int | None) -> int:
        """Move what left the nearest tier one tier away, and what it replaces too; return the ticks it took."""
        ticks = 0
        for tier in [] if self.inclusive else self.far:
            if expert is not None:
                expert = tier.renew(expert)
                ticks += 1
        return ticks

    def fill(self, ranked: list[int], rule: Rule) -> None:
        """Put the most popular experts into the nearest tier, the next into the one behind, or both if inclusive."""
        for tier in [self.near, *self.far]:
            chosen = ranked[: tier.capacity]
            ranked = ranked if self.inclusive else ranked[tier.capacity :]
            if tier is self.near:
                tier.experts = chosen
                tier.keys = {expert: rule.key(expert, -rank) for rank, expert in enumerate(chosen)}
            else:
                tier.experts = OrderedDict.fromkeys(reversed(chosen))


@dataclass
class Flight:
    """A prefetch under way; times are in seconds."""

    expert: int
    source: int
    begin: float
    end: float

    def chunk_end(self, now: float, chunk: float) -> float:
        """Return the end of the chunk that is being copied."""
        return min(self.end, self.begin + max(1, math.ceil((now - self.begin) / chunk)) * chunk)

    def delay(self, seconds: float) -> None:
        """Let the prefetch continue later, as if it had begun later."""
        self.begin += seconds
        self.end += seconds


@dataclass
class CopyQueue:
    """What the link copies and has to copy; times are in seconds."""

    free: float = 0.0
    """When it has done what was begun; of a paused prefetch, when the pause began."""
    issued: float = 0.0
    """When the plan in force was made."""
    prefetches: deque[int] = field(default_factory=deque)
    """Not begun, the most urgent first."""
    flight: Flight | None = None
    demand_seconds: float = 0.0
    prefetch_seconds: float = 0.0

    def carries(self, expert: int) -> bool:
        """Return whether the expert is the prefetch under way."""
        return self.flight is not None and self.flight.expert == expert


@dataclass
class Service:
    """How one access is served so far; times are in seconds."""

    now: float
    """When the layer made the access."""
    time: float
    """When what was computed so far has ended."""
    busy: float = 0.0
    """Seconds of these that were spent computing."""
    link: float = 0.0
    """When the link is free for a missing expert."""
    computed: deque[tuple[int, float]] = field(default_factory=deque)
    """Experts whose slots missing ones may take, and when each was computed."""

    def compute(self, expert: int, arrival: float, work: float) -> None:
        """Compute an expert once it has arrived."""
        self.time = max(self.time, arrival) + work
        self.busy += work
        self.computed.append((expert, self.time))


class Replay:
    """A device, its caches and its copy queue, while a run is replayed."""

    def __init__(self, hierarchy: Hierarchy, times: Times, popularity: Floats, rule: Rule) -> None:
        """Start with empty caches and an idle queue at time 0."""
        self.layers, self.experts = popularity.shape
        self.times, self.rule = times, rule
        self.transfer_seconds = (0.0, *times.transfer_seconds)
        """Seconds of a copy, by the tier that it is from."""
        self.groups = [Caches(hierarchy) for _ in range(self.layers if hierarchy.per_layer else 1)]
        self.queue = CopyQueue()
        self.time = 0.0
        self.tick = self.steps = 0
        self.in_use: set[int] = set()
        """Experts of the last access that are in the nearest tier."""
        self.planned: set[int] = set()
        """Experts in the nearest tier that the plan names and that were there by then, or were prefetched for it."""
        self.prefetched_unused: set[int] = set()
        """Experts in the nearest tier, or under way to it, that were prefetched and not used since."""
        self.counts = np.zeros((COUNTS, self.layers), np.int64)
        self.sources = np.zeros((len(hierarchy.capacities) + 1, self.layers), np.int64)
        self.sums = np.zeros((SUMS, self.layers))

    def fill(self, popularity: Floats) -> None:
        """Put the most popular experts of each group into its tiers."""
        experts = list(range(popularity.size))
        size = len(experts) // len(self.groups)
        for number, group in enumerate(self.groups):
            of_group = experts[number * size : (number + 1) * size]
            group.fill(sorted(of_group, key=lambda expert: -popularity.flat[expert]), self.rule)

    def step(self, accesses: list[list[list[Request]]], prefetches: NDArray[np.int32]) -> float:
        """Compute a step from the accesses of each layer and the plans before it and after each layer; return its
        seconds.
        """
        began = self.time
        self.steps += 1
        self.replace_plan(prefetches[0])
        for layer, of_layer in enumerate(accesses):
            self.time += float(self.times.non_expert_seconds[layer])
            for number, access in enumerate(of_layer):
                self.run_copy_queue(self.time)
                ended = self.serve(access, layer, final=number == len(of_layer) - 1)
                if number == 0:
                    self.replace_plan(prefetches[layer + 1])
                self.time = ended
        self.run_copy_queue(self.time)
        return self.time - began

    def layer_of(self, expert: int) -> int:
        """Return the layer that an expert belongs to."""
        return expert // self.experts

    def group_of(self, expert: int) -> Caches:
        """Return the caches that may hold an expert."""
        return self.groups[self.layer_of(expert)] if len(self.groups) > 1 else self.groups[0]

    def is_near(self, expert: int) -> bool:
        """Return whether an expert has a slot in the nearest tier, even if its copy is under way."""
        return expert in self.group_of(expert).near.keys

    def set_key(self, expert: int) -> None:
        """Give an expert a new key, because it was used or its prefetch has ended."""
        self.tick += 1
        self.group_of(expert).near.keys[expert] = self.rule.key(expert, self.tick)

    def use(self, request: Request) -> None:
        """Take note that the device computes an expert."""
        self.in_use.add(request.expert)
        self.prefetched_unused.discard(request.expert)
        self.rule.use(request, self.steps)
        self.set_key(request.expert)

    def replace_plan(self, prefetches: NDArray[np.int32]) -> None:
        """Replace the plan in force by `prefetches`, which -1 ends."""
        named = prefetches.tolist()
        self.queue.prefetches = deque(named[: named.index(-1)] if -1 in named else named)
        self.queue.issued = self.time
        self.planned = {expert for expert in self.queue.prefetches if self.is_near(expert)}

    def run_copy_queue(self, until: float) -> None:
        """Let the copy queue begin all prefetches that it can begin before a time, and end those that end by then."""
        queue = self.queue
        while True:
            if queue.flight and queue.flight.end > until:
                return
            if queue.flight:
                self.set_key(queue.flight.expert)
                queue.flight = None
            start = max(queue.free, queue.issued)
            if start >= until or not queue.prefetches:
                return
            self.begin_prefetch(queue.prefetches.popleft(), start)

    def begin_prefetch(self, expert: int, start: float) -> None:
        """Begin to prefetch an expert, unless it is in a slot or finds none."""
        if self.is_near(expert):
            return
        slot = self.slot_for(expert, self.in_use | self.planned, [])
        if slot is None:
            self.counts[SKIPPED, self.layer_of(expert)] += 1
            return
        source = self.copy(expert, slot)
        self.planned.add(expert)
        self.prefetched_unused.add(expert)
        self.counts[COPIES, self.layer_of(expert)] += 1
        self.queue.flight = Flight(expert, source, start, start + self.transfer_seconds[source])
        self.queue.free = self.queue.flight.end
        self.queue.prefetch_seconds += self.transfer_seconds[source]

    def slot_for(self, expert: int, untouchable: set[int], precious: list[set[int]]) -> int | None:
        """Return the slot of the nearest tier to copy an expert to, as `NearTier.slot_for` does."""
        return self.group_of(expert).near.slot_for(untouchable, precious, self.rule.pick(self.tick))

    def copy(self, expert: int, slot: int) -> int:
        """Copy an expert to a slot of the nearest tier, demote what was there, and return the tier it came from."""
        group = self.group_of(expert)
        source = group.source(expert)
        self.sources[source, self.layer_of(expert)] += 1
        self.tick += group.take(expert)
        evicted = group.near.put(slot, expert)
        if evicted is not None:
            self.leave(evicted)
        return source

    def leave(self, expert: int) -> None:
        """Take note that an expert has left the nearest tier, and demote it."""
        if expert in self.prefetched_unused:
            self.waste(expert)
        self.planned.discard(expert)
        self.in_use.discard(expert)
        self.tick += self.group_of(expert).demote(expert)

    def waste(self, expert: int) -> None:
        """Count a prefetch as never used; one under way, which is paused, ends here."""
        share = 1.0
        if self.queue.carries(expert):
            flight, self.queue.flight = self.queue.flight, None
            saved = flight.end - self.queue.free
            self.queue.prefetch_seconds -= saved
            if saved > 0:
                share -= saved / self.transfer_seconds[flight.source]
        self.prefetched_unused.discard(expert)
        self.counts[WASTED, self.layer_of(expert)] += 1
        self.sums[WASTED_SHARE, self.layer_of(expert)] += share

    def serve(self, access: list[Request], layer: int, *, final: bool) -> float:
        """Serve an access of a layer, its `final` one of the step or not; return when all of it was computed."""
        there = [request for request in access if self.is_near(request.expert)]
        missing = [request for request in access if not self.is_near(request.expert)]
        at_hand = [request for request in there if not self.queue.carries(request.expert)]
        late = [request for request in there if self.queue.carries(request.expert)]
        # The last chunk of a prefetch that an earlier ask gave up.
        free = self.time if self.queue.flight else max(self.time, self.queue.free)
        service = Service(self.time, self.time, link=free)
        self.in_use = {request.expert for request in there}
        self.compute_at_hand(service, at_hand, layer)
        if late:
            self.await_flight(service, late[0], layer)
        wrong = final and self.queue.flight is not None and self.layer_of(self.queue.flight.expert) == layer
        if self.queue.flight and (missing or wrong):
            self.pause_flight(service, wrong)
        for request in missing:
            self.fetch_missing(service, request, layer)
        self.resume_flight(service)
        self.sums[STALL, layer] += service.time - service.now - service.busy
        return service.time

    def compute_at_hand(self, service: Service, at_hand: list[Request], layer: int) -> None:
        """Compute the experts that are in a slot already."""
        for request in at_hand:
            self.counts[PREFETCHED if request.expert in self.prefetched_unused else KEPT, layer] += 1
            self.use(request)
            service.compute(request.expert, service.now, float(self.times.expert_seconds[request.tokens]))

    def await_flight(self, service: Service, request: Request, layer: int) -> None:
        """Compute the expert that is under way; missing experts are copied after it."""
        service.link, self.queue.flight = self.queue.flight.end, None
        self.counts[LATE, layer] += 1
        self.use(request)
        service.compute(request.expert, service.link, float(self.times.expert_seconds[request.tokens]))

    def pause_flight(self, service: Service, wrong: bool) -> None:
        """Pause the prefetch under way at the end of its chunk; cancel a `wrong` one, unless that is its last chunk."""
        flight = self.queue.flight
        service.link = self.queue.free = flight.chunk_end(service.now, self.times.chunk_seconds)
        if wrong and service.link < flight.end:
            self.group_of(flight.expert).near.remove(flight.expert)
            self.leave(flight.expert)

    def fetch_missing(self, service: Service, request: Request, layer: int) -> None:
        """Copy and compute a missing expert."""
        flying = {self.queue.flight.expert} if self.queue.flight else set()
        near = self.group_of(request.expert).near
        slot, start = self.slot_for(request.expert, self.in_use, [flying, self.planned]), service.link
        if slot is None:
            computed, ended = service.computed.popleft()
            slot, start = near.experts.index(computed), max(service.link, ended)
        source = self.copy(request.expert, slot)
        self.use(request)
        self.counts[MISSED, layer] += 1
        service.link = start + self.transfer_seconds[source]
        self.queue.demand_seconds += self.transfer_seconds[source]
        service.compute(request.expert, service.link, float(self.times.expert_seconds[request.tokens]))

    def resume_flight(self, service: Service) -> None:
        """Let the prefetch under way continue once the missing experts are there."""
        queue = self.queue
        if queue.flight and queue.free < queue.flight.end:
            queue.flight.delay(service.link - queue.free)
        queue.free = max(service.link, queue.flight.end) if queue.flight else service.link
