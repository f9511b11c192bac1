"""Predictors of experts against plain references, their judgement where the answer is known, and the recorded ones."""

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from prophet_moe.errors import UserError
from prophet_moe.predict import evaluate, gate
from prophet_moe.predict.context import LAYERS_BEFORE, LOOKAHEADS, SOURCES, context_of, network_bytes, split
from prophet_moe.predict.counting import BACKING, COUNTING
from prophet_moe.predict.evaluate import BASELINES, BINS, CONTROL, GATE, ORACLE, PROPHET, Sequences, true_ranks
from prophet_moe.predict.gate import RouterInputs, read_router_inputs
from prophet_moe.predict.network import WEIGHTS, Network, read_network, read_trained
from prophet_moe.routing import sequences, store
from prophet_moe.routing.trace import DECODE, PREFILL, Origin, Trace, sequence_starts
from studies.prediction.compute import prediction_by_domain, prediction_summary
from tests.builders import make_trace, random_network, traces, uniform_trace
from tests.conftest import ROOT
from tests.unit.routing.test_statistics import neighbours

PREDICTORS, TRACES = ROOT / "resources/predictors", ROOT / "resources/traces"
RECORDED = sorted(
    path.parent.name for path in PREDICTORS.glob("*/metadata.json") if (TRACES / path.parent.name).is_dir()
)
"""Those whose trace is committed too."""
SMALL = "small-6x8-top2"


@cache
def recorded_trace(name: str) -> Trace:
    """The trace `name` of resources/traces/, read once."""
    return store.read_trace(TRACES / name)


@st.composite
def deep_traces(draw) -> Trace:
    """Up to seven layers, some sequences of one token, and positions that skip."""
    experts = draw(st.integers(1, 9))
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    return uniform_trace(
        lengths,
        draw(st.integers(1, 7)),
        experts,
        draw(st.integers(1, experts)),
        draw(st.integers(0, 10**6)),
        gaps=draw(st.sets(st.integers(0, sum(lengths) - 1))),
    )


@settings(deadline=None, max_examples=50)
@given(trace=deep_traces(), lookahead=st.sampled_from(LOOKAHEADS))
def test_inputs_are_what_a_loop_over_tokens_sees(trace, lookahead):
    context, experts, top_k = context_of(trace), trace.router.experts, trace.router.top_k
    before = {b: a for a, b in neighbours(trace)}
    for layer in range(len(trace.router.layers)):
        expected = []
        for row in range(len(trace)):
            sources = [
                trace.experts[row, known].tolist() if known >= 0 else None
                for known in (layer - lookahead - back for back in range(LAYERS_BEFORE))
            ]
            sources.append(trace.experts[before[row], layer].tolist() if row in before else None)
            seen = []
            for source, ids in enumerate(sources):
                seen += [context.absent] * top_k if ids is None else [source * experts + e for e in ids]
            expected.append(seen)
        found = context.inputs(layer, lookahead)
        assert found.shape == (len(trace), SOURCES * top_k)
        assert found.tolist() == expected


@settings(deadline=None, max_examples=50)
@given(trace=traces(), flags=st.lists(st.booleans(), min_size=5, max_size=5), data=st.data())
def test_repeated_sequences_are_left_out_and_prompts_stay(trace, flags, data):
    """The first of those alike stays, unless it is flagged itself; halves are of what stays."""
    starts = sequence_starts(trace)
    same = [number for number in range(len(starts) - 1) if np.diff(starts)[number] == starts[1]]
    for copy in data.draw(st.sets(st.sampled_from(same))):
        trace.experts[starts[copy] : starts[copy + 1]] = trace.experts[: starts[1]]
    trace.phase[:] = 0
    trace.phase[starts[1:] - 1] = 1
    trace = replace(trace, origin=Origin("test", "", notes={"sequences": [{"has_repetition": flag} for flag in flags]}))

    if all(flags[: len(starts) - 1]):
        with pytest.raises(UserError, match="flags every sequence as repetitive, expected at least 1"):
            sequences.without_repetition(trace)
        return
    stays: dict[bytes, int] = {}
    for number in range(len(starts) - 1):
        if not flags[number]:
            stays.setdefault(trace.experts[starts[number] : starts[number + 1]].tobytes(), number)
    kept = sequences.without_repetition(trace)
    assert sorted(stays.values()) == np.unique(kept.sequence).tolist()
    np.testing.assert_array_equal(kept.phase, trace.phase[np.isin(trace.sequence, list(stays.values()))])

    learned, test = (set(part.sequence.tolist()) for part in split(trace))
    assert learned | test == set(stays.values())
    if len(stays) == 1:
        return
    assert not learned & test
    assert len(learned) == round(len(stays) / 2)


