"""Replacement policies against plain ones and exact curves, streams against plain ones, and `prophet-moe sim run`."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.cachesim import lru_curve, policies
from prophet_moe.cachesim.run import capacities, simulate
from prophet_moe.cachesim.streams import requests_of
from prophet_moe.routing import reuse, store
from prophet_moe.routing.summary import cleaned
from prophet_moe.routing.trace import PREFILL, sequence_starts
from tests.conftest import ROOT
from tests.unit.test_cli import run
from tests.unit.test_statistics import make_trace, traces, uniform_trace

RECORDED = ROOT / "resources/traces/small-6x8-top2"

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
    assert lru_curve.lru_hits(ids, experts).tolist() == curves["lru"].tolist()
    for capacity in range(1, experts + 1):
        misses = {policy: policies.misses(policy, ids, experts, capacity) for policy in policies.POLICIES}
        assert {policy: len(ids) - curve[capacity - 1] for policy, curve in curves.items()} == {
            policy: misses[policy] for policy in curves
        }
        assert misses["belady"] == min(misses.values())
        for policy in ("fifo", "lfu"):
            assert misses[policy] == plain_hits(policy, ids.tolist(), capacity).count(False)


@pytest.mark.parametrize("experts", [1, 65, 3000])
def test_the_curve_of_many_ids_is_exact(experts):
    """Popular ids, ids in turn, which are furthest apart, and ids that come once."""
    random = np.random.default_rng(experts)
    skewed = (experts * random.random(20 * experts) ** 3).astype(np.uint32)
    ids = np.concatenate([skewed[: experts // 2], np.tile(np.arange(experts, dtype=np.uint32), 3), skewed])
    for stream in (ids, ids[:0], ids[: experts // 2], ids[::-1]):
        assert lru_curve.lru_hits(stream, experts).tolist() == reuse.lru_hits(stream, experts).tolist()


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


def plain_requests(trace, batch: int) -> list[list[tuple[int, int]]]:
    """(layer, expert) of each request, by step and layer."""
    sequences = [list(range(start, end)) for start, end in pairwise(sequence_starts(trace))]
    asked = []
    for first in range(0, len(sequences), batch):
        together = sequences[first : first + batch]
        for step in range(max(map(len, together))):
            rows = [rows[step] for rows in together if step < len(rows)]
            for layer in range(len(trace.router.layers)):
                chosen = [(layer, int(expert)) for row in rows for expert in trace.experts[row, layer]]
                asked.append(list(dict.fromkeys(chosen)))
    return asked


@settings(deadline=None)
@given(trace=traces(), batch=st.integers(1, 6))
def test_streams_equal_plain_ones(trace, batch):
    requests, asked = requests_of(trace, batch), plain_requests(trace, batch)
    merged = [pair for lookup in asked for pair in lookup]
    assert list(zip(requests.layers.tolist(), requests.ids.tolist(), strict=True)) == merged
    assert requests.widest == max(map(len, asked))
    experts = trace.router.experts
    assert requests.of_all_layers().tolist() == [layer * experts + expert for layer, expert in merged]
    for layer in range(len(trace.router.layers)):
        assert requests.of_layer(layer).tolist() == [expert for other, expert in merged if other == layer]


@settings(deadline=None)
@given(trace=traces())
def test_without_batching_the_streams_are_those_of_the_exact_curves(trace):
    requests = requests_of(trace)
    assert requests.widest == trace.router.top_k
    for policy, curve in (("lru", reuse.lru_hits), ("belady", reuse.belady_hits)):
        rates = reuse.hit_rates(trace, curve)
        for capacity in capacities(requests, per_layer=True):
            outcome = simulate(requests, policy, capacity, per_layer=True)
            np.testing.assert_allclose(outcome.hit_rates, rates[:, capacity - 1])


@settings(max_examples=30, deadline=None)
@given(trace=traces(), batch=st.integers(1, 4), policy=st.sampled_from(list(policies.POLICIES)))
def test_misses_by_layer_of_a_shared_cache(trace, batch, policy):
    requests = requests_of(trace, batch)
    layers = len(trace.router.layers)
    possible = capacities(requests, per_layer=False)
    for capacity in (possible[0], possible[len(possible) // 2], possible[-1]):
        outcome = simulate(requests, policy, capacity, per_layer=False)
        stream = requests.of_all_layers()
        assert outcome.misses.sum() == policies.misses(policy, stream, layers * trace.router.experts, capacity)
        assert outcome.requests.tolist() == [len(requests.of_layer(layer)) for layer in range(layers)]
    # With room for all, every layer misses each of its experts once.
    assert outcome.misses.tolist() == [len(np.unique(requests.of_layer(layer))) for layer in range(layers)]


def test_all_layers_in_turn_defeat_a_shared_lru_cache_that_is_too_small():
    requests = requests_of(make_trace(np.tile(np.arange(4), (50, 6, 1)), [50], 4))
    assert simulate(requests, "lru", 23, per_layer=False).hit_rate == 0
    assert simulate(requests, "lru", 24, per_layer=False).hit_rate == 1 - 1 / 50


def sim(*arguments: str):
    """Run `prophet-moe sim run` on a recorded trace."""
    return run("sim", "run", "--trace", str(RECORDED), *arguments)


def test_the_command_prints_what_the_exact_curve_says():
    trace = cleaned(store.read_trace(RECORDED))
    rates = reuse.hit_rates(trace)[:, 3]
    options = ("--strategy", "lru", "--capacity", "4")
    result = json.loads(sim(*options, "--json").stdout)
    np.testing.assert_allclose([layer["hit_rate"] for layer in result["layers"]], rates)
    np.testing.assert_allclose(result["hit_rate"], rates.mean())
    assert [layer["layer"] for layer in result["layers"]] == list(trace.router.layers)
    assert result["requests"] == trace.experts.size
    assert result["misses"] == sum(layer["misses"] for layer in result["layers"])
    shown = sim(*options).stdout
    assert all(
        text in shown for text in ("small-6x8-top2: lru, 4 experts in each layer, batch 1", f"{rates.mean():.4f}")
    )
    assert f"{result['misses']:,}" in shown


def test_the_command_merges_a_batch_and_shares_a_cache():
    requests = requests_of(cleaned(store.read_trace(RECORDED)), 4)
    outcome = simulate(requests, "lfu", 20, per_layer=False)
    shared = json.loads(sim("--strategy", "lfu", "--capacity", "20", "--batch", "4", "--global", "--json").stdout)
    assert (shared["scope"], shared["batch"]) == ("global", 4)
    assert (shared["requests"], shared["misses"]) == (len(requests.ids), outcome.misses.sum())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--strategy", "arc"], "--strategy: unknown strategy 'arc', expected one of lru, fifo, lfu, belady"),
        (["--capacity", "1"], "--capacity: got 1, expected at least 2 (experts that a batch of 1 asks of one layer"),
        (["--capacity", "7", "--batch", "16"], "--capacity: got 7, expected at least 8 "),
        (["--capacity", "9"], "--capacity: got 9, expected at least 2 "),
        (["--capacity", "49", "--global"], "and at most 48 (experts of all layers together)"),
        (["--batch", "0"], "--batch: got 0, expected 1 to the "),
        (["--batch", "261"], "--batch: got 261, expected 1 to the "),
        (["--trace", "none"], "none: holds no metadata.json"),
    ],
)
def test_mistakes_are_one_line(arguments, problem):
    done = sim("--strategy", "lru", "--capacity", "4", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert problem in done.stderr


def test_a_trace_without_decoded_tokens_is_refused(tmp_path):
    trace = uniform_trace([5], 2, 4, 2)
    trace.phase[:] = PREFILL
    store.write_trace(tmp_path, trace)
    done = sim("--trace", str(tmp_path), "--strategy", "lru", "--capacity", "2")
    assert done.stderr.startswith(f"error: {tmp_path}: holds no decoded token") and done.stderr.count("\n") == 1
