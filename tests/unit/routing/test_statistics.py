"""Statistics of routing traces against plain references, closed forms, enumeration, and values of a published trace."""

import math
import warnings
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.routing import sequences, statistics
from prophet_moe.routing.law import uniform_occupancy
from prophet_moe.routing.trace import Trace, sequence_starts
from tests.builders import make_trace, published_trace, traces, uniform_trace


def neighbours(trace: Trace) -> list[tuple[int, int]]:
    """Pairs of row numbers of `trace` whose tokens follow one another in a sequence, by a plain loop."""
    return [
        (a, b)
        for a, b in pairwise(range(len(trace)))
        if trace.sequence[a] == trace.sequence[b] and trace.position[a] + 1 == trace.position[b]
    ]


@settings(deadline=None)
@given(trace=traces())
def test_load(trace):
    load = statistics.load(trace)
    for layer, shares in enumerate(load):
        counts = Counter(trace.experts[:, layer].ravel().tolist())
        total = len(trace) * trace.router.top_k
        assert shares.tolist() == pytest.approx([counts[e] / total for e in range(trace.router.experts)])
        assert sequences.popularity(trace)[layer].tolist() == [counts[e] / len(trace) for e in range(len(shares))]
        entropy = -sum(n / total * math.log2(n / total) for n in counts.values())
        assert statistics.load_entropy(load)[layer] == pytest.approx(entropy, abs=1e-12)
        assert statistics.load_skew(load)[layer] == pytest.approx(max(counts.values()) / total * trace.router.experts)


def test_load_of_equal_and_of_single_experts():
    load = np.array([[0.25] * 4, [1.0, 0, 0, 0]])
    assert statistics.load_entropy(load).tolist() == [2, 0]
    assert statistics.load_skew(load).tolist() == [1, 4]


@settings(deadline=None)
@given(trace=traces())
def test_persistence(trace):
    pairs, experts = neighbours(trace), trace.experts
    if not pairs:
        return
    for layer in range(experts.shape[1]):
        common = [len(set(experts[a, layer]) & set(experts[b, layer])) / trace.router.top_k for a, b in pairs]
        assert statistics.consecutive_overlap(trace)[layer] == pytest.approx(np.mean(common))
        same = [experts[a, layer, 0] == experts[b, layer, 0] for a, b in pairs]
        assert statistics.first_choice_repetition(trace)[layer] == pytest.approx(np.mean(same))


def test_first_choices_need_rank_order():
    trace = replace(uniform_trace([3], 1, 4, 2), ranked=False, token=np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="rank order"):
        statistics.first_choice_repetition(trace)
    with pytest.raises(ValueError, match="rank order"):
        statistics.token_information(trace, "first")
    with pytest.raises(ValueError, match="token ids"):
        statistics.token_information(replace(trace, token=None))


def test_uniform_choices_follow_the_closed_forms():
    experts, top_k, batches = 16, 3, (1, 2, 4, 8, 16)
    trace = uniform_trace([60] * 80, 4, experts, top_k)
    assert statistics.consecutive_overlap(trace).mean() == pytest.approx(top_k / experts, rel=0.02)
    assert statistics.first_choice_repetition(trace).mean() == pytest.approx(1 / experts, rel=0.1)
    law = uniform_occupancy(np.full(5, experts), np.full(5, top_k), np.array(batches))
    for batching in ("decode_step", "prefill"):
        found = statistics.distinct_by_batch(trace, batches, batching).mean(axis=1)
        np.testing.assert_allclose(found, law, rtol=0.01)
    recall = statistics.next_layer_recall(*sequences.split_by_sequence(trace, 0.5, 0))
    for ranking in (recall.naive_bayes, recall.posterior, recall.popularity):
        np.testing.assert_allclose(ranking.mean(axis=1), [top_k / experts, 2 * top_k / experts], rtol=0.05)


def test_duplicates_go_and_the_first_of_them_stays():
    trace = uniform_trace([2, 3, 2, 2], 2, 8, 2)
    trace.experts[5:7] = trace.experts[:2]
    assert np.unique(sequences.without_duplicates(trace).sequence).tolist() == [0, 1, 3]


