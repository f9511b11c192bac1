"""Continuous batching in plain Python, one step at a time: what `kernel` computes, without its arrays and its loops.

An instance is a list of running requests, a queue, and an ordered dictionary of the blocks that nothing refers to.
`simulate` runs instances against a heap of events.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from prophet_moe.serving.arrivals import Arrivals
from prophet_moe.serving.batching import Dispatch, Limits
from prophet_moe.serving.kernel import Seconds

STEP_ENDS, ARRIVES, STEP_BEGINS = 0, 1, 2
"""Order of what happens at one moment."""


@dataclass(eq=False)
class Request:
    """A request, and how far it is."""

    number: int
    arrival: float
    prompt: int
    output: int
    blocks: Sequence[int] = ()
    generated: int = 0
    computed: int = 0
    """Tokens in the cache."""
    to_prefill: int = 0
    shared: list[int] = field(default_factory=list)
    """Blocks that it refers to."""
    first: float | None = None
    finish: float | None = None
    preempted: int = 0
    reused: int = 0
    batches: list[int] = field(default_factory=list)
    """Batch size of every step that decoded a token of it."""

    @property
    def target(self) -> int:
        """Return the tokens to be prefilled before the next one is generated."""
        return self.prompt + self.generated


@dataclass
class Step:
    """What one step of an instance does."""

    decoding: list[Request]
    chunks: list[tuple[Request, int]]
    seconds: float


class Instance:
    """One instance: its queue, what runs, its cache, and the step under way."""

    def __init__(self, limits: Limits, tables: Seconds, block_tokens: int):
        """Start with an empty queue and an empty cache."""
        self.limits, self.tables, self.block = limits, tables, block_tokens
        self.queue: deque[Request] = deque()
        self.running: list[Request] = []
        self.referred: dict[int, int] = {}
        self.left: OrderedDict[int, None] = OrderedDict()
        self.step: Step | None = None

    @property
    def load(self) -> int:
        """Return the requests that are here and not finished."""
        return len(self.queue) + len(self.running)

    @property
    def used(self) -> int:
        """Return the tokens of cache that what runs refers to."""
        own = sum(self._own(each) for each in self.running)
        return own + self.block * len(self.referred)

    def begin(self) -> Step:
        """Decide what the next step does, and return it."""
        lost = False
        while self.used + len(self._decoding()) > self.limits.capacity:
            self._preempt()
            lost = True
        decoding = self._decoding()
        budget = self.limits.tokens - len(decoding)
        chunks = []
        for each in self.running:
            if each.to_prefill and budget:
                chunks.append((each, min(each.to_prefill, budget)))
                budget -= chunks[-1][1]
        while not lost and self.queue and len(self.running) < self.limits.sequences and budget:
            if not self._admitted(self.queue[0], len(decoding)):
                break
            chosen = self.queue.popleft()
            self.running.append(chosen)
            chunks.append((chosen, min(chosen.to_prefill, budget)))
            budget -= chunks[-1][1]
        self.step = Step(decoding, chunks, self._seconds(decoding, chunks))
        for each in decoding:
            each.computed += 1
        self._make_room()
        return self.step

    def end(self, now: float) -> list[Request]:
        """Take up what the step has made, and return what is finished."""
        for each in self.step.decoding:
            each.generated += 1
            each.batches.append(len(self.step.decoding))
        for each, tokens in self.step.chunks:
            each.computed += tokens
            each.to_prefill -= tokens
            if not each.to_prefill:
                each.generated += 1
                each.first = now if each.first is None else each.first
                self._register(each)
        finished = [each for each in self.running if each.generated == each.output and not each.to_prefill]
        for each in finished:
            each.finish = now
            self._release(each)
            self.running.remove(each)
        self.step = None
        return finished

    def _decoding(self) -> list[Request]:
        return [each for each in self.running if not each.to_prefill]

    def _own(self, each: Request) -> int:
        """Return the tokens of cache that are set aside for a request alone."""
        return each.computed + each.to_prefill - self.block * len(each.shared) + self.limits.overhead

    def _preempt(self) -> None:
        last = self.running.pop()
        self._release(last)
        last.computed = last.to_prefill = 0
        last.preempted += 1
        self.queue.appendleft(last)

    def _admitted(self, first: Request, decoding: int) -> bool:
        hits: list[int] = []
        for block in first.blocks:
            present = block in self.referred or block in self.left
            if not present or self.block * (len(hits) + 1) > first.target - 1:
                break
            hits.append(block)
        fresh = self.block * sum(block in self.left for block in hits)
        own = first.target - self.block * len(hits) + self.limits.overhead
        if self.used + decoding + fresh + own > self.limits.capacity:
            return False
        for block in hits:
            self.left.pop(block, None)
            self.referred[block] = self.referred.get(block, 0) + 1
        first.shared = hits
        first.computed = self.block * len(hits)
        first.to_prefill = first.target - first.computed
        first.reused += first.computed
        self.running.append(first)
        self._make_room()
        self.running.pop()
        return True

    def _register(self, each: Request) -> None:
        for block in each.blocks:
            if block not in each.shared and block not in self.referred and block not in self.left:
                self.referred[block] = 1
                each.shared.append(block)

    def _release(self, each: Request) -> None:
        for block in sorted(each.shared, key=list(each.blocks).index, reverse=True):
            self.referred[block] -= 1
            if not self.referred[block]:
                del self.referred[block]
                self.left[block] = None
        each.shared = []

    def _make_room(self) -> None:
        while self.used + self.block * len(self.left) > self.limits.capacity:
            self.left.popitem(last=False)

    def _seconds(self, decoding: list[Request], chunks: list[tuple[Request, int]]) -> float:
        tables, count = self.tables, len(decoding)
        tokens = count + sum(size for _, size in chunks)
        seconds = tables.matrices[tokens] + tables.head[count + len(chunks)]
        if count:
            seconds += self._at(tables.attention[count], sum(each.computed for each in decoding) / count)
        else:
            seconds += tables.launch
        attended = 0.0
        for each, size in chunks:
            attended += size * self._at(tables.prefill_attention, each.computed + 0.5 * size)
        return float(seconds + attended)

    def _at(self, row: Sequence[float], context: float) -> float:
        left = min(int(context / self.tables.spacing), len(row) - 1)
        if left == len(row) - 1:
            return row[left]
        return row[left] + (context / self.tables.spacing - left) * (row[left + 1] - row[left])


def requests_of(arrivals: Arrivals) -> list[Request]:
    """Return the requests of arrivals as objects."""
    return [
        Request(
            number,
            float(arrivals.seconds[number]),
            int(arrivals.prompts[number]),
            int(arrivals.outputs[number]),
            arrivals.blocks[arrivals.starts[number] : arrivals.starts[number + 1]].tolist(),
        )
        for number in range(len(arrivals))
    ]


def refused(request: Request, limits: Limits) -> bool:
    """Return whether a request is longer than what an instance serves or holds."""
    whole = request.prompt + request.output
    return whole > limits.longest or whole + limits.overhead > limits.capacity


def simulate(
    arrivals: Arrivals, tables: Seconds, limits: Limits, instances: int = 1, dispatch: Dispatch = "least_loaded"
) -> list[Request]:
    """Serve all requests, one event after another, and return them."""
    requests = requests_of(arrivals)
    servers = [Instance(limits, tables, arrivals.block_tokens) for _ in range(instances)]
    events: list[tuple[float, int, int]] = [
        (each.arrival, ARRIVES, each.number) for each in requests if not refused(each, limits)
    ]
    heapq.heapify(events)
    turn = 0
    while events:
        now, kind, number = heapq.heappop(events)
        if kind == ARRIVES:
            loads = [server.load for server in servers]
            chosen = turn % instances if dispatch == "round_robin" else loads.index(min(loads))
            turn += 1
            servers[chosen].queue.append(requests[number])
            if servers[chosen].step is None and servers[chosen].load == 1:
                heapq.heappush(events, (now, STEP_BEGINS, chosen))
        elif kind == STEP_BEGINS:
            heapq.heappush(events, (now + servers[number].begin().seconds, STEP_ENDS, number))
        else:
            servers[number].end(now)
            if servers[number].load:
                heapq.heappush(events, (now, STEP_BEGINS, number))
    return requests
