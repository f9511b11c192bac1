"""Traces read block by block against the same traces in memory, and samples of them."""

import argparse
import json
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.cli import trace as command
from prophet_moe.errors import UserError
from prophet_moe.routing import long_traces, store
from prophet_moe.routing.sequences import without_repetition
from prophet_moe.routing.summary import Totals, summarise, summarise_described, totals_of
from prophet_moe.routing.trace import DECODE, PREFILL, Origin, Router, Trace, joined

ENOUGH = 2**40


@st.composite
def traces(draw) -> Trace:
    """Small traces with prompts, gaps, sequences that repeat others and sequences that their source flags."""
    experts = draw(st.integers(1, 6))
    top_k, layers = draw(st.integers(1, experts)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    kinds = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.booleans()), min_size=0, max_size=5))
    kinds.append((draw(st.integers(0, 3)), draw(st.integers(1, 5)), False))
    texts = [rng.random((6, layers, experts)).argsort(axis=2)[:, :, :top_k].astype(np.uint16) for _ in range(3)]
    rows = [(number, *kind) for number, kind in enumerate(kinds)]
    lengths = [length for _, _, length, _ in rows]
    position = np.concatenate([np.cumsum(rng.integers(1, 3, length)) for length in lengths]).astype(np.int32)
    phase = rng.choice([PREFILL, DECODE], sum(lengths), p=[0.3, 0.7]).astype(np.uint8)
    phase[np.cumsum(lengths) - 1] = DECODE
    return Trace(
        Router("test", experts, top_k, tuple(range(layers))),
        np.repeat(np.arange(len(rows), dtype=np.int32), lengths),
        position,
        phase,
        np.concatenate([texts[text % 3][:length] for _, text, length, _ in rows]),
        draw(st.booleans()),
        Origin("test", "none", notes={"sequences": [{"has_repetition": flag} for *_, flag in rows]}),
        np.arange(sum(lengths), dtype=np.int32) if draw(st.booleans()) else None,
    )


