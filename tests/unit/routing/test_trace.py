"""Routing traces: what is written is read again, and every kind of damage is told in one line."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.errors import UserError
from prophet_moe.routing import arrays, store
from prophet_moe.routing.trace import DECODE, PREFILL, Counts, Origin, Router, Trace, check, sequence_starts

ORIGIN = Origin("a test", "none", notes={"why": "to read it again"})


def random_trace(seed=0, sequences=3, tokens=7, layers=(1, 2, 5), experts=9, top_k=3, with_tokens=True) -> Trace:
    random = np.random.default_rng(seed)
    count = sequences * tokens
    ids = random.random((count, len(layers), experts)).argsort(-1)[..., :top_k].astype(np.uint16)
    position = np.tile(np.arange(tokens, dtype=np.int32), sequences)
    return Trace(
        Router("a-model", experts, top_k, layers),
        np.repeat(np.arange(sequences, dtype=np.int32), tokens),
        position,
        np.where(position < 2, PREFILL, DECODE).astype(np.uint8),
        ids,
        True,
        ORIGIN,
        random.integers(100, size=count).astype(np.int32) if with_tokens else None,
    )


def changed(trace: Trace, **fields) -> Trace:
    return dataclasses.replace(trace, **fields)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 9),
    sequences=st.integers(1, 4),
    tokens=st.integers(1, 9),
    top_k=st.integers(1, 4),
    with_tokens=st.booleans(),
)
def test_a_trace_is_read_as_it_was_written(tmp_path_factory, seed, sequences, tokens, top_k, with_tokens):
    folder = tmp_path_factory.mktemp("trace")
    trace = random_trace(seed, sequences, tokens, top_k=top_k, with_tokens=with_tokens)
    store.write_trace(folder, trace)
    read = store.read_trace(folder, "a-model")
    assert (read.router, read.ranked, read.origin) == (trace.router, trace.ranked, trace.origin)
    for name in ("sequence", "position", "phase", "experts"):
        np.testing.assert_array_equal(getattr(read, name), getattr(trace, name))
    if with_tokens:
        np.testing.assert_array_equal(read.token, trace.token)
    else:
        assert read.token is None


def test_the_file_has_the_schema_of_the_contract(tmp_path):
    store.write_trace(tmp_path, random_trace())
    schema = pq.read_schema(tmp_path / store.TRACE)
    assert schema.names == ["sequence", "position", "phase", "experts", "token"]
    assert str(schema.field("experts").type) == "fixed_size_list<element: uint16 not null>[9]"
    metadata = json.loads(schema.metadata[store.METADATA_KEY])
    assert metadata == json.loads((tmp_path / store.METADATA).read_text())
    assert (metadata["model"], metadata["experts"], metadata["top_k"], metadata["layers"]) == (
        "a-model",
        9,
        3,
        [1, 2, 5],
    )
    assert metadata["tokens_by_phase"] == {"prefill": 6, "decode": 15}


def test_two_writes_are_byte_identical(tmp_path):
    for name in ("one", "two"):
        store.write_trace(tmp_path / name, random_trace())
    for file in (store.TRACE, store.METADATA, store.SUMS):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_parts_joined_are_the_trace(tmp_path):
    whole = random_trace(sequences=5)
    parts = []
    for number, chosen in enumerate(([0, 1], [2], [3, 4])):
        parts.append(tmp_path / f"{number}.parquet")
        store.write_part(parts[-1], whole.select(np.isin(whole.sequence, chosen)))
    metadata = store.join_parts(tmp_path / "joined", parts)
    store.seal(tmp_path / "joined", metadata, store.TRACE)
    read = store.read_trace(tmp_path / "joined")
    np.testing.assert_array_equal(read.experts, whole.experts)
    np.testing.assert_array_equal(read.token, whole.token)


def test_counts_are_read_as_they_were_written(tmp_path):
    counts = Counts(Router("a-model", 4, 2, (0, 1)), np.arange(24).reshape(3, 2, 4), ORIGIN)
    store.write_counts(tmp_path, counts)
    np.testing.assert_array_equal(store.read_counts(tmp_path).counts, counts.counts)
    with pytest.raises(UserError, match="holds counts, expected a trace"):
        store.read_trace(tmp_path)


def wrong_ids(trace):
    ids = trace.experts.copy()
    ids[10, 1, 2] = trace.router.experts
    return changed(trace, experts=ids)


def repeated(trace):
    ids = trace.experts.copy()
    ids[10, 2, 0] = ids[10, 2, 1]
    return changed(trace, experts=ids)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (wrong_ids, "sequence 1, position 3, layer 2: expert 9, expected ids below 9"),
        (repeated, "sequence 1, position 3, layer 5: an expert twice among"),
        (lambda t: changed(t, experts=t.experts[:, :2]), r"shape \(21, 2, 3\), expected \(21, 3, 3\)"),
        (lambda t: changed(t, position=t.position[:-1]), r"position has shape \(20,\), expected \(21,\)"),
        (lambda t: changed(t, token=t.token[:-1]), r"token has shape \(20,\), expected \(21,\)"),
        (lambda t: changed(t, sequence=t.sequence[::-1].copy()), "sequence 1, position 0: follows sequence 2"),
        (lambda t: changed(t, position=np.zeros(21, np.int32)), "sequence 0, position 0: follows position 0"),
        (lambda t: changed(t, phase=np.full(21, 2, np.uint8)), "sequence 0, position 0: phase 2"),
        (lambda t: t.select(np.zeros(21, bool)), "holds no token"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_place(spoil, expected):
    with pytest.raises(UserError, match=expected) as refused:
        check(spoil(random_trace()), "trace.parquet")
    assert str(refused.value).startswith("trace.parquet: ")
    assert "\n" not in str(refused.value)


def test_the_block_that_holds_the_mistake_does_not_matter(monkeypatch):
    monkeypatch.setattr("prophet_moe.routing.trace.BLOCK_TOKENS", 4)
    with pytest.raises(UserError, match="sequence 1, position 3, layer 2"):
        check(wrong_ids(random_trace()), "trace")


def truncate(folder):
    path = folder / store.TRACE
    path.write_bytes(path.read_bytes()[:-100])
    store.write_sums(folder, [store.TRACE, store.METADATA])


def flip(folder):
    path = folder / store.TRACE
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def claim(**values):
    def spoil(folder):
        path = folder / store.METADATA
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        store.write_sums(folder, [store.TRACE, store.METADATA])

    return spoil


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (truncate, r"trace\.parquet: truncated, or no Parquet file"),
        (flip, r"trace\.parquet: missing, or not as SHA256SUMS has it"),
        (lambda f: (f / store.TRACE).unlink(), r"trace\.parquet: missing, or not as SHA256SUMS has it"),
        (lambda f: store.write_sums(f, [store.TRACE]), "SHA256SUMS: does not list metadata.json"),
        (claim(tokens=20), "has 21 tokens, metadata.json says 20"),
        (claim(sequences=4), "has 3 sequences, metadata.json says 4"),
        (claim(top_k=2), r"expected lists of 6 \(3 layers x 2\)"),
        (claim(experts=3), "expected ids below 3"),
        (lambda f: (f / store.METADATA).unlink(), "holds no metadata.json: no trace"),
        (lambda f: (f / store.METADATA).write_text("{"), "metadata.json: could not be read"),
        (lambda f: (f / store.SUMS).unlink(), "unfinished, holds no SHA256SUMS"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path, spoil, expected):
    store.write_trace(tmp_path, random_trace())
    spoil(tmp_path)
    with pytest.raises(UserError, match=expected):
        store.read_trace(tmp_path)


@pytest.mark.parametrize(
    ("memory", "claimed", "expected"),
    [
        (10**9, {"tokens": 20}, "has 21 tokens, metadata.json says 20"),
        (2 * 21 * 3 * 3 - 1, {}, "holds arrays that do not fit into this machine's memory"),
    ],
)
def test_a_trace_is_measured_before_it_is_read(tmp_path, monkeypatch, memory, claimed, expected):
    store.write_trace(tmp_path, random_trace())
    claim(**claimed)(tmp_path)
    monkeypatch.setattr(store, "machine_memory", lambda: memory)
    monkeypatch.setattr(store.pq, "read_table", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(UserError, match=expected):
        store.read_trace(tmp_path)


def test_counts_that_fill_the_memory_are_not_expanded(tmp_path, monkeypatch):
    router = Router("m", 4, 1, (0,))
    store.write_counts(tmp_path, Counts(router, np.ones((1, 1, 4), int), Origin("test", "")))
    np.savez_compressed(tmp_path / store.COUNTS, counts=np.zeros((2**18, 1, 4), int))
    store.write_sums(tmp_path, [store.COUNTS, store.METADATA])
    monkeypatch.setattr(arrays, "EXPANDED_BYTES", 2**22)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("expanded"))
    with pytest.raises(UserError, match=r"counts\.npz: its .* bytes expand to 8,388,"):
        store.read_counts(tmp_path)


def test_counts_by_another_name_are_refused(tmp_path):
    router = Router("m", 4, 1, (0,))
    store.write_counts(tmp_path, Counts(router, np.ones((1, 1, 4), int), Origin("test", "")))
    np.savez_compressed(tmp_path / store.COUNTS, counted=np.ones((1, 1, 4), int))
    store.write_sums(tmp_path, [store.COUNTS, store.METADATA])
    with pytest.raises(UserError, match=r"counts\.npz: holds no array by the name counts\. Collect or import it again"):
        store.read_counts(tmp_path)


def test_a_trace_of_another_model_is_refused(tmp_path):
    store.write_trace(tmp_path, random_trace())
    with pytest.raises(UserError, match="is of model 'a-model', expected 'another'"):
        store.read_trace(tmp_path, "another")


def test_nothing_is_left_of_a_trace_that_is_wrong(tmp_path):
    with pytest.raises(UserError):
        store.write_trace(tmp_path / "out", wrong_ids(random_trace()))
    assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path)


def test_starts_of_sequences():
    assert sequence_starts(random_trace(sequences=3, tokens=7)).tolist() == [0, 7, 14, 21]