def test_nothing_is_flagged_where_the_source_says_nothing():
    trace = uniform_trace([3, 3, 3], 2, 8, 2)
    assert len(sequences.without_repetition(trace)) == len(trace)


def test_statistics_and_predictors_leave_out_the_same_sequences():
    """Sequences 0 and 1 decode alike after different prompts: no duplicates. 2 is 0 again, 3 is flagged."""
    trace = uniform_trace([4, 4, 4, 4], 2, 8, 2)
    trace.experts[6:8] = trace.experts[2:4]
    trace.experts[8:12] = trace.experts[:4]
    trace.phase[:] = np.tile([PREFILL, PREFILL, DECODE, DECODE], 4)
    notes = {"sequences": [{"has_repetition": number == 3} for number in range(4)]}
    trace = replace(trace, origin=Origin("test", "", notes=notes))
    described = set(sequences.without_repetition(trace).described().sequence.tolist())
    assert described == {0, 1} == set().union(*(part.sequence.tolist() for part in split(trace)))


def test_a_single_sequence_cannot_be_divided():
    trace = uniform_trace([3, 3], 2, 8, 2)
    assert sequences.divisible(trace, "here") is trace
    with pytest.raises(UserError, match=r"^here: has 1 sequence") as caught:
        sequences.divisible(trace.select(trace.sequence == 0), "here")
    assert "\n" not in str(caught.value)


def test_the_fingerprint_is_of_the_content(tmp_path):
    """The same after writing and reading, and in another memory layout; another for any other id, phase, sequence."""
    trace = uniform_trace([4, 3, 5], 3, 9, 2)
    own = sequences.fingerprint(trace)
    store.write_trace(tmp_path, trace)
    assert sequences.fingerprint(store.read_trace(tmp_path)) == own
    assert sequences.fingerprint(replace(trace, experts=np.asfortranarray(trace.experts))) == own
    swapped = trace.experts.copy()
    swapped[5, 1] = swapped[5, 1, ::-1]
    joined, prompt = trace.sequence.copy(), trace.phase.copy()
    joined[3] += 1
    prompt[0] = PREFILL
    others = [replace(trace, experts=swapped), replace(trace, sequence=joined), replace(trace, phase=prompt)]
    assert len({own, *map(sequences.fingerprint, others)}) == 4


@st.composite
def examples(draw):
    """E; inputs and choices to learn from; inputs to be asked about. A source is there with all its ids or not."""
    experts = draw(st.integers(2, 6))
    top_k = draw(st.integers(1, experts))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))

    def inputs(tokens: int) -> np.ndarray:
        ids = rng.random((tokens, SOURCES, experts)).argsort(axis=2)[:, :, :top_k].astype(np.int32)
        ids += np.arange(0, SOURCES * experts, experts, np.int32)[:, None]
        ids[rng.random((tokens, SOURCES)) < 0.3] = SOURCES * experts
        return ids.reshape(tokens, -1)

    tokens = draw(st.integers(1, 25))
    chosen = rng.random((tokens, experts)).argsort(axis=1)[:, :top_k].astype(np.uint16)
    return experts, inputs(tokens), chosen, inputs(draw(st.integers(1, 8)))