def described(folder: Path, tokens: int, sample: int = ENOUGH) -> long_traces.Described:
    """What is described of the trace in `folder`, read in blocks of `tokens` tokens."""
    metadata = store.read_metadata(folder)
    blocks = partial(store.read_blocks, ids=tokens * len(metadata["layers"]) * metadata["top_k"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "read_blocks", blocks)
        return long_traces.describe(folder, metadata, whole=0, sample=sample)


@settings(max_examples=100, deadline=None)
@given(trace=traces(), tokens=st.integers(1, 7))
def test_blocks_add_up_to_what_memory_holds(tmp_path_factory, trace, tokens):
    counted = without_repetition(trace).described()
    folder = tmp_path_factory.mktemp("trace")
    store.write_trace(folder, trace)
    with np.errstate(invalid="ignore"):
        found, plain = described(folder, tokens), totals_of(counted)
    for each in fields(Totals):
        np.testing.assert_array_equal(getattr(found.totals, each.name), getattr(plain, each.name), each.name)
    for name in ("sequence", "position", "phase", "experts", "token"):
        np.testing.assert_array_equal(getattr(found.trace, name), getattr(counted, name), name)


@settings(max_examples=100, deadline=None)
@given(trace=traces(), tokens=st.integers(1, 7), sample=st.integers(1, 40))
def test_a_sample_is_whole_sequences_or_beginnings(tmp_path_factory, trace, tokens, sample):
    counted = without_repetition(trace).described()
    folder = tmp_path_factory.mktemp("trace")
    store.write_trace(folder, trace)
    width = len(trace.router.layers) * trace.router.top_k
    with np.errstate(invalid="ignore"):
        found = described(folder, tokens, sample * width)
    longest = max(1, sample // long_traces.LEAST_SEQUENCES)
    assert 0 < len(found.trace) <= sample
    for number in np.unique(found.trace.sequence):
        own, there = (part.select(part.sequence == number) for part in (found.trace, counted))
        np.testing.assert_array_equal(own.experts, there.experts[:longest])
        np.testing.assert_array_equal(own.position, there.position[:longest])


def long_trace(sequences: int = 40, tokens: int = 30) -> Trace:
    """Sequences of equal length, ranked, with prompts."""
    rng = np.random.default_rng(1)
    count = sequences * tokens
    return Trace(
        Router("test", 16, 2, (1, 2, 3)),
        np.repeat(np.arange(sequences, dtype=np.int32), tokens),
        np.tile(np.arange(tokens, dtype=np.int32), sequences),
        np.tile((np.arange(tokens) >= 5).astype(np.uint8), sequences),
        rng.random((count, 3, 16), np.float32).argpartition(2, axis=2)[:, :, :2].astype(np.uint16),
        True,
        Origin("test", "none"),
    )


def test_a_sample_of_all_gives_the_rows_of_the_whole(tmp_path):
    trace = long_trace()
    store.write_trace(tmp_path, trace)
    found = described(tmp_path, 77)
    pd.testing.assert_frame_equal(rows_of(found), pd.DataFrame(summarise("long", trace)), check_exact=True)
    assert "a random sample of 40 of 40 sequences (1,000 tokens)" in found.note


def test_a_sample_keeps_the_totals_of_the_whole(tmp_path):
    trace = long_trace()
    store.write_trace(tmp_path, trace)
    found = described(tmp_path, 77, sample=480 * 6)
    assert found.note == (
        "load, overlap and repetition are of all 1,000 tokens; controls, intervals and all else rest on a "
        "random sample of 19 of 40 sequences (475 tokens)"
    )
    exact = ["tokens", "sequences", "load_skew", "load_entropy_share", "consecutive_overlap", "first_choice_repetition"]
    rows, plain = rows_of(found), pd.DataFrame(summarise("long", trace))
    keys, totals = ["statistic", "layer", "x"], plain["statistic"].isin(exact)
    both = rows.merge(plain, on=keys, suffixes=("", "_plain"))
    assert both["statistic"].isin(exact).sum() == totals.sum()
    summed = both[both["statistic"].isin(exact)]
    assert summed["value"].tolist() == summed["value_plain"].tolist()


def rows_of(found: long_traces.Described) -> pd.DataFrame:
    return pd.DataFrame(summarise_described("long", found.trace, found.totals))


def test_long_sequences_are_cut_and_the_note_says_so(tmp_path):
    store.write_trace(tmp_path, long_trace())
    assert "(160 tokens, of long ones the first 10 tokens)" in described(tmp_path, 77, sample=160 * 6).note


def test_a_small_trace_is_described_whole_without_a_note(tmp_path):
    trace = long_trace()
    store.write_trace(tmp_path, trace)
    found = long_traces.describe(tmp_path, store.read_metadata(tmp_path))
    assert not found.note
    pd.testing.assert_frame_equal(rows_of(found), pd.DataFrame(summarise("long", trace)), check_exact=True)


def test_a_trace_of_flagged_sequences_is_refused(tmp_path):
    notes = {"sequences": [{"has_repetition": True}] * 40}
    store.write_trace(tmp_path, replace(long_trace(), origin=Origin("test", "none", notes=notes)))
    with pytest.raises(UserError, match="flags every sequence as repetitive"):
        described(tmp_path, 77)


def test_describe_says_that_it_rests_on_a_sample(tmp_path, monkeypatch, capsys):
    store.write_trace(tmp_path, long_trace())
    monkeypatch.setattr(long_traces, "describe", partial(long_traces.describe, whole=0, sample=480 * 6))
    command.describe_trace(argparse.Namespace(folder=tmp_path))
    shown = capsys.readouterr().out
    assert "note: load, overlap and repetition are of all 1,000 tokens" in shown
    assert "lru_hit_rate" in shown


@settings(max_examples=60, deadline=None)
@given(
    row=st.integers(0, 1199),
    change=st.sampled_from(["sequence", "position", "negative", "range", "twice", "tokens", "sequences"]),
    tokens=st.sampled_from([1, 7, 100, 5000]),
)
def test_blocks_are_refused_as_whole_traces_are(tmp_path_factory, row, change, tokens):
    trace, metadata = long_trace(), {}
    if change == "sequence":
        trace.sequence[row] = 99
    elif change == "position":
        trace.position[row] = 40
    elif change == "negative":
        trace.position[row] = -1
    elif change == "range":
        trace.experts[row, 1, 1] = 16
    elif change == "twice":
        trace.experts[row, 2, 0] = trace.experts[row, 2, 1]
    else:
        metadata[change] = 1201
    folder = tmp_path_factory.mktemp("trace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "check", lambda trace, *_: trace)
        store.write_trace(folder, trace)
    written = json.loads((folder / store.METADATA).read_text()) | metadata
    store.seal(folder, written, store.TRACE)
    assert read(partial(store.read_trace, folder)) == read(lambda: described(folder, tokens))


def read(what) -> str:
    """The line that a user is told; empty where there is none."""
    try:
        what()
    except UserError as error:
        return str(error)
    return ""


def test_joined_blocks_are_the_trace(tmp_path):
    trace = long_trace()
    store.write_trace(tmp_path, trace)
    blocks = list(store.read_blocks(tmp_path, store.read_metadata(tmp_path), ids=100 * 6))
    assert [len(block) for block in blocks] == [100] * 12
    np.testing.assert_array_equal(joined(blocks).experts, trace.experts)


def test_blocks_take_memory_of_a_block_only(tmp_path):
    rng = np.random.default_rng(0)
    trace = long_trace(40, 20_000)
    first = rng.integers(0, 2**11, (*trace.experts.shape[:2], 1))
    choices = np.concatenate([first, first + rng.integers(1, 2**11, first.shape)], axis=2).astype(np.uint16)
    store.write_trace(tmp_path, replace(trace, router=replace(trace.router, experts=2**12), experts=choices))
    before, peak = pa.total_allocated_bytes(), 0
    for _ in store.read_blocks(tmp_path, store.read_metadata(tmp_path), ids=2**14):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < (tmp_path / store.TRACE).stat().st_size / 2
