"""Continuous batching: the kernel against plain Python and against SimPy, and what holds whatever arrives."""

import heapq

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.errors import UserError
from prophet_moe.serving.batching import DISPATCHES, Limits, serve, weighted_quantiles
from prophet_moe.serving.reference import ARRIVES, STEP_BEGINS, STEP_ENDS, Instance, refused, requests_of, simulate
from tests.unit.serving.builders import random_arrivals, small_times

LIMITS = Limits(capacity=80, sequences=4, tokens=12, longest=45)


class AtMoment(simpy.Event):
    """An event of SimPy at a time, before or after the others of that moment."""

    def __init__(self, env: simpy.Environment, moment: float, order: int):
        super().__init__(env)
        self._ok, self._value = True, None
        heapq.heappush(env._queue, (moment, order, next(env._eid), self))


def serve_by_simpy(arrivals, tables, limits, instances, dispatch):
    """The same as processes of SimPy: one a request's arrival, one an instance, which sleeps until it is woken."""
    env, requests = simpy.Environment(), requests_of(arrivals)
    servers = [Instance(limits, tables, arrivals.block_tokens) for _ in range(instances)]
    wakes = [env.event() for _ in servers]

    def instance(number):
        server = servers[number]
        while True:
            while not server.load:
                yield wakes[number]
                wakes[number] = env.event()
            yield AtMoment(env, env.now, STEP_BEGINS)
            yield AtMoment(env, env.now + server.begin().seconds, STEP_ENDS)
            server.end(env.now)

    def source():
        for turn, request in enumerate(each for each in requests if not refused(each, limits)):
            yield AtMoment(env, request.arrival, ARRIVES)
            loads = [server.load for server in servers]
            chosen = turn % instances if dispatch == "round_robin" else loads.index(min(loads))
            servers[chosen].queue.append(request)
            if not wakes[chosen].triggered:
                wakes[chosen].succeed()

    for number in range(instances):
        env.process(instance(number))
    env.process(source())
    env.run()
    return requests


def same(served, requests):
    """Compare everything that both tell of each request."""
    found, nan = served.requests, float("nan")
    finish = np.array([nan if each.finish is None else each.finish for each in requests])
    first = np.array([nan if each.first is None else each.first for each in requests])
    np.testing.assert_allclose(found.finish, finish, rtol=1e-12)
    np.testing.assert_allclose(found.first, first, rtol=1e-12)
    for name in ("generated", "preempted", "reused"):
        assert getattr(found, name).tolist() == [getattr(each, name) for each in requests], name
    assert found.batched.tolist() == [sum(each.batches) for each in requests]
    assert found.decoded.tolist() == [len(each.batches) for each in requests]


CASES = {
    "seed": st.integers(0, 10**6),
    "count": st.integers(2, 40),
    "block": st.sampled_from([0, 3, 5]),
    "pace": st.sampled_from([0.005, 0.05, 0.3]),
    "whole_seconds": st.booleans(),
}


@settings(deadline=None, max_examples=150)
@given(
    **CASES,
    capacity=st.integers(50, 200),
    sequences=st.integers(1, 6),
    tokens=st.integers(6, 40),
    overhead=st.integers(0, 3),
    instances=st.integers(1, 3),
    dispatch=st.sampled_from(DISPATCHES),
)
def test_kernel_equals_plain_python_whatever_arrives(
    seed, count, block, pace, whole_seconds, capacity, sequences, tokens, overhead, instances, dispatch
):
    arrivals = random_arrivals(seed, count, block, pace, whole_seconds)
    limits = Limits(capacity, sequences, tokens, 45, overhead)
    times = small_times(limits)
    served = serve(arrivals, times, limits, instances, dispatch)
    same(served, simulate(arrivals, times.tables, limits, instances, dispatch))


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_kernel_equals_processes_of_simpy(dispatch):
    arrivals = random_arrivals(7, 400, block=3, pace=0.02)
    times = small_times(LIMITS)
    served = serve(arrivals, times, LIMITS, 3, dispatch)
    assert served.requests.preempted.sum() > 10 and served.requests.reused.sum() > 100
    same(served, serve_by_simpy(arrivals, times.tables, LIMITS, 3, dispatch))