def seen_at(row: list[int], source: int, experts: int) -> list[int]:
    """Ids of one source; none where it is absent."""
    return [e - source * experts for e in row if e // experts == source]


def plain_popularity(experts, inputs, chosen, row) -> list[float]:
    return [sum(e in token for token in chosen) / len(chosen) for e in range(experts)]


def plain_previous_token(experts, inputs, chosen, row) -> list[float]:
    """One more for what the token before chose: no popularity is above one."""
    last = seen_at(row, LAYERS_BEFORE, experts)
    return [often + (e in last) for e, often in enumerate(plain_popularity(experts, inputs, chosen, row))]


def plain_naive_bayes(sources):
    def scores(experts, inputs, chosen, row) -> list[float]:
        count = [sum(e in token for token in chosen) for e in range(experts)]
        examples, found = list(zip(inputs, chosen, strict=True)), []
        for e in range(experts):
            score = math.log((count[e] + 1) / (sum(count) + experts))
            for source in sources:
                together = [seen_at(seen, source, experts) for seen, token in examples if e in token]
                joint = [sum(j in seen for seen in together) for j in range(experts)]
                score += sum(math.log((joint[j] + 1) / (sum(joint) + experts)) for j in seen_at(row, source, experts))
            found.append(score)
        return found

    return scores


def plain_transitions(order):
    def context(row, experts) -> list[int | None]:
        return [next(iter(seen_at(row, source, experts)), None) for source in range(LAYERS_BEFORE)]

    def probability(experts, inputs, chosen, row, expert, length) -> float:
        if length == 0:
            return plain_popularity(experts, inputs, chosen, row)[expert]
        alike = [
            token
            for seen, token in zip(inputs, chosen, strict=True)
            if context(seen, experts)[:length] == context(row, experts)[:length]
        ]
        shorter = probability(experts, inputs, chosen, row, expert, length - 1)
        return (sum(expert in token for token in alike) + BACKING * shorter) / (len(alike) + BACKING)

    return lambda experts, inputs, chosen, row: [
        probability(experts, inputs, chosen, row, e, order) for e in range(experts)
    ]


PLAIN = {
    "popularity": plain_popularity,
    "previous_token": plain_previous_token,
    "naive_bayes": plain_naive_bayes([0]),
    "transitions_1": plain_transitions(1),
    "transitions_2": plain_transitions(2),
    "transitions_3": plain_transitions(3),
    "naive_bayes_all_inputs": plain_naive_bayes(range(SOURCES)),
}


@pytest.mark.parametrize("name", COUNTING)
@settings(deadline=None, max_examples=25)
@given(example=examples())
def test_counting_predictors_are_their_formulas(name, example):
    experts, inputs, chosen, asked = example
    scores = COUNTING[name](inputs, chosen, experts)(asked)
    expected = [PLAIN[name](experts, inputs.tolist(), chosen.tolist(), row) for row in asked.tolist()]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    assert scores.shape == (len(asked), experts)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), experts=st.integers(1, 12), values=st.integers(1, 6))
