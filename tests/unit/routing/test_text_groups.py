"""Sequences that share text stay on one side of every split: groups by piece and by runs of equal tokens."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.errors import UserError
from prophet_moe.predict.context import split
from prophet_moe.routing import sequences
from prophet_moe.routing.sequences import RUN_TOKENS, repeated_share, split_by_sequence, text_groups
from prophet_moe.routing.trace import Origin, Trace, sequence_starts
from tests.builders import uniform_trace


@st.composite
def texts(draw) -> Trace:
    """Traces that are pieced together of few passages, so that sequences share some; pieces and labels known or not."""
    passages = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 3, (4, 40)).astype(np.int32)
    parts = st.tuples(st.integers(0, 3), st.integers(1, 40))
    found = draw(st.lists(st.lists(parts, min_size=1, max_size=3), min_size=2, max_size=8))
    tokens = [np.concatenate([passages[which, :count] for which, count in sequence]) for sequence in found]
    notes = []
    for _ in tokens:
        note = {"label": draw(st.sampled_from("ab")), "piece": draw(st.sampled_from(["x", "y", "z", None]))}
        notes.append({key: value for key, value in note.items() if value is not None})
    trace = uniform_trace([len(text) for text in tokens], 2, 8, 2, tokens=np.concatenate(tokens))
    trace = replace(trace, origin=Origin("test", "", notes={"sequences": notes} if draw(st.booleans()) else {}))
    return trace if draw(st.booleans()) else replace(trace, token=None)


def runs_of(trace: Trace) -> list[set[tuple[int, ...]]]:
    """Of every sequence, its runs of RUN_TOKENS tokens."""
    starts = sequence_starts(trace)
    found = []
    for begin, end in pairwise(starts):
        text = [] if trace.token is None else trace.token[begin:end].tolist()
        found.append({tuple(text[at : at + RUN_TOKENS]) for at in range(len(text) - RUN_TOKENS + 1)})
    return found


def plain_groups(trace: Trace) -> list[int]:
    """The groups, by joining any two sequences that share something until nothing changes."""
    runs, notes = runs_of(trace), trace.origin.notes.get("sequences", [{}] * len(runs_of(trace)))
    group = list(range(len(runs)))
    while True:
        before = list(group)
        for one in range(len(runs)):
            for other in range(one):
                piece = notes[one].get("piece")
                if runs[one] & runs[other] or (piece is not None and piece == notes[other].get("piece")):
                    least = min(group[one], group[other])
                    group = [least if own in (group[one], group[other]) else own for own in group]
        if group == before:
            return [sorted(set(group)).index(own) for own in group]


@settings(deadline=None)
@given(trace=texts())
def test_text_groups_are_those_found_pair_by_pair(trace):
    assert text_groups(trace).tolist() == plain_groups(trace)


@settings(deadline=None)
@given(trace=texts(), share=st.sampled_from([0.25, 0.5, 0.75]), seed=st.integers(0, 9))
def test_split_keeps_groups_whole_and_shares_no_text(trace, share, seed):
    """Nor pieces; every sequence is on one side, and neither side is empty where there are two groups."""
    parts = split_by_sequence(trace, share, seed)
    numbers = [set(part.sequence.tolist()) for part in parts]
    groups = [{int(text_groups(trace)[number]) for number in part} for part in numbers]
    assert not groups[0] & groups[1]
    assert numbers[0] | numbers[1] == set(trace.sequence.tolist())
    if len(groups[0] | groups[1]) > 1 and 0 < round(share * len(runs_of(trace))) < len(runs_of(trace)):
        assert all(groups)
    if all(numbers) and trace.token is not None and runs_of(parts[1]):
        assert repeated_share(*parts) in (0, pytest.approx(np.nan, nan_ok=True))


@settings(deadline=None)
@given(trace=texts(), data=st.data())
def test_repeated_share_is_that_of_plain_sets(trace, data):
    chosen = data.draw(st.sets(st.sampled_from(range(len(runs_of(trace)))), min_size=1))
    inside = np.isin(trace.sequence, list(chosen))
    if inside.all():
        return
    learned, held_out = trace.select(inside), trace.select(~inside)
    known = set().union(*runs_of(learned))
    starts, judged = sequence_starts(held_out), []
    for begin, end in pairwise(starts):
        text = [] if held_out.token is None else held_out.token[begin:end].tolist()
        judged += [tuple(text[at : at + RUN_TOKENS]) in known for at in range(len(text) - RUN_TOKENS + 1)]
    expected = np.mean(judged) if judged else np.nan
    assert repeated_share(learned, held_out) == pytest.approx(expected, nan_ok=True)


@settings(deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=8), min_size=1, max_size=4), seed=st.integers(0, 9)
)
def test_split_halves_every_domain(sizes, seed):
    """No domain is off by more than its largest group and one sequence."""
    notes = [
        {"label": str(domain), "piece": f"{domain}-{piece}"}
        for domain, pieces in enumerate(sizes)
        for piece, size in enumerate(pieces)
        for _ in range(size)
    ]
    trace = replace(
        uniform_trace([2] * len(notes), 2, 8, 2), origin=Origin("test", "", notes={"sequences": notes}), token=None
    )
    learned = split_by_sequence(trace, 0.5, seed)[0]
    labels = sequences.notes_of(learned, "label") if len(learned) else []
    for domain, pieces in enumerate(sizes):
        assert abs(labels.count(str(domain)) - sum(pieces) / 2) <= max(pieces) + 1


def test_split_without_notes_or_tokens_draws_sequences():
    """As many and the same ones as a plain draw: what was trained on such a trace stays valid."""
    trace = uniform_trace([3] * 21, 2, 8, 2)
    drawn = np.random.default_rng(0).permutation(21)[:10]
    assert set(split(replace(trace, token=None))[0].sequence.tolist()) == set(drawn.tolist())


def test_divisible_of_one_text_is_refused():
    trace = uniform_trace([3, 3], 2, 8, 2)
    one = replace(trace, origin=Origin("test", "", notes={"sequences": [{"piece": "p"}, {"piece": "p"}]}))
    with pytest.raises(UserError, match=r"^here: its 2 sequences are of one text") as caught:
        sequences.divisible(one, "here")
    assert "\n" not in str(caught.value)
