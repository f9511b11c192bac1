"""Continuous batching of requests on instances of one model: who is in a batch when, and what that takes.

The rules are those of the scheduler of vLLM V1 (vllm/v1/core/sched/scheduler.py), with the cache counted in tokens.
An instance runs one step after another. At the beginning of each:

1. Every running sequence whose prompt is done decodes one token, which takes one token of cache. While these find no
   room, the sequence that came in last loses its cache and goes to the head of the queue; it will prefill its prompt
   and what it has generated again.
2. The rest of the step's tokens goes to prompts that are being prefilled, in chunks, in the order of admission.
3. Unless something lost its cache, the queue is admitted in its order while there is a place, a token of the step, and
   cache for the whole prompt. The first that finds none holds up the others.

The step in which a prompt ends gives the first token. With shared prefixes, the full blocks of a prefilled prompt can
be used by later prompts that begin alike, and stay in the cache until room is needed, those unused for longest going
first. A request that is longer than what an instance holds is refused. At one moment, steps end first, then requests
arrive, then steps begin. An instance is loaded by the requests that it has and has not finished.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prophet_moe.errors import UserError
from prophet_moe.serving import kernel
from prophet_moe.serving.arrivals import Arrivals
from prophet_moe.serving.step_times import StepTimes

Dispatch = Literal["round_robin", "least_loaded"]
DISPATCHES: tuple[Dispatch, ...] = ("round_robin", "least_loaded")
"""Ways to spread requests over instances, in the order of the kernel's numbers."""
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Limits:
    """What one instance holds and takes up in a step."""

    capacity: int
    """Tokens of KV cache."""
    sequences: int
    """Most sequences of a step."""
    tokens: int
    """Most tokens of a step: of prompts what decoding leaves of it."""
    longest: int
    """Most tokens of a request, prompt and output: the native context."""
    overhead: int = 0
    """Tokens of cache that each sequence takes beside its own, for windows and states."""


@dataclass(frozen=True)
class Served:
    """What came of all requests."""

    arrivals: Arrivals
    limits: Limits
    requests: kernel.Requests
    instances: kernel.Instances
    batches: kernel.Batches
    """By batch size, summed over instances."""

    @property
    def finished(self) -> np.ndarray:
        """Return whether each request was served; the others were refused."""
        return ~self.requests.refused

    @property
    def seconds(self) -> float:
        """Return the seconds from the first arrival to the end of the last step."""
        return float(self.instances.clock.max() - self.arrivals.seconds[0])

    @property
    def first_token_seconds(self) -> np.ndarray:
        """Return the time to first token of every request that was served."""
        return (self.requests.first - self.arrivals.seconds)[self.finished]

    @property
    def token_seconds(self) -> np.ndarray:
        """Return the mean time per further token of every request that has some."""
        more = self.finished & (self.arrivals.outputs > 1)
        spent = (self.requests.finish - self.requests.first)[more]
        return spent / (self.arrivals.outputs[more] - 1)

    @property
    def request_batches(self) -> np.ndarray:
        """Return the mean number of sequences that decoded together, over the decode steps of each request."""
        decoded = self.finished & (self.requests.decoded > 0)
        return self.requests.batched[decoded] / self.requests.decoded[decoded]

    @property
    def occupancy_mean(self) -> float:
        """Return the share of the cache that running sequences refer to, mean over the time from first to last."""
        whole = self.limits.capacity * self.seconds * len(self.instances.clock)
        return float(self.instances.mean_used.sum() / whole)

    @property
    def occupancy_most(self) -> float:
        """Return the largest share of the cache of an instance that running sequences referred to."""
        return float(self.instances.most_used.max() / self.limits.capacity)

    @property
    def idle_share(self) -> float:
        """Return the share of the time in which an instance has no step."""
        return float(1 - self.instances.busy.sum() / (self.seconds * len(self.instances.clock)))