@settings(deadline=None)
@given(trace=traces(), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_split_keeps_sequences_whole(trace, share, seed):
    parts = [set(part.sequence.tolist()) for part in sequences.split_by_sequence(trace, share, seed)]
    assert parts[0] | parts[1] == set(trace.sequence.tolist())
    assert not parts[0] & parts[1]
    assert len(parts[0]) == round(share * (len(sequence_starts(trace)) - 1))


def plain_scores(train: Trace, layer: int, before: list[int], ranking: str) -> list[float]:
    """The score of every expert of a layer, from plain counts."""
    experts = range(train.router.experts)
    rows = [(set(a), set(b)) for a, b in train.experts[:, layer - 1 : layer + 1].tolist()]
    joint = [[1 + sum(j in a and e in b for a, b in rows) for e in experts] for j in experts]
    count = [1 + sum(e in b for _, b in rows) for e in experts]
    prior = [math.log(n / sum(count)) for n in count]
    if ranking == "popularity":
        return prior
    if ranking == "posterior":
        return [sum(math.log(joint[j][e] / sum(joint[j])) for j in before) for e in experts]
    return [prior[e] + sum(math.log(joint[j][e] / sum(row[e] for row in joint)) for j in before) for e in experts]


@settings(max_examples=25, deadline=None)
@given(trace=traces(), seed=st.integers(0, 9))
def test_next_layer_recall(trace, seed):
    """Between what equal scores give if all of them rank after the true choice, and if all rank before it."""
    train, test = sequences.split_by_sequence(trace, 0.5, seed)
    if not len(train) or not len(test):
        return
    ranks = (1, trace.router.top_k, trace.router.experts)
    found = statistics.next_layer_recall(train, test, ranks)
    for ranking in ("naive_bayes", "posterior", "popularity"):
        recall = getattr(found, ranking)
        assert recall.shape == (3, len(trace.router.layers) - 1)
        for layer in range(1, len(trace.router.layers)):
            best, worst = [], []
            for before, now in test.experts[:, layer - 1 : layer + 1].tolist():
                scores = plain_scores(train, layer, before, ranking)
                best += [sum(other > scores[e] + 1e-9 for other in scores) for e in now]
                worst += [sum(other > scores[e] - 1e-9 for other in scores) - 1 for e in now]
            for value, rank in zip(recall[:, layer - 1], ranks, strict=True):
                assert np.mean(np.less(worst, rank)) <= value <= np.mean(np.less(best, rank))


def test_recall_is_whole_where_a_layer_decides_the_next():
    lengths = [100] * 40
    first = uniform_trace(lengths, 1, 12, 3).experts
    trace = make_trace(np.concatenate([first, (first + 5) % 12], axis=1), lengths, 12)
    found = statistics.next_layer_recall(*sequences.split_by_sequence(trace, 0.5, 0))
    assert found.naive_bayes.min() == found.posterior.min() == 1
    assert found.popularity[0, 0] < 0.5


@settings(deadline=None)
@given(trace=traces(), choice=st.sampled_from(["first", "any"]))
def test_token_information(trace, choice):
    chosen = trace.experts[:, :, :1] if choice == "first" else trace.experts
    for layer in range(chosen.shape[1]):
        pairs = [(t, e) for t, row in zip(trace.token.tolist(), chosen[:, layer].tolist(), strict=True) for e in row]
        joint, tokens, experts = Counter(pairs), Counter(t for t, _ in pairs), Counter(e for _, e in pairs)
        bits = sum(n / len(pairs) * math.log2(n * len(pairs) / tokens[t] / experts[e]) for (t, e), n in joint.items())
        assert statistics.token_information(trace, choice).bits[layer] == pytest.approx(bits, abs=1e-9)


def test_token_information_is_full_or_none():
    token = np.tile(np.arange(8, dtype=np.int32), 100)
    noise = np.random.default_rng(0).integers(0, 8, 800)
    trace = make_trace(np.stack([token, noise], axis=1)[:, :, None], [800], 8, tokens=token)
    found = statistics.token_information(trace)
    assert found.bits[0] == pytest.approx(3)
    assert found.bits[1] == pytest.approx(found.control[1], abs=0.03)
    assert found.control.max() < 0.1


@settings(deadline=None)
@given(trace=traces(), seed=st.integers(0, 99), width=st.integers(1, 6), wanted=st.sets(st.integers(1, 6), min_size=1))
def test_distinct_of_given_rows(trace, seed, width, wanted):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(trace), (4, width))
    rows[np.arange(width) >= rng.integers(1, width + 1, 4)[:, None]] = -1
    sizes = [size for size in sorted(wanted) if size <= width]
    counts, alone = statistics._counted(trace.experts, rows, trace.router.experts, np.array(sizes, np.int64))
    for place, batch in enumerate(sizes):
        full = [line[:batch] for line in rows.tolist() if line[batch - 1] >= 0]
        for layer in range(trace.experts.shape[1]):
            chosen = [Counter(trace.experts[line, layer].ravel().tolist()) for line in full]
            distinct = np.bincount([len(found) for found in chosen], minlength=counts.shape[2])
            assert counts[place, layer].tolist() == distinct.tolist()
            assert alone[place, layer] == sum(list(found.values()).count(1) for found in chosen)


