"""The synthetic generator: its draws against a plain reference, closed forms, and how well it follows a trace."""

import hashlib
import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.routing import sequences, statistics, synthetic
from prophet_moe.routing.law import uniform_occupancy
from prophet_moe.routing.reuse import hit_rates
from prophet_moe.routing.synthetic import Parameters, Sample, fit, generate, generator, partners
from prophet_moe.routing.trace import Router, Trace, check
from tests.builders import make_trace, published_trace

BATCHES = (1, 2, 4, 8, 16, 32, 64)
MASK = 2**64 - 1


def parameters(layers=3, experts=16, top_k=4, seed=0, **changes) -> Parameters:
    """Skewed load and some of every structure."""
    rng = np.random.default_rng(seed)
    load, weights = rng.dirichlet(np.full(experts, 2.0), (2, layers)) + 1e-3
    router = Router("test", experts, top_k, tuple(range(layers)))
    structure = [np.full(layers, value) for value in (0.3, 0.4, 1.0)]
    return replace(Parameters(router, load, weights, *structure), **changes)


def mixed(state: int) -> int:
    """The output function of the generator splitmix64, computed in Python's unbounded whole numbers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
    return state ^ (state >> 31)


def drawn(cut, other, bits: int) -> int:
    """An expert from alias tables."""
    cell = (bits & 0xFFFFF) * len(cut) >> 20
    return cell if bits >> 20 & 0xFFFFF < cut[cell] else int(other[cell])


def plain_sequence(given: Parameters, tokens: int, seed: int, sequence: int) -> list[list[list[int]]]:
    """One sequence, choice by choice."""
    layers, experts = given.load.shape
    rng = np.random.default_rng((seed, sequence))
    lasting = given.affinity[:, None] * rng.standard_normal((layers, experts))
    state = int(rng.integers(2**64, dtype=np.uint64))
    drifts = given.drift.any()
    length = max(1, round(given.drift_tokens[given.drift > 0].min() / 4)) if drifts else tokens
    kept = np.exp(-length / given.drift_tokens)[:, None]
    drifting = np.zeros((layers, experts))
    partner, ratio = partners(given.load)
    rows: list[list[list[int]]] = []
    for token in range(tokens):
        if token % length == 0:
            fresh = rng.standard_normal((layers, experts)) if drifts else np.zeros((layers, experts))
            drifting = kept * drifting + np.sqrt(1 - kept**2) * fresh if token else fresh
            favour = np.exp(lasting + given.drift[:, None] * drifting)
            cut, other = generator.alias_tables(given.weights * favour)
        row: list[list[int]] = []
        for layer in range(layers):
            chosen: list[int] = []
            for rank in range(given.router.top_k):
                state = state + 0x9E3779B97F4A7C15 & MASK
                bits = mixed(state)
                follow = 0.0
                if layer:
                    before = row[layer - 1][rank]
                    odds = ratio[layer, before] * np.exp(given.coupling[layer]) * favour[layer, partner[layer, before]]
                    follow = odds / (1 + odds)
                keep = follow + (1 - follow) * given.persistence[layer]
                if bits >> 40 < int(follow * 2**24):
                    expert = int(partner[layer, before])
                elif rows and bits >> 40 < int(keep * 2**24):
                    expert = rows[-1][layer][rank]
                else:
                    expert = drawn(cut[layer], other[layer], bits)
                redraws = 0
                while expert in chosen:
                    state = state + 0x9E3779B97F4A7C15 & MASK
                    redraws += 1
                    few = redraws <= generator.REDRAWS
                    expert = drawn(cut[layer], other[layer], mixed(state)) if few else (expert + 1) % experts
                chosen.append(expert)
            row.append(chosen)
        rows.append(row)
    return rows


@pytest.mark.parametrize("shape", [(3, 16, 4), (1, 5, 5), (2, 70, 3), (4, 8, 1)])
def test_generator_draws_what_the_reference_draws(shape):
    given = parameters(*shape)
    trace = check(generate(given, 3, 40, seed=7), "synthetic")
    for sequence in range(3):
        assert trace.experts[trace.sequence == sequence].tolist() == plain_sequence(given, 40, 7, sequence)


@pytest.mark.parametrize(("drift", "times"), [([1.5], [9.0]), ([0.0, 0.5, 2.0], [1.0, 20.0, 12.0])])
def test_generator_drifts_as_the_reference_drifts(drift, times):
    given = parameters(drift=np.array(drift), drift_tokens=np.array(times))
    trace = check(generate(given, 2, 40, seed=7), "synthetic")
    for sequence in range(2):
        assert trace.experts[trace.sequence == sequence].tolist() == plain_sequence(given, 40, 7, sequence)


@pytest.mark.parametrize(
    ("shape", "digest"),
    [((3, 16, 4), "c57a82c1c9e0c1e3"), ((1, 5, 5), "15fb5d25cee95bea"), ((2, 70, 3), "a823346d2ffc6448")],
)
def test_without_drift_traces_are_what_they_always_were(shape, digest):
    """The digests are of traces made before the generator knew of drift."""
    still = parameters(*shape, drift=np.zeros(shape[0]), drift_tokens=np.full(shape[0], 9.0))
    for each in (parameters(*shape), still):
        assert hashlib.sha256(generate(each, 3, 40, seed=7).experts.tobytes()).hexdigest()[:16] == digest


def test_drift_is_forgotten_in_its_correlation_time():
    """Without any other structure, tokens far apart are independent; the closer, the more experts they share."""
    even, none = np.full((2, 32), 1 / 32), np.zeros(2)
    router = Router("test", 32, 4, (0, 1))
    given = Parameters(router, even, even, np.full(2, -np.inf), none, none, np.full(1, 1.5), np.full(1, 10.0))
    chosen = generate(given, 60, 200, seed=0).experts.reshape(60, 200, 2, 4)
    shared = [
        (chosen[:, lag:, :, :, None] == chosen[:, :-lag, :, None, :]).any(axis=-1).mean() for lag in (1, 10, 20, 80)
    ]
    assert shared[0] > shared[1] > shared[2] > shared[3]
    assert shared[0] > 2 * shared[3]
    assert shared[3] == pytest.approx(4 / 32, rel=0.05)


def test_generator_ends_where_one_expert_has_all_the_weight():
    given = parameters(2, 6, 6, weights=np.array([[1.0, 0, 0, 0, 0, 0]] * 2))
    trace = check(generate(given, 1, 5, seed=0), "synthetic")
    assert trace.experts.tolist() == plain_sequence(given, 5, 0, 0)


def test_splitmix64_gives_the_published_numbers():
    state, golden = 0, 0x9E3779B97F4A7C15
    for expected in (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F):
        state = state + golden & MASK
        assert int(generator.mix(np.uint64(state))) == mixed(state) == expected


@settings(deadline=None)
@given(weights=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40))
def test_alias_tables_hold_the_weights(weights):
    cut, other = generator.alias_tables(np.array([weights]))
    whole = 2**generator.ALIAS_BITS
    share = np.zeros(len(weights))
    for cell, side in enumerate(cut[0]):
        share[cell] += side / whole
        share[other[0, cell]] += 1 - side / whole
    np.testing.assert_allclose(share / len(weights), np.array(weights) / sum(weights), atol=2e-6)


def test_draw_follows_the_tables():
    weights = np.array([[1.0, 5.0, 2.0, 8.0, 4.0]])
    cut, other = generator.alias_tables(weights)
    bits = np.random.default_rng(0).integers(2**64, size=100_000, dtype=np.uint64)
    counts = np.bincount([generator.draw(cut[0], other[0], each) for each in bits], minlength=5)
    np.testing.assert_allclose(counts / 1e5, weights[0] / 20, atol=0.006)


def test_partners_have_equal_rank():
    partner, ratio = partners(np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]))
    assert partner[1].tolist() == [2, 1, 0]
    np.testing.assert_allclose(ratio, [[0, 0, 0], [1, 2 / 3, 1 / 2]])


@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_seeds_decide_whatever_the_number_of_sequences(drift):
    given = parameters(drift=np.full(1, drift), drift_tokens=np.full(1, 8.0))
    few, more = generate(given, 2, 30, seed=1), generate(given, 5, 30, seed=1)
    np.testing.assert_array_equal(few.experts, more.experts[:60])
    assert (few.experts != generate(given, 2, 30, seed=2).experts).any()
    assert (few.experts[:30] != few.experts[30:]).any()


def test_json_keeps_every_parameter():
    given = parameters(drift=np.array([0.5, 1.0, 0.0]), drift_tokens=np.array([8.0, 20.0, 1.0]))
    again = Parameters.from_json(given.to_json())
    assert again.router == given.router
    for field in fields(Parameters)[1:]:
        np.testing.assert_array_equal(getattr(again, field.name), getattr(given, field.name))


def test_json_without_drift_is_read_as_no_drift():
    content = {name: value for name, value in json.loads(parameters().to_json()).items() if "drift" not in name}
    assert not Parameters.from_json(json.dumps(content)).drift.any()


def test_without_structure_choices_are_uniform():
    layers, experts, top_k = 2, 16, 4
    even, none = np.full((layers, experts), 1 / experts), np.zeros(layers)
    router = Router("test", experts, top_k, (0, 1))
    trace = generate(Parameters(router, even, even, np.full(layers, -np.inf), none, none), 80, 80, seed=0)
    assert statistics.consecutive_overlap(trace).mean() == pytest.approx(top_k / experts, rel=0.02)
    law = uniform_occupancy(np.full(7, experts), np.full(7, top_k), np.array(BATCHES))
    np.testing.assert_allclose(statistics.distinct_by_batch(trace, BATCHES).mean(axis=1), law, rtol=0.01)


@pytest.mark.parametrize(
    ("name", "moment"), [("persistence", "overlap"), ("coupling", "recall"), ("affinity", "distinct")]
)
def test_parameters_move_their_moments(name, moment):
    low, high = (parameters(**{name: np.full(3, value)}) for value in (0.1, 0.9))
    found = [
        getattr(synthetic.moments(generate(given, 100, 40, 0), 8, Sample(), 0), moment).mean() for given in (low, high)
    ]
    assert found[0] > found[1] if moment == "distinct" else found[0] < found[1]


def skewed_trace(sequences=70, tokens=100, layers=3, experts=16, top_k=2) -> Trace:
    """From another model than the generator's: topics with own experts, tokens that stay, layers that shift."""
    rng = np.random.default_rng(11)
    popular = rng.dirichlet(np.full(experts, 3.0))
    rows = np.empty((sequences, tokens, layers, top_k), int)
    for sequence in rows:
        topic = rng.dirichlet(popular * 12) + 1e-3
        for token in range(tokens):
            if token == 0 or rng.random() > 0.35:
                sequence[token, 0] = rng.choice(experts, top_k, replace=False, p=topic / topic.sum())
            else:
                sequence[token, 0] = sequence[token - 1, 0]
            for layer in range(1, layers):
                shift = rng.choice(3, p=[0.7, 0.2, 0.1]) + layer
                sequence[token, layer] = (sequence[token, layer - 1] * 5 + shift) % experts
    return make_trace(rows.reshape(-1, layers, top_k), [tokens] * sequences, experts)