def test_true_ranks_are_places_in_a_sorted_list(seed, experts, values):
    """Few different values, so that many scores are equal: those are sorted by id."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, (7, experts)).astype(np.float32)
    chosen = rng.random((7, experts)).argsort(axis=1)[:, : rng.integers(1, experts + 1)].astype(np.uint16)
    order = [sorted(range(experts), key=lambda e: (-row[e], e)) for row in scores.tolist()]
    expected = [[ranked.index(e) for e in row] for ranked, row in zip(order, chosen.tolist(), strict=True)]
    assert true_ranks(scores, chosen).tolist() == expected


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.1, 2.0, 60.0]))
def test_reliability_is_a_histogram_by_probability(seed, spread):
    rng = np.random.default_rng(seed)
    scores = rng.normal(-1, spread, (40, 9)).astype(np.float32)
    chosen = rng.random((40, 9)).argsort(axis=1)[:, :3].astype(np.uint16)
    probability = 1 / (1 + np.exp(-scores.astype(float)))
    true = np.zeros(scores.shape)
    np.put_along_axis(true, chosen.astype(int), 1, axis=1)
    edges = np.linspace(0, 1, BINS + 1)
    expected = [np.histogram(probability, edges, weights=weights)[0] for weights in (probability, true, None)]
    np.testing.assert_allclose(evaluate.reliability(scores, chosen), expected, rtol=1e-5, atol=1e-6)


def test_certain_scores_fall_into_the_outer_bins():
    bins = evaluate.reliability(np.array([[1e4, -1e4, 0]], np.float32), np.array([[0]], np.uint16))
    assert bins[2].tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert bins[1].tolist() == [0] * 9 + [1]
    assert bins[0].tolist() == [0, 0, 0, 0, 0, 0.5, 0, 0, 0, 1]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), layers=st.integers(1, 4), top_k=st.integers(1, 3), rank=st.integers(1, 8))
def test_recall_of_a_resample_counts_every_copy(seed, layers, top_k, rank):
    rng = np.random.default_rng(seed)
    owner = np.concatenate([[0, 1, 2], rng.integers(0, 3, 6)])
    drawn = rng.multinomial(3, np.full(3, 1 / 3), 5)
    found = [rng.integers(0, 8, (9, top_k)).astype(np.uint16) for _ in range(layers)]
    expected = []
    for copies in drawn.tolist():
        inside, count = 0, 0
        for token, sequence in enumerate(owner.tolist()):
            for layer in found:
                for place in layer[token].tolist():
                    inside += copies[sequence] * (place < rank)
                    count += copies[sequence]
        expected.append(inside / count)
    np.testing.assert_allclose(Sequences(owner, drawn).recall(found, rank), expected)


@pytest.mark.parametrize(
    ("top_k", "experts", "ranks"), [(1, 128, (1, 2, 8, 16)), (8, 64, (8, 16)), (2, 8, (2, 4, 8)), (6, 10, (6, 8))]
)
def test_ranks_reported(top_k, experts, ranks):
    assert evaluate.ranks_reported(top_k, experts) == ranks


@settings(deadline=None, max_examples=40)
@given(trace=traces(), seed=st.integers(0, 10**6))
def test_router_inputs_of_tokens(trace, seed):
    """Recorded in any order, of some tokens and of tokens that the trace has not."""
    rng = np.random.default_rng(seed)
    pairs = [*zip(trace.sequence.tolist(), trace.position.tolist(), strict=True), (99, 0), (0, 999)]
    pairs = [pairs[place] for place in rng.permutation(len(pairs))[: rng.integers(1, len(pairs) + 1)]]
    sequence, position = np.array(pairs, np.int32).T
    given_inputs = rng.standard_normal((len(pairs), 2, 3)).astype(np.float32)
    rows = np.flatnonzero(rng.random(len(trace)) < 0.7)
    found, inputs = RouterInputs(sequence, position, given_inputs, np.zeros((2, 4, 3))).of_tokens(trace, rows)
    expected = [row for row in rows.tolist() if (trace.sequence[row], trace.position[row]) in pairs]
    assert found.tolist() == expected
    for row, given_input in zip(expected, inputs, strict=True):
        np.testing.assert_array_equal(
            given_input, given_inputs[pairs.index((trace.sequence[row], trace.position[row]))]
        )


def test_gate_scores_are_a_later_router_on_earlier_inputs():
    rng = np.random.default_rng(0)
    inputs, weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 4, 7), (4, 6, 7)))
    recorded = RouterInputs(np.zeros(5, np.int32), np.arange(5, dtype=np.int32), inputs, weights)
    for lookahead in LOOKAHEADS:
        for layer in range(lookahead, 4):
            expected = [
                [math.fsum(inputs[n, layer - lookahead].astype(float) * weights[layer, e]) for e in range(6)]
                for n in range(5)
            ]
            np.testing.assert_allclose(recorded.scores(inputs, layer, lookahead), expected, rtol=1e-4, atol=1e-5)


def test_router_inputs_are_optional_and_damage_is_one_line(tmp_path):
    assert read_router_inputs(tmp_path) is None
    whole = (TRACES / SMALL / gate.FILE).read_bytes()
    (tmp_path / gate.FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"router_inputs.safetensors: could not be read") as caught:
        read_router_inputs(tmp_path)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=40)
@given(trace=deep_traces(), hidden=st.integers(1, 12), seed=st.integers(0, 99), lookahead=st.sampled_from(LOOKAHEADS))
def test_network_is_its_dense_form(trace, hidden, seed, lookahead):
    """relu(x W + b) V + c in float64, x the number of times that each id is seen."""
    layers, experts = len(trace.router.layers), trace.router.experts
    network = random_network(experts, layers, hidden, seed)
    for layer in range(layers):
        inputs = context_of(trace).inputs(layer, lookahead)
        seen = np.array([np.bincount(row, minlength=SOURCES * experts + 1)[:-1] for row in inputs], float)
        embedding, hidden_bias, output, output_bias = (
            part[lookahead - 1, layer].astype(float)
            for part in (network.embedding, network.hidden_bias, network.output, network.output_bias)
        )
        expected = np.maximum(seen @ embedding + hidden_bias, 0) @ output + output_bias
        np.testing.assert_allclose(network.scores(inputs, layer, lookahead), expected, rtol=1e-4, atol=1e-4)


@given(experts=st.integers(1, 9), layers=st.integers(1, 5), hidden=st.integers(1, 7))
def test_bytes_of_a_network_follow_from_its_shape(experts, layers, hidden):
    network = random_network(experts, layers, hidden)
    assert network.bytes_bf16 == network_bytes(experts, layers, hidden, len(LOOKAHEADS))


@pytest.fixture
def copied(tmp_path):
    """A copy of a recorded predictor, to be damaged."""
    return shutil.copytree(PREDICTORS / SMALL, tmp_path / SMALL)


def refused(folder, problem: str) -> None:
    """Reading `folder` ends in one line that names it."""
    with pytest.raises(UserError, match=problem) as caught:
        read_network(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_is_noticed(copied):
    weights = bytearray((copied / WEIGHTS).read_bytes())
    weights[len(weights) // 2] ^= 1
    (copied / WEIGHTS).write_bytes(weights)
    refused(copied, "not as SHA256SUMS has it")


def test_weights_cut_short_and_sealed_again_are_refused(copied):
    (copied / WEIGHTS).write_bytes((copied / WEIGHTS).read_bytes()[:-1])
    store.write_sums(copied, [WEIGHTS, store.METADATA])
    refused(copied, "could not be read")


def test_a_folder_of_another_kind_and_an_empty_one_are_refused(tmp_path):
    refused(TRACES / SMALL, "holds trace, expected a predictor")
    refused(tmp_path, r"holds no metadata\.json")


EXPERTS, TOP_K, LAYERS, SHIFT = 12, 3, (1, 3, 5, 7, 9), 5
"""Of a model in which each layer chooses the experts of the layer before, moved on by SHIFT."""


def moved(by: int, height: float) -> np.ndarray:
    """(E, E): `height` from each expert to the one `by` layers later."""
    return height * np.roll(np.eye(EXPERTS, dtype=np.float32), by * SHIFT, axis=1)


@pytest.fixture(scope="module")
def determined() -> Trace:
    """Each layer follows from the one before, the first is uniform; ten tokens of each sequence are its prompt."""
    lengths = [30] * 41
    first = uniform_trace(lengths, 1, EXPERTS, TOP_K).experts
    choices = np.concatenate([(first + SHIFT * layer) % EXPERTS for layer in range(len(LAYERS))], axis=1)
    trace = make_trace(choices, lengths, EXPERTS)
    phase = np.where(np.arange(len(trace)) % 30 < 10, PREFILL, DECODE).astype(np.uint8)
    return replace(trace, phase=phase, router=replace(trace.router, layers=LAYERS))


def rule_network() -> Network:
    """A network that knows the rule."""
    shape = (len(LOOKAHEADS), len(LAYERS))
    embedding = np.zeros((*shape, SOURCES * EXPERTS, EXPERTS), np.float32)
    embedding[:, :, :EXPERTS] = np.eye(EXPERTS)
    output = np.stack([[moved(lookahead, 40.0)] * len(LAYERS) for lookahead in LOOKAHEADS])
    bias = np.full((*shape, EXPERTS), -20, np.float32)
    return Network(embedding, np.zeros((*shape, EXPERTS), np.float32), output, bias, "none", "none")


@pytest.fixture(scope="module")
def table(determined) -> pd.DataFrame:
    """Of a network that knows the rule, and of every third token's router inputs, which only tell the next layer."""
    sample = np.arange(len(determined)) % 3 == 0
    inputs = np.zeros((sample.sum(), len(LAYERS), EXPERTS), np.float32)
    np.put_along_axis(inputs, determined.experts[sample].astype(int), 1, axis=2)
    routers = np.stack([moved(1, 1.0).T] * len(LAYERS))
    recorded = RouterInputs(determined.sequence[sample], determined.position[sample], inputs, routers)
    return pd.DataFrame(evaluate.evaluate_predictors("made", determined, rule_network(), recorded))


