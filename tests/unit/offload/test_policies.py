"""Replacement policies against plain ones and exact curves, and what a batch asks for against plain code."""

from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.offload import policies
from prophet_moe.offload.simulator.batching import accesses_of, decode_batches
from prophet_moe.routing import reuse
from prophet_moe.routing.trace import sequence_starts
from tests.builders import traces

streams = st.integers(1, 7).flatmap(
    lambda experts: st.tuples(st.lists(st.integers(0, experts - 1), max_size=60), st.just(experts))
)


def plain_hits(policy: str, stream: list[int], capacity: int) -> list[bool]:
    """The definition: a dictionary of what is cached, from which the least by the policy's order is evicted."""
    cached: dict[int, dict[str, int]] = {}
    served = []
    for now, expert in enumerate(stream):
        served.append(expert in cached)
        if expert not in cached:
            if len(cached) == capacity:
                del cached[min(cached, key=lambda other: order(policy, cached[other]))]
            cached[expert] = {"admitted": now, "uses": 0}
        ahead = stream[now + 1 :]
        next_use = now + 1 + ahead.index(expert) if expert in ahead else len(stream)
        cached[expert] |= {"uses": cached[expert]["uses"] + 1, "last": now, "next": next_use}
    return served


def order(policy: str, known: dict[str, int]) -> tuple[int, ...]:
    """Of what is known about an expert, what decides: the least is evicted."""
    return {
        "lru": (known["last"],),
        "fifo": (known["admitted"],),
        "lfu": (known["uses"], known["last"]),
        "belady": (-known["next"],),
    }[policy]


@settings(deadline=None)
@given(case=streams, policy=st.sampled_from(list(policies.POLICIES)), kind=st.sampled_from(["u2", "u4"]))
def test_policies_equal_plain_ones_at_every_capacity(case, policy, kind):
    stream, experts = case
    ids = np.array(stream, kind)
    for capacity in range(1, experts + 3):
        expected = plain_hits(policy, stream, capacity)
        assert policies.misses(policy, ids, experts, capacity) == expected.count(False)
        if policy != "belady":
            # Which of the experts never used again goes first is nobody's business, but then only misses compare.
            assert policies.hits(policy, ids, experts, capacity).tolist() == expected


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), experts=st.integers(1, 40), skew=st.floats(0, 2))
def test_longer_streams_equal_plain_ones_and_exact_curves(seed, experts, skew):
    random = np.random.default_rng(seed)
    popularity = np.arange(1, experts + 1) ** -skew
    ids = random.choice(experts, 400, p=popularity / popularity.sum()).astype(np.uint16)
    curves = {"lru": reuse.lru_hits(ids, experts), "belady": reuse.belady_hits(ids, experts)}
    for capacity in range(1, experts + 1):
        misses = {policy: policies.misses(policy, ids, experts, capacity) for policy in policies.POLICIES}
        assert {policy: len(ids) - curve[capacity - 1] for policy, curve in curves.items()} == {
            policy: misses[policy] for policy in curves
        }
        assert misses["belady"] == min(misses.values())
        for policy in ("fifo", "lfu"):
            assert misses[policy] == plain_hits(policy, ids.tolist(), capacity).count(False)


def listed_lru_hits(stream: list[int], experts: int) -> list[int]:
    """Hits at each capacity, by places in a list of what was used so far, the last used at its end."""
    used, distances = [], np.zeros(experts, int)
    for expert in stream:
        if expert in used:
            distances[len(used) - 1 - used.index(expert)] += 1
            used.remove(expert)
        used.append(expert)
    return np.cumsum(distances).tolist()


@pytest.mark.parametrize("experts", [1, 65, 1000])
def test_the_curve_of_many_ids_is_exact(experts):
    """Popular ids, ids in turn, which are furthest apart, and ids that come once."""
    random = np.random.default_rng(experts)
    skewed = (experts * random.random(20 * experts) ** 3).astype(np.uint32)
    ids = np.concatenate([skewed[: experts // 2], np.tile(np.arange(experts, dtype=np.uint32), 3), skewed])
    for stream in (ids, ids[:0], ids[: experts // 2], ids[::-1]):
        assert reuse.lru_hits(stream, experts).tolist() == listed_lru_hits(stream.tolist(), experts)


def test_what_cannot_be_is_refused():
    ids = np.array([0, 1, 4], np.int64)
    for stream, capacity, problem in ((ids, 0, "capacity is 0"), (ids, 2, "0 to 4, expected 0 to 3"), (-ids, 2, "-4")):
        with pytest.raises(ValueError, match=problem):
            policies.hits("lru", stream, 4, capacity)
    with pytest.raises(KeyError):
        policies.hits("random", ids, 5, 2)
    most = 1 << 20
    assert policies.misses("belady", np.array([most - 1, 0, most - 1]), most, 2) == 2
    with pytest.raises(ValueError, match="expected at most 1048576"):
        policies.hits("belady", ids, most + 1, 2)


def plain_asks(trace, batch: int, deduplicated: bool) -> list[dict[tuple[int, int], int]]:
    """For each ask the tokens that chose each (layer, expert), by step and layer."""
    sequences = [list(range(start, end)) for start, end in pairwise(sequence_starts(trace))]
    accessed = []
    for first in range(0, len(sequences), batch):
        together = sequences[first : first + batch]
        for step in range(max(map(len, together))):
            rows = [rows[step] for rows in together if step < len(rows)]
            for layer in range(len(trace.router.layers)):
                items = [[(layer, int(expert)) for expert in trace.experts[row, layer]] for row in rows]
                accessed += [Counter(chain(*items))] if deduplicated else map(Counter, items)
    return accessed


@settings(deadline=None)
@given(trace=traces(), batch=st.integers(1, 6), deduplicated=st.booleans(), steps=st.sampled_from([1, 5, 1024]))
def test_accesses_equal_plain_ones(trace, batch, deduplicated, steps):
    experts, accessed = trace.router.experts, []
    for batches in decode_batches(trace.experts, sequence_starts(trace), batch, experts, steps):
        accesses = accesses_of(batches, deduplicated=deduplicated)
        for begin, end in pairwise(accesses.starts):
            pairs = ((int(wanted) // experts, int(wanted) % experts) for wanted in accesses.ids[begin:end])
            accessed.append(dict(zip(pairs, accesses.tokens[begin:end].tolist(), strict=True)))
        assert accesses.widest == max(map(len, accessed[-len(accesses.starts) + 1 :]))
        assert accesses.of_layer[-1] == len(accesses.starts) - 1
    plain = plain_asks(trace, batch, deduplicated)
    assert [list(access.items()) for access in accessed] == [list(access.items()) for access in plain]


def test_an_order_of_tokens_is_kept_and_must_be_a_permutation():
    batches = next(decode_batches(np.array([[[3]], [[1]]], np.uint16), np.array([0, 1, 2]), 2, 4))
    accesses = accesses_of(batches, deduplicated=False, order=np.array([[[1, 0]]]))
    assert accesses.ids.tolist() == [1, 3]
    with pytest.raises(ValueError, match="expected a permutation of the batch"):
        accesses_of(batches, deduplicated=False, order=np.array([[[1, 1]]]))