def assert_alike(source: Trace, made: Trace, tolerance: float = 0.05) -> None:
    """u(B), overlap and LRU hits at 25, 50 and 75 % of the experts, means over layers, within `tolerance`."""
    capacities = np.array([1, 2, 3]) * source.router.experts // 4 - 1
    for measure in (
        lambda trace: statistics.distinct_by_batch(trace, BATCHES, samples=1000).mean(axis=1),
        lambda trace: statistics.consecutive_overlap(trace).mean(),
        lambda trace: hit_rates(trace).mean(axis=0)[capacities],
    ):
        np.testing.assert_allclose(measure(made), measure(source), rtol=tolerance)


def test_a_fitted_generator_follows_its_trace():
    source = skewed_trace()
    fitted = fit(source, rounds=20)
    assert_alike(source, generate(fitted, 200, 100, seed=99))
    assert fit(source, rounds=2).to_json() == fit(source, rounds=2).to_json()


def test_a_generator_fitted_to_a_control_finds_no_structure():
    control = statistics.shuffled(skewed_trace(), 0)
    assert_alike(control, generate(fit(control, rounds=12), 200, 100, seed=99))


def test_a_generator_fitted_to_published_decode_traces():
    source = published_trace()
    made = generate(fit(source), 494, 328, seed=99)
    assert_alike(source, made)
    recalls = [
        statistics.next_layer_recall(*sequences.split_by_sequence(trace, 0.5, 0), (4,)).naive_bayes.mean()
        for trace in (source, made)
    ]
    assert recalls[1] == pytest.approx(recalls[0], rel=0.05)