def recall(table: pd.DataFrame, predictor: str, lookahead: int, rank: int, tokens: str = "held_out") -> pd.Series:
    """The mean over layers and its interval."""
    wanted = {"statistic": "recall", "predictor": predictor, "lookahead": lookahead, "x": rank, "tokens": tokens}
    rows = table[table["layer"].isna() & (table[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_recall_where_each_layer_decides_the_next(table, lookahead):
    """Uniform choices: whoever does not see the layer before finds K of E, whoever does finds all."""
    for rank in (TOP_K, 2 * TOP_K, 8):
        for predictor in (PROPHET, ORACLE, "naive_bayes", "naive_bayes_all_inputs"):
            found = recall(table, predictor, lookahead, rank)
            assert found["value"] == found["low"] == found["high"] == 1, predictor
        for predictor in ("popularity", "previous_token", CONTROL):
            found = recall(table, predictor, lookahead, rank)
            assert found["value"] == pytest.approx(rank / EXPERTS, abs=0.05), predictor
            assert 0 < found["low"] < found["value"] < found["high"] < 1


def test_recall_of_the_gate_is_whole_one_layer_ahead(table):
    """Its rule is that of one layer; further ahead the experts that it finds are others."""
    assert recall(table, GATE, 1, TOP_K, "router_inputs")["value"] == 1
    assert recall(table, GATE, 2, TOP_K, "router_inputs")["value"] < 0.5
    assert recall(table, PROPHET, 2, TOP_K, "router_inputs")["value"] == 1
    assert not len(table.query("predictor == @GATE and tokens == 'held_out'"))


def test_recall_by_layer_is_of_decoded_tokens_of_the_other_half(table, determined):
    """Popularity counted by hand, prompts included, and judged by hand, without them."""
    learned, test = split(determined)
    asked = test.described().experts
    for lookahead in LOOKAHEADS:
        rows = table.query("predictor == 'popularity' and lookahead == @lookahead and tokens == 'held_out'")
        for rank in (TOP_K, 8):
            by_layer = rows[(rows["x"] == rank) & rows["layer"].notna()].set_index("layer")["value"]
            assert tuple(by_layer.index) == LAYERS[lookahead:]
            for place, layer in enumerate(LAYERS[lookahead:], start=lookahead):
                often = Counter(learned.experts[:, place].ravel().tolist())
                best = sorted(range(EXPERTS), key=lambda e, often=often: (-often[e], e))[:rank]
                assert by_layer[layer] == pytest.approx(np.isin(asked[:, place], best).mean())
            assert recall(table, "popularity", lookahead, rank)["value"] == pytest.approx(by_layer.mean())
    sampled = determined.select(np.arange(len(determined)) % 3 == 0)
    asked = sampled.select((sampled.phase == DECODE) & np.isin(sampled.sequence, test.sequence)).experts
    often = Counter(learned.experts[:, 1].ravel().tolist())
    best = sorted(range(EXPERTS), key=lambda e: (-often[e], e))[:TOP_K]
    rows = table.query("predictor == 'popularity' and lookahead == 1 and layer == 3 and x == @TOP_K")
    of_sample = rows[rows["tokens"] == "router_inputs"]["value"].item()
    assert of_sample == pytest.approx(np.isin(asked[:, 1], best).mean())


def test_recall_by_domain_is_that_of_its_sequences(determined):
    """Of two domains, one of the rule and one of noise, Prophet knows the first alone; together they are the whole."""
    notes = [{"label": "rule" if number % 2 else "noise"} for number in range(41)]
    noise = np.repeat(np.arange(41) % 2 == 0, 30)
    mixed = uniform_trace([30] * 41, len(LAYERS), EXPERTS, TOP_K).experts
    trace = replace(
        determined,
        experts=np.where(noise[:, None, None], mixed, determined.experts),
        origin=Origin("made", "", notes={"sequences": notes}),
    )
    found = pd.DataFrame(evaluate.evaluate_predictors("made", trace, rule_network()))
    of = {domain: recall(found, PROPHET, 1, TOP_K, f"domain:{domain}") for domain in ("rule", "noise")}
    assert of["rule"]["value"] == of["rule"]["low"] == 1
    assert of["noise"]["value"] == pytest.approx(TOP_K / EXPERTS, abs=0.05)
    assert of["noise"]["low"] < of["noise"]["value"] < of["noise"]["high"]
    count = sequences.notes_of(split(trace)[1], "label").count
    whole = (count("rule") + of["noise"]["value"] * count("noise")) / (count("rule") + count("noise"))
    assert recall(found, PROPHET, 1, TOP_K)["value"] == pytest.approx(whole)
    metadata = {"experts": EXPERTS, "top_k": TOP_K, "layers": LAYERS, "plan": {"hidden": 1}, "training_loss": [1, 2, 3]}
    latency = pd.DataFrame({"trace": ["made"], "batch": [1], "microseconds": [1.0], "cpu": ["any"]})
    summary = prediction_summary(found, {"made": metadata}, latency)
    table = prediction_by_domain(found, summary)
    row = table[(table["domain"] == "noise") & (table["lookahead"] == 1) & (table["rank"] == TOP_K)].iloc[0]
    assert (row["prophet_recall"], row["prophet_recall_low"]) == (of["noise"]["value"], of["noise"]["low"])
    assert row["popularity_recall"] == recall(found, "popularity", 1, TOP_K, "domain:noise")["value"]
    assert len(table) == 2 * len(LOOKAHEADS) * 2
    assert prediction_by_domain(found[~found["tokens"].str.startswith("domain")], summary).empty


def test_gains_are_differences_of_recalls(table):
    gains = table[table["statistic"] == "recall_gain"]
    assert len(gains) == len(LOOKAHEADS) * 3 * 2
    for _, gain in gains.iterrows():
        lookahead, rank = gain["lookahead"], gain["x"]
        of = {name: recall(table, name, lookahead, rank)["value"] for name in (PROPHET, *COUNTING)}
        assert gain["against"] in (max(BASELINES, key=of.get), "naive_bayes_all_inputs")
        assert gain["value"] == pytest.approx(of[PROPHET] - of[gain["against"]], abs=1e-12)
        assert gain["low"] <= gain["value"] <= gain["high"]


def test_a_network_that_knows_is_calibrated(table):
    error = table[table["statistic"] == "calibration_error"]
    assert error["value"].max() < 1e-6
    for said, came in table[table["statistic"] == "reliability"][["x", "value"]].to_numpy():
        assert said == pytest.approx(came, abs=1e-6)
    for _, rows in table[table["statistic"] == "reliability_share"].groupby("lookahead"):
        assert rows["value"].tolist() == pytest.approx([1 - TOP_K / EXPERTS, TOP_K / EXPERTS])


def test_a_guessing_network_gains_nothing_and_is_uncalibrated(determined):
    """Random weights: gains over the best that counts are below zero; the error follows from the reliability."""
    found = pd.DataFrame(evaluate.evaluate_predictors("made", determined, random_network(EXPERTS, len(LAYERS), 4)))
    gains = found[found["statistic"] == "recall_gain"]
    assert gains["high"].max() < 0
    for gain in gains.query("x == @TOP_K").itertuples():
        of = {name: recall(found, name, gain.lookahead, TOP_K)["value"] for name in (PROPHET, gain.against)}
        assert gain.value == pytest.approx(of[PROPHET] - of[gain.against])
    for _, rows in found.groupby("lookahead"):
        (error,) = rows[rows["statistic"] == "calibration_error"]["value"]
        reliability, weight = (
            rows[rows["statistic"] == statistic].set_index("x")["value"]
            for statistic in ("reliability", "reliability_share")
        )
        assert weight.sum() == pytest.approx(1)
        assert error == pytest.approx(sum(weight * (reliability - reliability.index).abs()))
        assert error > 0.1


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_predictor_is_of_its_trace(name):
    """Trained on the committed trace, of its shape, and of as many bytes as the capacity model gives it."""
    trace, network = recorded_trace(name), read_network(PREDICTORS / name)
    metadata = store.read_metadata(PREDICTORS / name, "predictor")
    assert network.trained_on == metadata["trained_on"] == sequences.fingerprint(trace)
    assert network.learned_from == metadata["learned_from"] == sequences.fingerprint(split(trace)[0])
    experts, layers, hidden = trace.router.experts, len(trace.router.layers), metadata["plan"]["hidden"]
    assert network.embedding.shape == (len(LOOKAHEADS), layers, SOURCES * experts, hidden)
    assert network.output.shape == (len(LOOKAHEADS), layers, hidden, experts)
    assert network.bytes_bf16 == network_bytes(experts, layers, hidden, len(LOOKAHEADS))
    assert metadata["tokens"] == len(split(trace)[0])
    header = (PREDICTORS / name / WEIGHTS).stat().st_size - network.bytes_bf16
    assert 0 < header < 1000


def test_read_trained_of_another_half_is_refused(tmp_path):
    """A predictor that learned from sequences which are judged now says so, in one line."""
    name = "small-6x8-top2"
    trace, folder = recorded_trace(name), tmp_path / name
    assert read_trained(PREDICTORS / name, trace, folder).trained_on == sequences.fingerprint(trace)
    shutil.copytree(PREDICTORS / name, folder)
    metadata = store.read_metadata(folder, "predictor") | {"learned_from": sequences.fingerprint(split(trace)[1])}
    store.seal(folder, metadata, WEIGHTS)
    with pytest.raises(UserError, match=r"has not learned from the half of .* that is learned from now") as caught:
        read_trained(folder, trace, ROOT / "resources/traces" / name)
    assert "\n" not in str(caught.value)


def test_there_are_recorded_predictors():
    assert {"small-12x128-top1", "small-6x64-top8", "small-6x8-top2"} <= set(RECORDED)


def test_prophet_finds_more_than_whoever_counts():
    """small-12x128-top1, one layer ahead, three layers: recall@k at least five points above the best baseline."""
    name = "small-12x128-top1"
    trace, network = recorded_trace(name), read_network(PREDICTORS / name)
    train, test = split(trace)
    learned, seen = context_of(train), context_of(test)
    rows = np.flatnonzero(test.phase == DECODE)
    found: dict[str, list[float]] = {predictor: [] for predictor in (*BASELINES, PROPHET)}
    for layer in (2, 6, 10):
        known, inputs = learned.inputs(layer, 1), seen.inputs(layer, 1)[rows]
        scores = {name: COUNTING[name](known, learned.choices[:, layer], seen.experts)(inputs) for name in BASELINES}
        scores[PROPHET] = network.scores(inputs, layer, 1)
        for predictor, given_scores in scores.items():
            ranks = true_ranks(given_scores, seen.choices[rows, layer])
            found[predictor].append(float((ranks < trace.router.top_k).mean()))
    means = {predictor: np.mean(recalls) for predictor, recalls in found.items()}
    assert means[PROPHET] >= 0.05 + max(means[baseline] for baseline in BASELINES)


def test_lookaheads_beyond_the_layers_are_left_out():
    trace = uniform_trace([10] * 10, 2, 8, 2)
    recorded = RouterInputs(
        np.array([99], np.int32),
        np.array([0], np.int32),
        np.zeros((1, 2, 4), np.float32),
        np.zeros((2, 8, 4), np.float32),
    )
    found = evaluate.evaluate_predictors("x", trace, random_network(8, 2, 4), recorded)
    assert {row.lookahead for row in found} == {1}
    assert {row.tokens for row in found} == {"held_out"}


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    folder = tmp_path / "predictor"
    shutil.copytree(ROOT / "resources/predictors/small-6x8-top2", folder)
    weights = load_file(folder / "predictor.safetensors")
    weights["output_bias"][0, 0, 0] = np.nan
    save_file(weights, folder / "predictor.safetensors")
    metadata = json.loads((folder / "metadata.json").read_text())
    store.seal(folder, metadata, "predictor.safetensors")
    with pytest.raises(UserError, match="holds weights that are no finite numbers"):
        read_network(folder)
