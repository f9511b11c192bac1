"""Times of caches on demand: compiled against plain, against the simulator with a clock, and mechanisms by hand."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.errors import Fault, UserError
from prophet_moe.offload.demand import reference
from prophet_moe.offload.demand.lookups import (
    ADMITTED,
    FILLING,
    ORDINARY,
    Admission,
    Asks,
    Lookups,
    asks_of,
    byte_cache,
    joined,
    look_up,
    slot_cache,
)
from prophet_moe.offload.demand.page_cache import Storage, reads
from prophet_moe.offload.demand.replay import Engine, run, steps_of
from prophet_moe.offload.demand.speculation import Speculation, speculated
from prophet_moe.offload.demand.times import Costs, Served, checked, fetched_of, serve
from prophet_moe.offload.simulator.batching import ABSENT, DecodeBatches, LayerAccesses, accesses_of, decode_batches
from prophet_moe.offload.simulator.simulation import Hierarchy, Job, Times, no_prefetches, simulate


def routed(seed: int, layers: int, experts: int, top_k: int, batch: int, steps: int) -> DecodeBatches:
    random = np.random.default_rng(seed)
    choices = random.random((batch * steps, layers, experts)).argsort(-1)[..., :top_k].astype(np.uint16)
    starts = np.arange(batch + 1) * steps
    (batches,) = decode_batches(choices, starts, batch, experts)
    return batches


def asked(accesses: LayerAccesses) -> Asks:
    return Asks(accesses.starts, accesses.ids.astype(np.int64))


@st.composite
def runs(draw):
    """Steps of small batches, a cache, and costs in quarters of seconds."""
    layers, experts, batch = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    batches = routed(draw(st.integers(0, 2**32)), layers, experts, draw(st.integers(1, experts)), batch, 4)
    quarters = st.integers(0, 12).map(lambda number: number / 4)
    per_layer = st.lists(quarters, min_size=layers, max_size=layers).map(np.array)
    cpu = draw(st.none() | per_layer)
    costs = Costs(
        draw(per_layer),
        np.array([0.0, *np.sort(draw(st.lists(quarters, min_size=batch, max_size=batch)))]),
        draw(per_layer),
        cpu,
        cpu is not None and draw(st.booleans()),
        draw(quarters),
        draw(quarters),
        draw(st.integers(1, 3)),
    )
    slots = draw(st.integers(0, layers * experts))
    return (
        accesses_of(batches, deduplicated=draw(st.booleans())),
        slot_cache(layers, experts, slots, per_layer=False),
        costs,
    )


@given(runs(), st.none() | st.integers(0, 2))
@settings(max_examples=200, deadline=None)
def test_times_compiled_equals_plain_python(run, inserts):
    accesses, cache, costs = run
    asks = asked(accesses)
    found = look_up(asks, cache, limits=costs.limits(Admission(inserts), asks.widest))
    experts = len(cache.bytes_of) // len(costs.non_expert_seconds)
    served = serve(accesses, found, costs, experts=experts)
    assert served.step_seconds.tolist() == pytest.approx(reference.step_seconds(accesses, found, costs, experts))
    assert served.copies + served.on_cpu >= (~found.hits).sum()


@given(st.integers(0, 2**32), st.booleans(), st.integers(3, 8))
@settings(max_examples=50, deadline=None)
def test_times_without_options_are_those_of_the_simulator(seed, per_layer, slots):
    batches = routed(seed, 3, 8, 2, 1, 20)
    accesses = accesses_of(batches, deduplicated=True)
    other, expert, copy = np.array([0.5, 0.25, 1.0]), np.array([0.0, 0.25]), 0.75
    job = Job(batches, accesses, no_prefetches(batches))
    times = Times(other, expert, (copy,))
    simulated = simulate([job], Hierarchy((slots,), per_layer), times, np.ones((3, 8)), warm=False)
    found = look_up(asked(accesses), slot_cache(3, 8, slots, per_layer=per_layer), hits_first=True)
    served = serve(accesses, found, Costs(other, expert, np.full(3, copy)))
    assert found.hits.mean() == pytest.approx(simulated.hit_rate)
    np.testing.assert_allclose(served.step_seconds, simulated.step_seconds)
    assert served.copies == simulated.copies


@given(runs())
@settings(max_examples=100, deadline=None)
def test_times_overheads_add_to_each_step_and_copy(run):
    accesses, cache, costs = run
    costs = Costs(costs.non_expert_seconds, costs.expert_seconds * 0, costs.copy_seconds)
    found = look_up(asked(accesses), cache)
    plain = serve(accesses, found, costs)
    slower = Costs(costs.non_expert_seconds, costs.expert_seconds, costs.copy_seconds, None, False, 0.5, 0.25)
    overheads = 0.25 * len(plain.step_seconds) + 0.5 * plain.copies
    assert serve(accesses, found, slower).seconds == pytest.approx(plain.seconds + overheads)


def test_times_that_are_not_conserved_are_a_fault():
    costs = Costs(np.ones(1), np.zeros(2), np.ones(1))
    with pytest.raises(Fault, match="do not lie between"):
        checked(Served(np.array([1.0]), 2.0, 0.5, 0.0, 1, 0), costs, 0.0)


@given(st.integers(0, 40), st.floats(0.1, 10), st.floats(0.1, 10))
def test_hybrid_share_fetched_is_the_ratio_of_bandwidths(misses, copy, cpu):
    fetched = fetched_of(misses, copy, cpu)
    assert abs(fetched - misses * cpu / (copy + cpu)) <= 1
    best = max(fetched * copy, (misses - fetched) * cpu)
    assert best <= max(copy, cpu) * misses


@given(runs())
@settings(max_examples=100, deadline=None)
def test_hybrid_without_room_is_never_slower_than_on_demand(run):
    # Nothing is kept, so that what enters makes no difference to later steps.
    accesses, cache, costs = run
    none = slot_cache(
        len(costs.non_expert_seconds), len(cache.bytes_of) // len(costs.non_expert_seconds), 0, per_layer=False
    )
    free = costs.expert_seconds * 0
    found = look_up(asked(accesses), none)
    alone = serve(accesses, found, Costs(costs.non_expert_seconds, free, costs.copy_seconds))
    helped = serve(accesses, found, Costs(costs.non_expert_seconds, free, costs.copy_seconds, costs.copy_seconds))
    assert helped.seconds == pytest.approx(alone.seconds)
    assert helped.on_cpu == len(accesses.ids)


def test_hybrid_computes_misses_on_both_sides_at_once():
    # Four misses of one layer: two are fetched in 2 s, two take the CPU 2 s, beside one another.
    accesses = LayerAccesses(np.array([0, 1]), np.array([0, 4]), np.arange(4, dtype=np.uint32), np.ones(4, np.uint32))
    costs = Costs(np.array([1.0]), np.array([0.0, 0.0]), np.array([1.0]), np.array([1.0]))
    found = look_up(asked(accesses), slot_cache(1, 4, 4, per_layer=True), limits=costs.limits(Admission(), 4))
    served = serve(accesses, found, costs)
    assert (served.seconds, served.copies, served.on_cpu) == (3.0, 2, 2)


def test_background_copies_are_not_waited_for_by_their_layer():
    accesses = LayerAccesses(np.array([0, 1]), np.array([0, 2]), np.arange(2, dtype=np.uint32), np.ones(2, np.uint32))
    found = look_up(asked(accesses), slot_cache(1, 2, 2, per_layer=True))
    fast = Costs(np.array([1.0]), np.zeros(2), np.array([0.5]), np.array([2.0]), True)
    assert serve(accesses, found, fast).seconds == 5.0
    slow = Costs(np.array([1.0]), np.zeros(2), np.array([4.0]), np.array([2.0]), True)
    assert serve(accesses, found, slow).seconds == 8.0


@pytest.mark.parametrize(
    "arguments",
    [
        (np.array([-1.0]), np.zeros(2), np.zeros(1)),
        (np.ones(1), np.zeros(2), np.array([np.nan])),
        (np.ones(1), np.zeros(2), np.ones(1), None, True),
        (np.ones(1), np.zeros(2), np.ones(1), None, False, -1.0),
        (np.ones(1), np.zeros(2), np.ones(1), None, False, 0.0, np.inf),
    ],
)
def test_costs_that_are_impossible_are_refused(arguments):
    with pytest.raises(UserError):
        Costs(*arguments)


@given(st.integers(0, 2**32), st.integers(0, 4), st.lists(st.integers(1, 9), min_size=1, max_size=3), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_speculation_yields_every_token_once(seed, draft, lengths, acceptance):
    starts = np.cumsum([0, *lengths])
    choices = np.zeros((starts[-1], 1, 1), np.uint16)
    batches, emitted = speculated(choices, starts, 4, Speculation(draft, acceptance, seed))
    assert emitted.sum() == starts[-1]
    assert batches.rows.shape == (len(emitted), draft + 1)
    first = np.concatenate([[0], np.cumsum(emitted)[:-1]])
    assert batches.rows[:, 0].tolist() == first.tolist()
    for row in batches.rows.tolist():
        here = [at for at in row if at != ABSENT]
        assert all(later == earlier + 1 for earlier, later in pairwise(here))
        assert not np.isin(starts[1:-1], here[1:]).any()


@pytest.mark.parametrize(("acceptance", "tokens"), [(0.0, 1), (1.0, 4)])
def test_speculation_of_certain_drafts(acceptance, tokens):
    speculation = Speculation(3, acceptance)
    _, emitted = speculated(np.zeros((40, 1, 1), np.uint16), np.array([0, 40]), 4, speculation)
    assert speculation.tokens_per_step == tokens
    assert set(emitted.tolist()) == {tokens}


def test_speculation_yields_as_many_tokens_as_expected():
    speculation = Speculation(3, 0.7)
    _, emitted = speculated(np.zeros((20_000, 1, 1), np.uint16), np.array([0, 20_000]), 4, speculation)
    assert emitted.mean() == pytest.approx(speculation.tokens_per_step, rel=0.02)


@pytest.mark.parametrize(("draft", "acceptance"), [(-1, 0.5), (2, 1.1), (2, -0.1), (2, float("nan"))])
def test_speculation_that_is_impossible_is_refused(draft, acceptance):
    with pytest.raises(UserError):
        Speculation(draft, acceptance)


def plain_reads(accesses, found, cache, storage, layers):
    """The bytes read from storage, in plain Python."""
    asks, read = [], 0
    for place, (first, last) in enumerate(pairwise(accesses.of_layer.tolist())):
        if storage.mapped_bytes is not None and storage.mapped_bytes[place % layers]:
            asks.append(len(cache.bytes_of) + place % layers)
        for ask in range(first, last):
            for request in range(accesses.starts[ask], accesses.starts[ask + 1]):
                if not found.hits[request]:
                    asks.append(int(accesses.ids[request]))
    sizes = [*cache.bytes_of.tolist(), *(storage.mapped_bytes.tolist() if storage.mapped_bytes is not None else [])]
    pages: list[int] = []
    for wanted in asks:
        if wanted in pages:
            pages.remove(wanted)
        else:
            read += sizes[wanted]
            if sizes[wanted] > storage.page_bytes:
                continue
            while sum(sizes[page] for page in pages) + sizes[wanted] > storage.page_bytes:
                pages.pop(0)
        pages.append(wanted)
    return read


@given(runs(), st.integers(0, 12), st.booleans())
@settings(max_examples=200, deadline=None)
def test_page_cache_reads_as_plain_python_does(run, page_bytes, mapped):
    accesses, cache, costs = run
    layers = len(costs.non_expert_seconds)
    storage = Storage(page_bytes, 4.0, 1.0, np.arange(layers) if mapped else None)
    found = look_up(asked(accesses), cache)
    ours = reads(accesses, found, cache.bytes_of, storage, layers)
    assert ours.storage_bytes == plain_reads(accesses, found, cache, storage, layers)
    assert ours.request_seconds[found.hits].sum() == 0
    seconds = serve(
        accesses,
        found,
        Costs(costs.non_expert_seconds, costs.expert_seconds, costs.copy_seconds),
        ours.request_seconds,
        ours.mapped_seconds,
    ).seconds
    assert seconds >= ours.storage_bytes / storage.storage_bytes_per_second - 1e-9


def test_page_cache_best_size_of_a_cache_is_between():
    # 64 experts of 10 bytes and 100 bytes of other weights in 500 bytes of memory.
    random = np.random.default_rng(0)
    popular = (1 / np.arange(1, 65)) ** 0.8
    rows = (np.log(popular) + random.gumbel(size=(2000, 64))).argsort(-1)[:, -4:]
    asks, memory = asks_of(rows), 500
    accesses = LayerAccesses(np.arange(2001), asks.starts, asks.ids.astype(np.uint32), np.ones(8000, np.uint32))
    costs = Costs(np.array([1.0]), np.array([0.0, 0.0]), np.zeros(1))
    seconds, hits = [], []
    for size in (0, 100, 200, 300, 380, 450):
        cache = byte_cache(np.array([10]), 64, size)
        found = look_up(asks, cache)
        read = reads(accesses, found, cache.bytes_of, Storage(memory - size, 20.0, 4.0, np.array([100])), 1)
        seconds.append(serve(accesses, found, costs, read.request_seconds, read.mapped_seconds).seconds)
        hits.append(found.hits.mean())
    assert hits == sorted(hits)
    best = int(np.argmin(seconds))
    assert 0 < best < 5, seconds
    assert seconds[-1] > 1.5 * seconds[best]


@given(runs(), st.integers(2, 4))
@settings(max_examples=100, deadline=None)
def test_devices_shorten_a_step_at_most_by_their_number(run, devices):
    accesses, cache, costs = run
    experts = len(cache.bytes_of) // len(costs.non_expert_seconds)
    found = look_up(asked(accesses), cache)
    alone = serve(accesses, found, replace(costs, devices=1, step_overhead_seconds=0.0), experts=experts)
    several = serve(accesses, found, replace(costs, devices=devices, step_overhead_seconds=0.0), experts=experts)
    assert several.seconds <= alone.seconds + 1e-9
    assert several.seconds >= alone.seconds / devices - 1e-9
    assert (several.copies, several.on_cpu) == (alone.copies, alone.on_cpu)


@st.composite
def whole_runs(draw):
    """Steps of small batches before caches of experts of unequal bytes on several devices."""
    layers, experts, batch = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    layer_bytes, devices = random.integers(1, 5, layers), draw(st.integers(1, 3))
    top_k = draw(st.integers(1, experts))
    choices = random.random((8, layers, experts)).argsort(-1)[..., :top_k].astype(np.uint16)
    steps = steps_of(choices, np.array([0, 3, 5, 8]), experts, batch)
    capacity = draw(st.integers(0, int(experts * layer_bytes.sum())))
    cache = byte_cache(layer_bytes, experts, capacity, per_layer=draw(st.booleans()), devices=devices)
    cpu = draw(st.none() | st.sampled_from((1.0, 4.0)))
    costs = Costs(
        random.integers(0, 5, layers) / 4,
        np.concatenate([[0.0], np.sort(random.integers(0, 5, batch)) / 4]),
        layer_bytes / 4,
        None if cpu is None else layer_bytes / cpu,
        cpu is not None and draw(st.booleans()),
        draw(st.sampled_from((0.0, 0.25))),
        draw(st.sampled_from((0.0, 0.5))),
        devices,
    )
    admission = Admission(draw(st.none() | st.integers(0, 2)), draw(st.integers(1, 2)))
    engine = Engine(cache, costs, np.repeat(layer_bytes, experts), admission)
    return steps, engine, asks_of(random.permutation(layers * experts)[:, None]), layers


@given(whole_runs())
@settings(max_examples=150, deadline=None)
def test_run_of_unequal_bytes_on_devices_equals_plain_python(case):
    steps, engine, before, layers = case
    outcome = run(*case)
    limits = engine.costs.limits(engine.admission, steps.asks.widest)
    kinds = np.repeat([FILLING, ORDINARY], [len(before.ids), len(steps.asks.starts) - 1]).astype(np.uint8)
    asks = joined([before, steps.asks])
    plain = reference.look_up(asks, engine.cache, engine.admission, kinds, limits, hits_first=True)
    fates = plain.fates[len(before.ids) :]
    assert outcome.found.fates.tolist() == fates.tolist()
    assert outcome.found.used.tolist() == plain.used.tolist()
    experts = len(engine.bytes_of) // layers
    seconds = reference.step_seconds(steps.accesses, Lookups(fates, plain.used), engine.costs, experts)
    assert outcome.served.step_seconds.tolist() == pytest.approx(seconds)


@given(whole_runs())
@settings(max_examples=100, deadline=None)
def test_run_copies_the_bytes_of_what_misses(case):
    steps, engine, _, _ = case
    outcome = run(*case)
    served, found = outcome.served, outcome.found
    bytes_of = engine.bytes_of[steps.asks.ids]
    copied = found.fates == ADMITTED if engine.costs.cpu_seconds is not None else ~found.hits
    copying = bytes_of[copied].sum() / 4 + engine.costs.miss_overhead_seconds * copied.sum()
    assert served.copy_seconds == pytest.approx(copying)
    # No device holds more than it may, and only experts of its own.
    assert (found.used <= engine.cache.capacities).all()
    held = np.bincount(engine.cache.group_of, engine.bytes_of, minlength=len(engine.cache.capacities))
    assert (found.used <= held).all()


def test_devices_hold_and_copy_their_own_experts():
    # Experts 0 and 2 are on device 0, 1 and 3 on device 1: two copies each, beside one another.
    cache = slot_cache(1, 4, 1, per_layer=True, devices=2)
    assert cache.group_of.tolist() == [0, 1, 0, 1]
    assert cache.capacities.tolist() == [1, 1]
    accesses = LayerAccesses(np.array([0, 1]), np.array([0, 4]), np.arange(4, dtype=np.uint32), np.ones(4, np.uint32))
    costs = Costs(np.array([1.0]), np.array([0.0, 0.5]), np.array([2.0]), devices=2)
    assert serve(accesses, look_up(asked(accesses), cache), costs, experts=4).seconds == 1 + 2 * 2 + 0.5
