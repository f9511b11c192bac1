"""Counts of choices: every form that is read, what is refused or doubted, and what they say about the law for u(B)."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.errors import UserError
from prophet_moe.routing import counted, law, store
from prophet_moe.routing.counted_law import beside_law, popularity_cv_of
from prophet_moe.routing.importers import import_source, import_trace
from prophet_moe.routing.importers.reading import REMARKS
from prophet_moe.routing.law_schema import BATCHES
from prophet_moe.routing.trace import PREFILL, Counts, Origin, Router, check_counts
from tests.conftest import published
from tests.fuzzing import fuzz

ORIGIN = Origin("a test", "CC0-1.0")
ROUTER = Router("Tiny", 8, 2, (1, 2, 4))


def drawn(seed: int, router: Router = ROUTER, tokens: int = 400, windows: int = 1) -> np.ndarray:
    """(windows, L, E): counts of tokens whose experts differ in popularity."""
    rng = np.random.default_rng(seed)
    favour = rng.normal(size=(len(router.layers), router.experts))
    noise = rng.gumbel(size=(windows, tokens, len(router.layers), router.experts))
    chosen = np.argsort(-(favour + noise), axis=-1)[..., : router.top_k]
    one_hot = np.eye(router.experts, dtype=np.int64)[chosen]
    return one_hot.sum(axis=(1, 3))


def hidden(counts: np.ndarray, router: Router = ROUTER, layers: int = 6) -> np.ndarray:
    """(..., hidden layers, E) of (..., L, E), dense layers 0."""
    full = np.zeros((*counts.shape[:-2], layers, counts.shape[-1]), counts.dtype)
    full[..., list(router.layers), :] = counts
    return full


def table(path: Path, counts: np.ndarray, layers: tuple[int, ...], header=("layer", "expert", "count")) -> Path:
    """A CSV file of the counts (L, E) that are not 0."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(
            [layer, expert, counts[row, expert]]
            for row, layer in enumerate(layers)
            for expert in range(counts.shape[1])
            if counts[row, expert]
        )
    return path


def written(folder: Path, form: str, counts: np.ndarray) -> Path:
    """Counts (1, L, E) in one of the forms that are read."""
    kind, rows = form.split(", ")
    numbers = counts[0] if rows == "MoE layers" else hidden(counts)[0]
    if kind == "csv":
        return table(folder / "a.csv", counts[0], ROUTER.layers if rows == "hidden layers" else (0, 1, 2))
    if kind == "npy":
        np.save(folder / "a.npy", numbers.astype(np.int32))
        return folder / "a.npy"
    if kind.startswith("npz"):
        np.savez(folder / "a.npz", **{kind[4:]: numbers[None], "other": np.ones(3)} if kind[4:] else {"x": numbers})
        return folder / "a.npz"
    content = {kind[5:]: numbers.tolist(), "about": "a test"} if kind[5:] else numbers.astype(float).tolist()
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"


FORMS = [
    f"{kind}, {rows}"
    for kind in ("csv", "npy", "npz", "npz counts", "json", "json counts", "json logical_count")
    for rows in ("MoE layers", "hidden layers")
]


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_counts_of_every_form_are_read(tmp_path_factory, form, seed):
    counts = drawn(seed)
    found = import_source("counts", written(tmp_path_factory.mktemp("counts"), form, counts), ROUTER, ORIGIN)
    assert isinstance(found, Counts) and found.counts.dtype == np.int64
    np.testing.assert_array_equal(found.counts, counts)
    assert REMARKS not in found.origin.notes


def test_counts_of_a_folder_are_windows(tmp_path):
    counts = drawn(1, windows=3)
    for number, window in enumerate(counts):
        np.save(tmp_path / f"{number}.npy", window)
    np.save(tmp_path / "9.npy", np.zeros((2, 3, 8), int))
    found = import_source("counts", tmp_path, ROUTER, ORIGIN)
    np.testing.assert_array_equal(found.counts, counts)
    assert found.origin.notes["files"] == ["0.npy", "1.npy", "2.npy", "9.npy"]