def serve(
    arrivals: Arrivals,
    times: StepTimes,
    limits: Limits,
    instances: int = 1,
    dispatch: Dispatch = "least_loaded",
    shared_prefixes: bool = True,
) -> Served:
    """Serve all requests, and run until the last is finished.

    Parameters
    ----------
    arrivals : Arrivals
        Requests in the order of their arrival.
    times : StepTimes
        Seconds of steps.
    limits : Limits
        What an instance holds.
    instances : int
        Instances with a queue and a cache each.
    dispatch : str
        `round_robin`, or `least_loaded`: to the instance with the fewest requests, of these the first.
    shared_prefixes : bool
        Whether prompts share the blocks that `arrivals` has.

    Returns
    -------
    Served
        Times of requests, and batches.

    Raises
    ------
    UserError
        Where a limit or the number of instances is impossible.
    """
    _check(limits, times, instances)
    share = shared_prefixes and arrivals.block_tokens > 0
    asked = kernel.Asked(arrivals.seconds, arrivals.prompts, arrivals.outputs, arrivals.starts, arrivals.blocks)
    if not share:
        asked = asked._replace(starts=np.zeros(len(arrivals.seconds) + 1, np.int64), blocks=np.zeros(0, np.int64))
    rules = kernel.Rules(
        DISPATCHES.index(dispatch),
        limits.capacity,
        limits.sequences,
        limits.tokens,
        limits.overhead,
        limits.longest,
        arrivals.block_tokens if share else 0,
    )
    state = _state(asked, limits, instances)
    kernel.serve(asked, rules, times.tables, *state)
    requests, of_instances, _, batches = state
    return Served(arrivals, limits, requests, of_instances, batches)


def _state(
    asked: kernel.Asked, limits: Limits, instances: int
) -> tuple[kernel.Requests, kernel.Instances, kernel.Prefixes, kernel.Batches]:
    """Return the state before the first request: nothing runs, nothing is cached."""
    n, ids = len(asked.seconds), int(asked.blocks.max(initial=-1)) + 1

    def numbers(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    def none(*shape: int) -> np.ndarray:
        return np.full(shape, kernel.NONE, np.int64)

    def never() -> np.ndarray:
        return np.full(n, np.nan)

    requests = kernel.Requests(
        refused=np.zeros(n, np.bool_),
        instance=none(n),
        admitted=never(),
        first=never(),
        finish=never(),
        generated=numbers(n),
        preempted=numbers(n),
        reused=numbers(n),
        decoded=numbers(n),
        batched=np.zeros(n),
        context=numbers(n),
        left=numbers(n),
        held=numbers(n),
        since=np.zeros(n),
        after=none(n),
    )
    of_instances = kernel.Instances(
        clock=np.zeros(instances),
        first_queued=none(instances),
        last_queued=none(instances),
        queued=numbers(instances),
        running=numbers(instances),
        runs=numbers(instances, limits.sequences),
        ending=numbers(instances),
        used=numbers(instances),
        most_used=numbers(instances),
        mean_used=np.zeros(instances),
        busy=np.zeros(instances),
        decoded=np.zeros(instances),
    )
    prefixes = kernel.Prefixes(
        holds=np.zeros(len(asked.blocks), np.bool_),
        cached=np.zeros((instances, ids), np.bool_),
        count=np.zeros((instances, ids), np.int32),
        older=np.full((instances, ids), kernel.NONE, np.int32),
        newer=np.full((instances, ids), kernel.NONE, np.int32),
        oldest=none(instances),
        newest=none(instances),
        loose=numbers(instances),
    )
    by_sequences, by_tokens = limits.sequences + 1, limits.tokens + 1
    batches = kernel.Batches(*(np.zeros(size) for size in (*[by_sequences] * 3, *[by_tokens] * 2)))
    return requests, of_instances, prefixes, batches


def weighted_quantiles(weights: np.ndarray, shares: Sequence[float]) -> list[int]:
    """Return the least numbers up to which the given shares of the weights of 0, 1, 2 ... lie; 0 without weights."""
    whole = np.cumsum(weights)
    return [int(np.searchsorted(whole, share * whole[-1] * (1 - 1e-12))) if whole[-1] else 0 for share in shares]


def _check(limits: Limits, times: StepTimes, instances: int) -> None:
    least = {"capacity": 1, "sequences": 1, "tokens": limits.sequences, "longest": 2, "overhead": 0}
    for name, lowest in least.items():
        if getattr(limits, name) < lowest:
            problem = f"got {getattr(limits, name)}, expected at least {lowest}"
            raise UserError(f"batching: {name}", problem, "Correct it.")
    if instances < 1:
        raise UserError("batching: instances", f"got {instances}, expected at least 1", "Correct it.")
    if times.most_sequences < limits.sequences or times.most_tokens < limits.tokens:
        have = f"{times.most_sequences} sequences and {times.most_tokens} tokens"
        problem = f"times of steps end at {have}, expected {limits.sequences} and {limits.tokens}"
        raise UserError("batching: step times", problem, "Tabulate them for these limits.")