def test_distinct_by_batch_takes_sizes_in_any_order():
    trace = uniform_trace([6] * 9, 2, 8, 2)
    found = statistics.distinct_by_batch(trace, (4, 1, 4, 2))
    ascending = statistics.distinct_by_batch(trace, (1, 2, 4))
    np.testing.assert_array_equal(found, ascending[[2, 0, 2, 1]])


@settings(deadline=None)
@given(trace=traces(), seed=st.integers(0, 99))
def test_rows_of_batches(trace, seed):
    """Decode: one step, other sequences, all that run; prefill: neighbours, for as long as there are any."""
    starts = sequence_starts(trace)
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, np.diff(starts).max(), 5)
    pool = np.repeat(np.arange(len(starts) - 1), rng.integers(0, 3, len(starts) - 1))
    for step, line in zip(steps, statistics._decode_batches(starts, pool, steps, 4, rng).tolist(), strict=True):
        chosen = [row for row in line if row >= 0]
        assert line == chosen + [-1] * (4 - len(chosen))
        running = {int(starts[s] + step) for s in pool if starts[s] + step < starts[s + 1]}
        assert set(chosen) <= running
        assert len(set(chosen)) == len(chosen) == min(4, len(running))
    for line in statistics._staggered_batches(starts, pool, 5, 4, rng).tolist():
        chosen = [row for row in line if row >= 0]
        assert line == chosen + [-1] * (4 - len(chosen))
        owners = {int(np.searchsorted(starts, row, side="right")) - 1 for row in chosen}
        assert owners <= set(pool.tolist())
        assert len(owners) == len(chosen) == min(4, len(set(pool.tolist())))
    first = rng.integers(0, len(trace), 5)
    pairs = set(neighbours(trace))
    rows = statistics._prefill_batches(sequences.follows(trace), first, 4)
    for start, line in zip(first, rows.tolist(), strict=True):
        expected = [int(start)]
        while len(expected) < 4 and (expected[-1], expected[-1] + 1) in pairs:
            expected.append(expected[-1] + 1)
        assert line == expected + [-1] * (4 - len(expected))


def test_distinct_is_the_mean_over_all_batches():
    trace = uniform_trace([3, 2, 4, 3], 2, 8, 2, seed=5)
    starts, top_k = sequence_starts(trace), trace.router.top_k

    def distinct(rows):
        return np.array([len(set(trace.experts[list(rows), layer].ravel().tolist())) for layer in range(2)])

    for batch in (2, 3):
        decoded, weights = [], []
        for step in range(4):
            running = [start + step for start, end in pairwise(starts) if start + step < end]
            if len(running) >= batch:
                decoded.append(np.mean([distinct(rows) for rows in combinations(running, batch)], axis=0))
                weights.append(len(running))
        expected = np.average(decoded, axis=0, weights=weights)
        found = statistics.distinct_by_batch(trace, (1, batch), "decode_step", samples=40_000)
        np.testing.assert_allclose(found, [[top_k] * 2, expected], rtol=0.01)
        staggered = [
            np.mean([distinct(rows) for rows in product(*(range(*pair) for pair in chosen))], axis=0)
            for chosen in combinations(pairwise(starts), batch)
        ]
        found = statistics.distinct_by_batch(trace, (1, batch), "staggered", samples=40_000)
        np.testing.assert_allclose(found, [[top_k] * 2, np.mean(staggered, axis=0)], rtol=0.01)
        windows = [range(a, a + batch) for start, end in pairwise(starts) for a in range(start, end - batch + 1)]
        found = statistics.distinct_by_batch(trace, (1, batch), "prefill", samples=40_000)
        np.testing.assert_allclose(found, [[top_k] * 2, np.mean([distinct(w) for w in windows], axis=0)], rtol=0.01)
    assert np.isnan(statistics.distinct_by_batch(trace, (5,))).all()