def test_counts_csv_takes_columns_in_any_order(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffExpert, Count,layer\r\n" + "".join(f"{e},3,{i}\r\n" for i in range(3) for e in range(8)))
    assert (import_source("counts", path, ROUTER, ORIGIN).counts == 3).all()


def changed(change) -> np.ndarray:
    counts = drawn(2)[0]
    change(counts)
    return counts


def all_on_one(counts: np.ndarray) -> None:
    counts[1] = 0
    counts[1, 3] = 800


IMPOSSIBLE = {
    "one expert": (changed(all_on_one), "window 0, layer 2: expert 3 has 800 of 800 choices, expected at most 1/2"),
    "negative": (changed(lambda counts: counts.__setitem__((0, 0), -1)), "counts hold -1, expected none below 0"),
    "empty layer": (changed(lambda counts: counts.__setitem__(2, 0)), "layer 4 has no count"),
    "nothing": (np.zeros((3, 8), int), "all counts are 0"),
    "fractions": (drawn(2)[0] / 3, "holds numbers that are not whole"),
    "infinite": (np.full((3, 8), np.inf), "not finite or too large"),
    "too large": (np.full((3, 8), 2**64 - 1, np.uint64), "not finite or too large"),
    "too many": (np.full((3, 8), 2**52), "more than 2^53 choices"),
    "dense layer": (hidden(drawn(2))[0][::-1], "layer 3 has recorded experts, expected MoE layers 1, 2, 4 only"),
    "other experts": (np.ones((3, 7), int), "shape (1, 3, 7), expected (windows, 3 MoE or at least 5 hidden layers, 8"),
    "other layers": (np.ones((4, 8), int), "counts have shape (1, 4, 8)"),
    "one axis": (np.ones(8, int), "counts have shape (8,)"),
    "four axes": (np.ones((1, 1, 3, 8), int), "counts have shape (1, 1, 3, 8)"),
    "text": (np.full((3, 8), "a"), "is no array of numbers"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_counts_are_refused_in_one_line(case, tmp_path):
    counts, problem = IMPOSSIBLE[case]
    np.save(tmp_path / "a.npy", counts)
    assert problem in refused(tmp_path / "a.npy")


def refused(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        import_source("counts", path, ROUTER, ORIGIN)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)
    return str(raised.value)


FILES = {
    "header": ("a.csv", "layer,expert\n0,0\n", "has columns layer, expert, expected layer, expert, count"),
    "empty": ("a.csv", "", "has columns , expected layer, expert, count"),
    "cells": ("a.csv", "layer,expert,count\n0,0\n", "line 2: has 2 cells, expected 3"),
    "twice": ("a.csv", "layer,expert,count\n0,0,1\n0,0,2\n", "line 3: layer 0, expert 0 is counted twice"),
    "fraction": ("a.csv", "layer,expert,count\n0,0,1.5\n", "line 2: count is '1.5', expected a whole number from 0"),
    "digits": ("a.csv", "layer,expert,count\n0,0," + "9" * 5000 + "\n", "expected a whole number from 0"),
    "expert": ("a.csv", "layer,expert,count\n0,8,1\n", "line 2: layer 0, expert 8, expected layers below"),
    "layer": ("a.csv", "layer,expert,count\n99999999,0,1\n", "layer 99999999, expert 0, expected layers below"),
    "no names": ("a.json", '{"a": [[1]]}', "holds a, expected counts by the name counts or logical_count"),
    "both names": ("a.json", '{"counts": [], "logical_count": []}', "expected counts by the name"),
    "digits in JSON": ("a.json", "[[" + "9" * 5000 + "]]", "malformed JSON: a number of thousands of digits"),
    "brackets": ("a.json", "[" * 200_000, "malformed JSON: a number of thousands of digits, or thousands of brackets"),
    "ragged": ("a.json", "[[1, 2], [3]]", "counts is no array of numbers"),
    "null": ("a.json", "[[null]]", "counts is no array of numbers"),
    "no archive": ("a.npz", "hello", "truncated, or no .npz file of plain arrays"),
    "no array": ("a.npy", "hello", "truncated, or no .npy file of plain arrays"),
}


@pytest.mark.parametrize("case", FILES)
def test_wrong_files_of_counts_are_one_line(case, tmp_path):
    name, content, problem = FILES[case]
    (tmp_path / name).write_text(content)
    assert problem in refused(tmp_path / name)


def test_counts_where_a_trace_is_needed_are_refused(tmp_path):
    """Of a dataset of config/datasets.yaml, for example."""
    with pytest.raises(UserError, match="holds counts, expected routing token by token"):
        import_trace("counts", written(tmp_path, "npy, MoE layers", drawn(1)), ROUTER, ORIGIN)


def test_an_array_larger_than_memory_is_one_line(tmp_path):
    header = "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000, 8), }".ljust(117) + "\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    assert "a.npy: " in refused(tmp_path / "a.npy")


@fuzz(60)
@given(data=st.data())
def test_no_file_of_counts_ends_in_a_traceback(fresh_folder, data):
    """Whatever a file holds, it is counts that can be, or a line for the user."""
    folder = fresh_folder()
    suffix = data.draw(st.sampled_from(["csv", "json", "npy", "npz"]))
    cell = st.one_of(st.integers(-3, 900), st.integers(), st.floats(), st.text(max_size=3), st.none(), st.booleans())
    path = folder / f"a.{suffix}"
    if suffix == "csv":
        rows = data.draw(st.lists(st.lists(st.one_of(st.integers(0, 9), cell), min_size=2, max_size=4), max_size=30))
        path.write_text("layer,expert,count\n" + "\n".join(",".join(map(str, row)) for row in rows), errors="replace")
    elif suffix == "json":
        lists = st.recursive(cell, lambda inner: st.lists(inner, max_size=8), max_leaves=40)
        content = data.draw(st.one_of(lists, st.dictionaries(st.sampled_from(["counts", "logical_count", "x"]), lists)))
        path.write_text(json.dumps(content))
    else:
        written(folder, f"{suffix}, MoE layers", drawn(3))
        content = bytearray(path.read_bytes())
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
            content[place] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = import_source("counts", path, ROUTER, ORIGIN)
    except UserError as error:
        assert "\n" not in str(error)
        return
    choices = found.counts.sum(axis=2)
    assert (found.counts >= 0).all() and (found.counts * ROUTER.top_k <= choices[:, :, None]).all()


def remarks(counts: np.ndarray, tmp_path: Path) -> str:
    np.save(tmp_path / "a.npy", counts)
    return "; ".join(import_source("counts", tmp_path / "a.npy", ROUTER, ORIGIN).origin.notes.get(REMARKS, []))


def test_totals_that_no_tokens_give_are_doubted(tmp_path):
    counts = drawn(4)
    counts[0, 1, counts[0, 1].argmin()] += 1
    told = remarks(counts, tmp_path)
    assert "window 0, layer 2 has 801 choices, no multiple of top-k 2" in told
    assert "layers of window 0 have 800 to 801 choices" in told


def test_a_collapsed_router_is_doubted(tmp_path):
    counts = drawn(5)
    counts[0, 2] = 0
    counts[0, 2, :2] = 400
    assert "the router has collapsed in layers 4: nearly all tokens choose the same 2 experts" in remarks(
        counts, tmp_path
    )


def test_few_tokens_are_doubted(tmp_path):
    assert "the tokens are few: by chance alone" in remarks(drawn(6, tokens=3), tmp_path)


@pytest.mark.parametrize("name", ["counts", "sglang_recorder"])
def test_impossible_shares_are_refused_in_every_format(name, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"logical_count": hidden(changed(all_on_one)).tolist()}))
    with pytest.raises(UserError, match="expert 3 has 800 of 800 choices"):
        import_source(name, tmp_path / "a.json", ROUTER, ORIGIN)


def test_impossible_counts_on_disk_are_refused(tmp_path):
    counts = Counts(ROUTER, changed(all_on_one)[None], ORIGIN)
    with pytest.raises(UserError, match="expected at most 1/2"):
        store.write_counts(tmp_path, counts)


def test_popularity_cv_of_is_that_by_hand():
    shares = counted.popularity(Counts(Router("Tiny", 4, 2, (0,)), np.array([[[3, 1, 4, 0]]]), ORIGIN))
    np.testing.assert_allclose(shares, [[0.75, 0.25, 1.0, 0.0]])
    np.testing.assert_allclose(counted.popularity_cv(shares), np.std([3, 1, 4, 0]) / 2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_beside_law_is_exact_at_one_and_two(seed):
    """At the root mean square of the layers' popularity CV the law has the right second moment."""
    counts = Counts(ROUTER, drawn(seed), ORIGIN)
    found = beside_law(counts)
    assert abs(found.rows[0].measured_error) < 1e-9 and abs(found.rows[1].measured_error) < 1e-9
    shares = counted.popularity(counts)
    by_hand = [np.sum(1 - (1 - shares) ** batch) / len(shares) for batch in BATCHES]
    np.testing.assert_allclose([row.skewed for row in found.rows], by_hand)


def test_beside_law_fits_better_than_the_plain_spread():
    found = beside_law(Counts(ROUTER, drawn(8), ORIGIN))
    worst = [max(abs(getattr(row, f"{kind}_error")) for row in found.rows) for kind in ("measured", "effective")]
    assert worst[1] < worst[0]


def test_popularity_cv_of_a_total_has_no_interval():
    found = popularity_cv_of(Counts(ROUTER, drawn(9), ORIGIN), "mine")
    assert np.isnan([found.low, found.high]).all()
    assert found.source == "counts of mine, no interval: it takes counts of 20 windows or more, here are 1"


def test_popularity_cv_of_windows_has_an_interval():
    counts = drawn(9, windows=300, tokens=20)
    found = popularity_cv_of(Counts(ROUTER, counts, ORIGIN), "mine")
    assert found.low < found.value < found.high < 1.5 * found.low
    assert (found.model, found.batching, found.source) == ("Tiny", "staggered", "counts of mine")
    wide = popularity_cv_of(Counts(ROUTER, counts[:30], ORIGIN), "mine")
    assert wide.high - wide.low > found.high - found.low


def test_popularity_cv_of_uniform_counts_is_zero():
    found = beside_law(Counts(ROUTER, np.full((1, 3, 8), 100), ORIGIN))
    assert found.measured == 0 and found.effective < 0.01
    np.testing.assert_allclose(
        [row.uniform for row in found.rows],
        law.uniform_occupancy(np.full(7, 8.0), np.full(7, 2.0), np.array(BATCHES, float)),
    )


PUBLISHED = {
    "olmoe_alpaca_counts_per_example.npz": (Router("OLMoE", 64, 8, tuple(range(16))), 1024, 0.506),
    "olmoe_alpaca_counts_sglang_stat.json": (Router("OLMoE", 64, 8, tuple(range(16))), 1, 0.506),
    "deepseek_moe_16b_counts_sglang_stat.json": (Router("DeepSeek-MoE-16B", 64, 6, tuple(range(1, 28))), 1, 0.159),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_are_read(name):
    """Counts of OLMoE and DeepSeek-MoE-16B that others published."""
    path = published(f"routing/counts/{name}")
    router, windows, effective = PUBLISHED[name]
    counts = import_source("counts", path, router, ORIGIN)
    assert len(counts.counts) == windows and REMARKS not in counts.origin.notes
    found = beside_law(check_counts(counts, path))
    assert found.effective == pytest.approx(effective, abs=5e-4)
    assert max(abs(row.effective_error) for row in found.rows) < 0.01


@pytest.mark.parametrize("task", ["intent", "law", "summary", "translation"])
def test_published_prefill_traces_are_read(task):
    """Routing of DeepSeek-V2-Lite, prefill, in the form of `arrays`."""
    path = published(f"routing/esft/dsv2lite_esft_{task}.npz")
    trace = import_source("arrays", path, Router("DeepSeek-V2-Lite", 64, 6, tuple(range(1, 27))), ORIGIN)
    with np.load(path) as held:
        np.testing.assert_array_equal(trace.experts, held["expert_ids"])
    assert trace.described_phase == PREFILL and not trace.ranked


def test_a_head_of_an_array_that_is_no_python_is_one_line(tmp_path):
    np.save(tmp_path / "a.npy", drawn(1))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"'fortran_order':", b"'fortran_order'("))
    assert "truncated, or no .npy file of plain arrays" in refused(tmp_path / "a.npy")