@settings(deadline=None, max_examples=60)
@given(**CASES, instances=st.integers(1, 3))
def test_tokens_are_conserved_and_the_cache_holds_them(seed, count, block, pace, whole_seconds, instances):
    arrivals = random_arrivals(seed, count, block, pace, whole_seconds)
    served = serve(arrivals, small_times(LIMITS), LIMITS, instances)
    requests, finished = served.requests, served.finished
    assert (requests.generated[finished] == arrivals.outputs[finished]).all()
    assert np.isfinite(requests.finish[finished]).all() and not requests.generated[~finished].any()
    assert (requests.finish >= requests.first)[finished].all()
    assert (requests.first > arrivals.seconds)[finished].all()
    assert (served.instances.used == 0).all() and (served.instances.most_used <= LIMITS.capacity).all()
    # A prefill makes one token of each output, as often as its cache was lost after it, one more.
    assert served.batches.decoded.sum() == requests.decoded.sum() == served.batches.decoded_by_tokens.sum()
    assert served.batches.seconds.sum() == pytest.approx(served.instances.busy.sum())
    assert (requests.decoded <= arrivals.outputs - 1)[finished].all()
    assert (requests.decoded >= arrivals.outputs - 1 - requests.preempted)[finished].all()


@settings(deadline=None, max_examples=60)
@given(**CASES, instances=st.integers(1, 3))
def test_requests_are_admitted_in_their_order(seed, count, block, pace, whole_seconds, instances):
    arrivals = random_arrivals(seed, count, block, pace, whole_seconds)
    requests = serve(arrivals, small_times(LIMITS), LIMITS, instances).requests
    for instance in range(instances):
        assert (np.diff(requests.admitted[requests.instance == instance]) >= 0).all()


def test_one_request_alone_takes_its_steps():
    """A prompt of 20 tokens in chunks of 12 and 8, then 4 decode steps."""
    arrivals = random_arrivals(0, 2)
    arrivals.prompts[:], arrivals.outputs[:], arrivals.seconds[:] = 20, 5, [0, 100]
    times = small_times(LIMITS)
    served = serve(arrivals, times, LIMITS)
    m, h, a, p = times.tables[:4]
    chunks = [m[12] + h[1] + times.tables.launch + 12 * np.interp(6 / 8, range(5), p)]
    chunks += [m[8] + h[1] + times.tables.launch + 8 * np.interp(16 / 8, range(5), p)]
    steps = [m[1] + h[1] + np.interp((20 + made) / 8, range(5), a[1]) for made in range(4)]
    assert served.requests.first[0] == pytest.approx(sum(chunks))
    assert served.requests.finish[0] == pytest.approx(sum(chunks) + sum(steps))
    assert served.request_batches.tolist() == [1, 1]
    assert served.token_seconds[0] == pytest.approx(np.mean(steps))


def test_requests_on_instances_of_their_own_share_no_batch():
    arrivals = random_arrivals(3, 8, pace=0.01)
    served = serve(arrivals, small_times(LIMITS), LIMITS, 8)
    assert (served.request_batches == 1).all()
    assert served.requests.instance.tolist() == list(range(8))


def test_request_longer_than_an_instance_holds_is_refused():
    arrivals = random_arrivals(1, 3)
    arrivals.prompts[1], arrivals.outputs[1] = 44, 2
    served = serve(arrivals, small_times(LIMITS), LIMITS)
    assert served.requests.refused.tolist() == [False, True, False]
    assert np.isnan(served.requests.finish[1]) and served.requests.instance[1] == -1


def test_weighted_quantiles_are_the_least_to_reach_a_share():
    assert weighted_quantiles(np.array([0, 5, 0, 4, 1]), (0.5, 0.9, 0.91, 1)) == [1, 3, 4, 4]
    assert weighted_quantiles(np.zeros(3), (0.5,)) == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity": 0}, "batching: capacity"),
        ({"tokens": 3}, "batching: tokens"),
        ({"sequences": 0}, "batching: sequences"),
        ({"longest": 1}, "batching: longest"),
    ],
)
def test_impossible_limit_is_an_error(change, message):
    limits = Limits(**{**vars(LIMITS), **change})
    with pytest.raises(UserError, match=message):
        serve(random_arrivals(0, 2), small_times(LIMITS), limits)


def test_step_times_for_smaller_limits_are_an_error():
    with pytest.raises(UserError, match="step times"):
        serve(random_arrivals(0, 2), small_times(LIMITS), Limits(80, 5, 12, 45))
    with pytest.raises(UserError, match="instances"):
        serve(random_arrivals(0, 2), small_times(LIMITS), LIMITS, 0)