def test_sequences_count_as_often_as_they_are_drawn():
    trace = uniform_trace([4, 4, 4], 1, 16, 2, seed=3)
    alone = trace.select(trace.sequence == 1)
    found = statistics.distinct_by_batch(trace, (3,), "prefill", samples=20_000, copies=np.array([0, 7, 0]))
    np.testing.assert_allclose(found, statistics.distinct_by_batch(alone, (3,), "prefill", samples=20_000), rtol=0.02)
    starts, copies = sequence_starts(trace), np.array([1, 0, 3])
    drawn = statistics._weighted_tokens(starts, copies, 60_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(drawn, minlength=12) / 5000, np.repeat(copies * 3 / 4, 4), atol=0.15)


def test_bootstrap_interval():
    trace = uniform_trace([20] * 40, 2, 16, 2)
    batches = (1, 4, 16)
    low, high = statistics.bootstrap_distinct(trace, batches, resamples=60, seed=1)
    point = statistics.distinct_by_batch(trace, batches).mean(axis=1)
    assert (low <= point).all() and (point <= high).all()
    assert low[0] == high[0] == 2
    again = statistics.bootstrap_distinct(trace, batches, resamples=60, seed=1)
    np.testing.assert_array_equal((low, high), again)


def test_bootstrap_without_any_batch_has_no_interval():
    """Twelve sequences drawn anew are hardly ever twelve different ones; NumPy warned of that."""
    trace = uniform_trace([5] * 12, 2, 8, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = statistics.bootstrap_distinct(trace, (1, 12), "staggered", resamples=9, seed=1)
    assert low[0] == high[0] == 2
    assert np.isnan([low[1], high[1]]).all()


@settings(deadline=None)
@given(trace=traces(), seed=st.integers(0, 9))
def test_shuffled_permutes_within_layers(trace, seed):
    control = statistics.shuffled(trace, seed)
    for layer in range(trace.experts.shape[1]):
        assert sorted(control.experts[:, layer].tolist()) == sorted(trace.experts[:, layer].tolist())


def test_shuffled_loses_persistence():
    trace = make_trace(np.repeat(uniform_trace([200], 2, 16, 2).experts, 10, axis=0), [2000], 16)
    assert statistics.consecutive_overlap(trace).min() > 0.9
    assert statistics.consecutive_overlap(statistics.shuffled(trace, 0)).max() < 0.2


def test_published_decode_traces():
    """gpt-oss-20b against the statistics others measured; where the convention matters, it is said."""
    trace = published_trace()
    assert (len(trace), len(sequence_starts(trace)) - 1) == (162_219, 494)
    assert statistics.consecutive_overlap(trace).mean() == pytest.approx(0.442, abs=5e-4)
    recall = statistics.next_layer_recall(*sequences.split_by_sequence(trace, 0.5, 0))
    # Published as naive Bayes: .599 and .804, popularity .283 and .499; the split is not known.
    np.testing.assert_allclose(recall.posterior.mean(axis=1), [0.599, 0.804], atol=0.003)
    np.testing.assert_allclose(recall.popularity.mean(axis=1), [0.283, 0.499], atol=0.005)
    np.testing.assert_allclose(recall.naive_bayes.mean(axis=1), [0.6253, 0.8328], atol=5e-4)
    # Published as 17.7-17.8: tokens of any steps. At one step fewer, for the first tokens of answers are alike.
    assert statistics.distinct_by_batch(trace, (8,), "staggered").mean() == pytest.approx(17.75, abs=0.1)
    assert statistics.distinct_by_batch(trace, (8,)).mean() == pytest.approx(17.47, abs=0.06)
    assert statistics.distinct_by_batch(trace, (8,), "prefill").mean() == pytest.approx(12.86, abs=0.1)
