"""The split of memory: held against brute force over slots and contexts, and every refusal."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.planning.solve import (
    BATCH_CYCLE,
    BUFFER,
    CYCLE,
    HOST,
    NATIVE,
    ROOM,
    at_limit,
    contexts_between,
    fewest_slots,
    frontier,
    longest_context,
    most_slots,
    split,
    step_seconds,
)
from tests.unit.planning.situations import situation, situations

LIMITS = st.floats(1, 20)


def kept(s, context, slots, limit) -> bool:
    """Whether a number of slots keeps a slowdown."""
    seconds, resident, _ = step_seconds(s, context, slots)
    return seconds.middle <= limit * resident.middle


@settings(deadline=None)
@given(situations(), st.integers(1, 500), LIMITS)
def test_fewest_slots_are_those_of_brute_force(s, context, limit):
    assert fewest_slots(s, context, limit) == min(
        slots for slots in range(s.layers * s.top_k, s.all_slots + 1) if kept(s, context, slots, limit)
    )


@settings(deadline=None)
@given(situations(), st.integers(1, 500))
def test_most_slots_are_those_of_brute_force(s, context):
    cache = s.batch * s.cached_bytes(context)
    fitting = [slots for slots in range(s.all_slots + 1) if cache + slots * s.expert_bytes <= s.room_bytes]
    assert max(0, most_slots(s, context)) == max(fitting, default=0)
    assert (most_slots(s, context) >= 0) == bool(fitting)


@settings(deadline=None)
@given(situations(), st.integers(1, 500))
def test_more_slots_never_hit_less_or_take_longer(s, context):
    found = [split(s, context, slots) for slots in range(s.all_slots + 1)]
    for fewer, more in pairwise(found):
        assert more.hit.middle >= fewer.hit.middle - 1e-12
        assert more.seconds.middle <= fewer.seconds.middle + 1e-9
    assert found[-1].slowdown.middle == 1
    assert all(each.slowdown.low <= each.slowdown.middle + 1e-9 <= each.slowdown.high + 2e-9 for each in found)


@settings(deadline=None)
@given(situations(), LIMITS)
def test_longest_context_keeps_the_limit(s, limit):
    found = longest_context(s, limit)
    tried = contexts_between(128, s.native_context, 24)
    if found is None:
        assert not any(at_limit(s, context, limit).met for context in tried)
    else:
        assert at_limit(s, found, limit).met and found <= s.native_context
        assert found >= max(context for context in tried if at_limit(s, context, limit).met)


def test_longest_context_is_exact_where_slowdown_grows():
    s = situation(resident=lambda tokens: situation().resident(0))
    for limit in (1.05, 1.2, 1.5):
        within = [context for context in range(128, 401) if at_limit(s, context, limit).met]
        assert longest_context(s, limit) == (within[-1] if within else None)


def test_limit_that_host_memory_forbids_is_not_met():
    assert at_limit(situation(), 100, 3.0).met
    assert not at_limit(situation(host_bytes=1.0), 100, 3.0).met
    assert longest_context(situation(host_bytes=1.0), 3.0) is None


def test_step_is_the_affine_law():
    s = situation()
    found = split(s, 100, 32)
    misses = 4 * 2 * (1 - 0.8)
    assert found.hit.middle == pytest.approx(0.8)
    assert found.seconds.middle == pytest.approx(11 + misses * 1.0)
    assert found.seconds.high == pytest.approx(14 + 4 * 2 * 0.3 * 3.0 + 4 * 0.2)
    assert found.tokens_per_s.middle == pytest.approx(1 / found.seconds.middle)


def test_all_slots_take_the_resident_time():
    found = split(situation(), 100, 64)
    assert found.seconds == found.resident_seconds and found.hit.middle == 1 and found.works


@pytest.mark.parametrize(
    ("changes", "context", "slots", "kind", "words"),
    [
        ({}, 100, 7, CYCLE, "7 slots are fewer than the 8 that one token needs"),
        ({"unique": 9.0}, 100, 35, BATCH_CYCLE, "fewer than the 36 that one step of the batch needs"),
        ({}, 100, 31, BUFFER, "fewer than 2E = 32"),
        ({"host_bytes": 100.0}, 100, 40, HOST, "pinned host memory"),
        ({}, 401, 64, NATIVE, "beyond the 400 that the model was trained for"),
        ({"room_bytes": 10.0}, 100, None, ROOM, "lack before any expert has a slot"),
    ],
)
def test_what_does_not_work_is_refused_with_its_reason(changes, context, slots, kind, words):
    found = split(situation(**changes), context, slots)
    (reason,) = [each.reason for each in found.refusals if each.kind == kind]
    assert words in reason
    assert found.works == (kind in (BUFFER, BATCH_CYCLE))


def test_split_without_memory_tells_no_time():
    found = split(situation(room_bytes=10.0), 100)
    assert found.slots == 0 and found.seconds is None and found.tokens_per_s is None


def test_split_without_bandwidths_has_slots_and_no_times():
    s = situation(cost=None, resident=None)
    found = at_limit(s, 100, 1.2)
    assert split(s, 100).slots == 40 and split(s, 100).slowdown is None
    assert found.fewest_slots is None and not found.met and longest_context(s, 1.2) is None


def test_frontier_has_fewer_slots_at_longer_contexts():
    found = frontier(situation(), [100, 200, 300, 400])
    assert [each.slots for each in found] == [40, 30, 20, 10]
