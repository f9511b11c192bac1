"""Importers of routing traces: every format as its source writes it, and every wrong input in one line."""

import base64
import csv
import gzip
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prophet_moe.errors import UserError
from prophet_moe.routing import arrays
from prophet_moe.routing.importers import FORMATS, import_source, prompt_csv
from prophet_moe.routing.trace import DECODE, PREFILL, Counts, Origin, Router, Trace, check
from tests import plain_prompt_csv
from tests.conftest import published
from tests.fuzzing import assert_sound, fuzz

ORIGIN = Origin("a test", "CC0-1.0", notes={"kept": True})
ROUTER = Router("Tiny", 8, 2, (1, 2, 4))
HIDDEN = 6


class Request(NamedTuple):
    """A prompt's length and the experts (T, L, k) of prompt and generated tokens."""

    prompt: int
    experts: np.ndarray


@st.composite
def workloads(draw) -> tuple[Router, list[Request]]:
    """A small router and some requests; experts are distinct inside a token and layer."""
    experts = draw(st.integers(2, 300))
    top_k = draw(st.integers(1, min(experts, 4)))
    layers = tuple(sorted(draw(st.sets(st.integers(0, 5), min_size=1, max_size=3))))
    lengths = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    router = Router("Tiny", experts, top_k, layers)
    return router, [Request(prompt, choose(rng, router, prompt + generated)) for prompt, generated in lengths]


def choose(rng: np.random.Generator, router: Router, tokens: int) -> np.ndarray:
    """(T, L, k): experts drawn without replacement."""
    everyone = np.broadcast_to(np.arange(router.experts), (tokens, len(router.layers), router.experts))
    return rng.permuted(everyone, axis=2)[:, :, : router.top_k]


def requests(*lengths: tuple[int, int], router: Router = ROUTER) -> list[Request]:
    """Requests of (prompt, generated) tokens."""
    rng = np.random.default_rng(7)
    return [Request(prompt, choose(rng, router, prompt + generated)) for prompt, generated in lengths]


def expected(found: list[Request], *, prefill: bool = True, decode: bool = True) -> dict[str, np.ndarray]:
    """The columns of the trace of `found`, both phases or one of them."""
    sequence, position, phase, experts = [], [], [], []
    for number, (prompt, ids) in enumerate(found):
        first, last = (0 if prefill else prompt), (len(ids) if decode else prompt)
        positions = np.arange(first, last)
        sequence.append(np.full(len(positions), number))
        position.append(positions)
        phase.append(np.where(positions < prompt, PREFILL, DECODE))
        experts.append(ids[first:last])
    names = ("sequence", "position", "phase", "experts")
    return {
        name: np.concatenate(parts) for name, parts in zip(names, (sequence, position, phase, experts), strict=True)
    }


def assert_is(trace: Trace | Counts, columns: dict[str, np.ndarray], router: Router, *, ranked: bool) -> None:
    assert isinstance(trace, Trace)
    check(trace, "trace")
    for name, dtype in {"sequence": "i4", "position": "i4", "phase": "u1", "experts": "u2"}.items():
        found = getattr(trace, name)
        assert found.dtype == dtype, name
        np.testing.assert_array_equal(found, columns[name], err_msg=name)
    assert (trace.router, trace.ranked, trace.token) == (router, ranked, None)
    assert trace.origin.notes["kept"]
    assert (trace.origin.source, trace.origin.source_sha256) == (ORIGIN.source, "")


def hidden(ids: np.ndarray, router: Router, layers: int = HIDDEN, dense: int = 0) -> np.ndarray:
    """(T, hidden layers, k) from (T, L, k); dense layers hold `dense`."""
    full = np.full((len(ids), layers, router.top_k), dense, np.int32)
    full[:, list(router.layers)] = ids
    return full


def each_example(test: Callable) -> Callable:
    return settings(max_examples=20, deadline=None)(given(workload=workloads())(test))


# Writers of the formats.


def write_decode_arrays(path: Path, found: list[Request]) -> Path:
    generated = [ids[prompt:] for prompt, ids in found]
    np.savez(
        path,
        expert_ids=np.concatenate(generated).astype(np.uint16),
        seq_len=np.array([len(ids) for ids in generated], np.int32),
        prompt_len=np.array([prompt for prompt, _ in found], np.int32),
    )
    return path


def write_prompt_arrays(path: Path, found: list[Request], router: Router) -> Path:
    np.savez(
        path,
        expert_ids=np.concatenate([ids[:prompt] for prompt, ids in found]).astype(np.uint16),
        prompt_len=np.array([prompt for prompt, _ in found], np.int32),
        prompt_id=np.arange(len(found)) + 100,
        layer_ids=np.array(router.layers),
    )
    return path


def json_prompt(request: Request, router: Router, number: int = 0) -> dict[str, Any]:
    weights = [1.0 / (rank + 2) for rank in range(router.top_k)]
    return {
        "row_index": number,
        "dataset": "sums",
        "category": "mathematics",
        "finished_successfully": True,
        "has_repetition": False,
        "original_prompt": "1 + 1",
        "full_text": ["1 + 1", " = 2"],
        "generated_only": [" = 2"],
        "router_data": [
            {
                f"token_{position}": {
                    f"layer_{layer}": {"selected_experts": ids.tolist(), "selected_probs": weights}
                    for layer, ids in zip(router.layers, request.experts[position], strict=True)
                }
            }
            for position in range(request.prompt, len(request.experts))
        ],
    }


def csv_rows(request: Request, router: Router) -> list[list]:
    texts = ["Ġa,b", '"', "Ċ", "\u2028", "two\nlines", "end"]
    return [["Layer ID", "Batch Number", "Token", "Activated Expert IDs"]] + [
        [layer, 0, texts[position % len(texts)], request.experts[position, place].tolist()]
        for place, layer in enumerate(router.layers)
        for position in range(request.prompt)
    ]


def write_rows(path: Path, rows: list[list]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def response(request: Request, router: Router, layers: int = HIDDEN, last: int = 1) -> dict[str, Any]:
    """A response of SGLang; the last `last` generated tokens have no routing."""
    ids = hidden(request.experts, router, layers).astype("<i4")
    return {
        "text": " = 2",
        "output_ids": [1, 2],
        "meta_info": {
            "id": "0123456789abcdef",
            "finish_reason": {"type": "length", "length": 2},
            "prompt_tokens": request.prompt,
            "completion_tokens": len(ids) - request.prompt + last,
            "cached_tokens": 0,
            "routed_experts": base64.b64encode(ids.tobytes()).decode(),
        },
    }


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def write_lines(path: Path, contents: list) -> Path:
    path.write_text("".join(json.dumps(content) + "\n" for content in contents))
    return path


def logits_of(ids: np.ndarray, router: Router, rng: np.random.Generator) -> np.ndarray:
    """(T, L, E): logits whose k largest are `ids`, in order."""
    logits = rng.normal(size=(*ids.shape[:2], router.experts)).astype(np.float32)
    np.put_along_axis(logits, ids, 100.0 - np.arange(router.top_k, dtype=np.float32), axis=2)
    return logits


# Round trips.


@each_example
def test_arrays(tmp_path_factory, workload):
    router, found = workload
    path = write_decode_arrays(tmp_path_factory.mktemp("arrays") / "a.npz", found)
    assert_is(import_source("arrays", path, router, ORIGIN), expected(found, prefill=False), router, ranked=True)
    write_prompt_arrays(path, found, router)
    trace = import_source("arrays", path, router, ORIGIN)
    assert_is(trace, expected(found, decode=False), router, ranked=False)
    assert trace.origin.notes["prompt_id"] == [100 + number for number in range(len(found))]


@each_example
def test_prompt_json(tmp_path_factory, workload):
    router, found = workload
    folder = tmp_path_factory.mktemp("json")
    prompts = [json_prompt(request, router, number) for number, request in enumerate(found)]
    write_json(folder / "a.json", prompts[:-1])
    write_json(folder / "b.json", prompts[-1])
    trace = import_source("prompt_json", folder, router, ORIGIN)
    assert_is(trace, expected(found, prefill=False), router, ranked=True)
    assert [about["row_index"] for about in trace.origin.notes["sequences"]] == list(range(len(found)))
    last = {"file": "b.json", "dataset": "sums", "category": "mathematics", "finished_successfully": True}
    assert trace.origin.notes["sequences"][-1] == last | {"row_index": len(found) - 1, "has_repetition": False}


def test_prompt_json_is_ranked_only_if_all_weights_descend(tmp_path):
    prompt = json_prompt(requests((1, 3))[0], ROUTER)
    layer = prompt["router_data"][-1]["token_3"]["layer_4"]
    layer["selected_probs"].reverse()
    assert not import_source("prompt_json", write_json(tmp_path / "a.json", prompt), ROUTER, ORIGIN).ranked
    del layer["selected_probs"]
    assert not import_source("prompt_json", write_json(tmp_path / "a.json", prompt), ROUTER, ORIGIN).ranked


@each_example
def test_prompt_csv(tmp_path_factory, workload):
    router, found = workload
    folder = tmp_path_factory.mktemp("csv")
    for number, request in enumerate(found):
        write_rows(folder / f"prompt_{number}_data.csv", csv_rows(request, router))
    trace = import_source("prompt_csv", folder, router, ORIGIN)
    assert_is(trace, expected(found, decode=False), router, ranked=False)
    assert trace.origin.notes["sequences"][0] == {"file": "prompt_0_data.csv"}


def test_prompt_csv_passes_over_embeddings(tmp_path):
    found = requests((3, 0))
    rows = csv_rows(found[0], ROUTER)
    path = write_rows(
        tmp_path / "a.csv", [[*rows[0], "Token Embedding Vector"], *([*row, "[0.5]"] for row in rows[1:])]
    )
    trace = import_source("prompt_csv", path, ROUTER, ORIGIN)
    assert_is(trace, expected(found, decode=False), ROUTER, ranked=False)


ODD = ["0", "1", "2", "", "[", "[0, 00]", "[-0, 1]", "[1,2 ]", " [\n1\t, 2]\n", "[true, 1]", "[1.0, 2]", "[NaN, 1]"]
ODD += ["[٣, 2]", "[1, 2]\x0b", "[1, 2]\x00", f"[1, {10**17}]", f"[1, {10**18}]", "[1, 2, ]", "[[1, 2]]", "[,1]"]


def test_prompt_csv_reads_files_above_a_block(tmp_path, monkeypatch):
    found = requests((40, 0))
    path = write_rows(tmp_path / "a.csv", csv_rows(found[0], ROUTER))
    monkeypatch.setattr(prompt_csv, "BLOCK_BYTES", 100)
    trace = import_source("prompt_csv", path, ROUTER, ORIGIN)
    assert_is(trace, expected(found, decode=False), ROUTER, ranked=False)
    monkeypatch.setattr(prompt_csv, "BLOCK_BYTES", 10)
    with pytest.raises(UserError, match=r"a.csv: malformed CSV: .*block"):
        import_source("prompt_csv", path, ROUTER, ORIGIN)


CELLS = st.one_of(
    st.sampled_from(ODD),
    st.text(max_size=6),
    st.text(alphabet='[]0123456789,-+.e \t\n"Na', max_size=12),
    st.lists(st.integers(-2, 9), max_size=3).map(str),
)


@fuzz(60)
@given(
    tokens=st.integers(0, 3),
    wrong=st.one_of(st.integers(0, 9), st.tuples(st.integers(0, 9), st.integers(0, 3), CELLS)),
    moved=st.permutations(range(9)),
)
def test_prompt_csv_says_what_its_plain_reader_says(fresh_folder, tokens, wrong, moved):
    """Of whole files, of files that end early, and of those with another cell."""
    header, *rows = csv_rows(requests((tokens, 0))[0], ROUTER)
    rows = [header] + [rows[place] for place in moved if place < len(rows)]
    cut, line, column, cell = (wrong, 0, 0, header[0]) if isinstance(wrong, int) else (0, *wrong)
    rows[line % len(rows)][column] = cell
    path = write_rows(fresh_folder() / "a.csv", rows)
    path.write_bytes(path.read_bytes()[: -cut or None])
    found, plain = (told(read, path) for read in (prompt_csv.read, plain_prompt_csv.read))
    if isinstance(plain, str) or isinstance(found, str):
        assert found == plain
    else:
        assert found.origin == plain.origin
        assert_is(found, vars(plain), ROUTER, ranked=False)


@fuzz(60)
@given(
    place=st.integers(0, 400),
    cut=st.integers(0, 4),
    put=st.one_of(
        st.text('",\r\n[]1 a', max_size=4).map(str.encode),
        st.binary(max_size=3),
        st.sampled_from([b"\n\n", b"\r\n", b'""', b'"""', b"\xef\xbb\xbf", b"\0", b"\n,,,\n"]),
    ),
)
def test_prompt_csv_reads_damage_as_its_plain_reader(fresh_folder, place, cut, put):
    """Of a file in which a few bytes were put for others; a quote inside a cell without quotes is refused."""
    path = write_rows(fresh_folder() / "a.csv", csv_rows(requests((3, 0))[0], ROUTER))
    data = path.read_bytes()
    path.write_bytes(data[:place] + put + data[place + cut :])
    found, plain = (told(read, path) for read in (prompt_csv.read, plain_prompt_csv.read))
    if isinstance(found, Trace) and isinstance(plain, Trace):
        np.testing.assert_array_equal(found.experts, plain.experts)
    else:
        # Of two faults either may be told; Python counts the byte from where its decoder stopped before.
        first = ("a quote inside a cell that is not quoted", "is not UTF-8)")
        assert found == plain or (isinstance(found, str) and any(fault in found for fault in first))


def told(read: Callable, path: Path) -> Trace | str:
    """What `read` makes of a file: a trace, or the line that a user sees."""
    try:
        return read(path, ROUTER, ORIGIN)
    except UserError as error:
        return str(error)


@each_example
def test_sglang_routed_experts(tmp_path_factory, workload):
    router, found = workload
    folder = tmp_path_factory.mktemp("sglang")
    responses = [response(request, router, last=number % 2) for number, request in enumerate(found)]
    columns = expected(found)
    for path in (write_lines(folder / "a.jsonl", responses), write_json(folder / "b.json", responses)):
        trace = import_source("sglang_routed_experts", path, router, ORIGIN, hidden_layers=HIDDEN)
        assert_is(trace, columns, router, ranked=False)
    shortest = max(router.layers) + 1
    write_lines(folder / "a.jsonl", [response(request, router, shortest) for request in found])
    assert_is(import_source("sglang_routed_experts", folder / "a.jsonl", router, ORIGIN), columns, router, ranked=False)


@each_example
@pytest.mark.parametrize("form", ["whole", "split", "both", "length and both"])
def test_vllm_routed_experts(tmp_path_factory, workload, form):
    router, found = workload
    # Generated tokens that repeat the routing of the whole prompt cannot be told from the prompt itself.
    assume(not any(np.array_equal(ids[:prompt], ids[prompt : 2 * prompt]) for prompt, ids in found))
    folder = tmp_path_factory.mktemp("vllm")
    for number, (prompt, ids) in enumerate(found):
        full = hidden(ids, router).astype(np.int16)
        parts = {
            "whole": {"routed_experts": full, "prompt_len": prompt},
            "split": {"routed_experts": full[prompt:], "prompt_routed_experts": full[:prompt]},
            "both": {"routed_experts": full, "prompt_routed_experts": full[:prompt]},
            "length and both": {"routed_experts": full, "prompt_routed_experts": full[:prompt], "prompt_len": prompt},
        }
        np.savez(folder / f"{number}.npz", **parts[form])
    assert_is(import_source("vllm_routed_experts", folder, router, ORIGIN), expected(found), router, ranked=False)


@each_example
@pytest.mark.parametrize("form", ["one array", "flattened", "arrays by order", "arrays by layer", "flattened arrays"])
def test_transformers_logits(tmp_path_factory, workload, form):
    router, found = workload
    rng = np.random.default_rng(3)
    width = max(request.prompt for request in found)
    mask = np.zeros((len(found), width), np.int64)
    logits = rng.normal(size=(len(router.layers), len(found), width, router.experts)).astype(np.float32)
    for row, (prompt, ids) in enumerate(found):
        mask[row, width - prompt :] = 1
        logits[:, row, width - prompt :] = logits_of(ids[:prompt], router, rng).transpose(1, 0, 2)
    flat = logits.reshape(len(logits), -1, router.experts)
    arrays = {
        "one array": {"router_logits": logits},
        "flattened": {"router_logits": flat, "batch": len(found)},
        "arrays by order": {f"router_logits_{i}": layer for i, layer in enumerate(logits)},
        "arrays by layer": {f"router_logits_{i}": layer for i, layer in zip(router.layers, logits, strict=True)},
        "flattened arrays": {f"router_logits_{i}": layer for i, layer in enumerate(flat)} | {"batch": len(found)},
    }
    path = tmp_path_factory.mktemp("logits") / "a.npz"
    np.savez(path, attention_mask=mask, **arrays[form])
    trace = import_source("transformers_logits", path, router, ORIGIN)
    assert_is(trace, expected(found, decode=False), router, ranked=True)


def test_equal_logits_choose_the_lower_id(tmp_path):
    np.savez(tmp_path / "a.npz", router_logits=np.zeros((3, 1, 2, 8), np.float32))
    trace = import_source("transformers_logits", tmp_path / "a.npz", ROUTER, ORIGIN)
    assert trace.experts.tolist() == [[[0, 1]] * 3] * 2


def test_sglang_counts_in_json(tmp_path):
    counts = np.zeros((2, HIDDEN, ROUTER.experts))
    counts[:, list(ROUTER.layers)] = np.random.default_rng(1).integers(0, 9, (2, 3, 8))
    for number, window in enumerate(counts):
        write_json(tmp_path / f"{number}.json", {"logical_count": window.tolist()})
    found = import_source("sglang_recorder", tmp_path, ROUTER, ORIGIN)
    assert isinstance(found, Counts)
    assert found.counts.dtype == np.int64
    np.testing.assert_array_equal(found.counts, counts[:, list(ROUTER.layers)])
    assert found.origin.notes | {"remarks": []} == {"kept": True, "recorder": "stat", "remarks": []}


def test_the_published_decode_traces():
    """The arrays of gpt-oss-20b that the project's routing results start from."""
    path = published("routing/gptoss20b_decode.npz")
    trace = import_source("arrays", path, Router("GPT-OSS-20B", 32, 4, tuple(range(24))), ORIGIN)
    assert len(trace) == 215_438
    assert len(np.unique(trace.sequence)) == 703
    assert trace.ranked
    assert (trace.phase == DECODE).all()
    first = trace.sequence == 0
    assert (first.sum(), trace.position[first][0], trace.position[first][-1]) == (511, 101, 611)


# Wrong inputs: a function that writes one, and what the line must say.


def _arrays(**changes: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        ids = np.concatenate([ids for _, ids in requests((0, 2), (0, 3))])
        arrays = {"expert_ids": ids, "seq_len": [2, 3], "prompt_len": [5, 6]} | changes
        np.savez(folder / "a.npz", **{name: value for name, value in arrays.items() if value is not None})
        return folder / "a.npz"

    return write


def _npz(**arrays: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz"

    return write


def _bytes(name: str, content: bytes | str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / name

    return write


def _truncated(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def cut(folder: Path) -> Path:
        path = write(folder)
        path.write_bytes(path.read_bytes()[:-40])
        return path

    return cut


def _prompt(change: Callable[[dict], Any]) -> Callable[[Path], Path]:
    """Two prompts, the second changed."""

    def write(folder: Path) -> Path:
        prompts = [json_prompt(request, ROUTER) for request in requests((1, 2), (1, 2))]
        changed = change(prompts[1])
        return write_json(folder / "a.json", [prompts[0], prompts[1] if changed is None else changed])

    return write


def _layer(change: dict) -> Callable[[Path], Path]:
    return _prompt(lambda prompt: prompt["router_data"][1]["token_2"]["layer_2"].update(change))


def _mixed_layers(prompt: dict) -> None:
    layers = prompt["router_data"][1]["token_2"]
    layers["layer_3"] = layers.pop("layer_2")


def _rows(change: Callable[[list], Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        rows = csv_rows(requests((3, 0))[0], ROUTER)
        change(rows)
        return write_rows(folder / "a.csv", rows)

    return write


def _cell(line: int, column: int, value: Any) -> Callable[[Path], Path]:
    return _rows(lambda rows: rows[line - 1].__setitem__(column, value))


def _response(**meta: Any) -> Callable[[Path], Path]:
    """Two responses, the second with changes to its meta_info."""

    def write(folder: Path) -> Path:
        responses = [response(request, ROUTER, layers=5) for request in requests((3, 2), (3, 2))]
        changed = responses[1]["meta_info"] | meta
        responses[1]["meta_info"] = {key: value for key, value in changed.items() if value is not None}
        return write_lines(folder / "a.jsonl", responses)

    return write


def _counts(change: Callable[[np.ndarray], Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        counts = np.zeros((HIDDEN, ROUTER.experts))
        counts[list(ROUTER.layers)] = 3
        changed = change(counts)
        return write_json(folder / "a.json", {"logical_count": (counts if changed is None else changed).tolist()})

    return write


TOKENS = requests((3, 2))[0].experts
FULL = hidden(TOKENS, ROUTER)
LOGITS = np.zeros((3, 1, 2, 8), np.float32)
ENCODED = base64.b64encode(FULL[:, :5].astype("<i4").tobytes()).decode()

WRONG = {
    "arrays: missing file": ("arrays", lambda folder: folder / "a.npz", "No such file"),
    "arrays: no archive": ("arrays", _bytes("a.npz", "hello"), "truncated, or no .npz file"),
    "arrays: empty": ("arrays", _bytes("a.npz", ""), "truncated, or no .npz file"),
    "arrays: truncated": ("arrays", _truncated(_arrays()), "truncated, or no .npz file"),
    "arrays: objects": ("arrays", _arrays(expert_ids=np.array([{}])), "truncated, or no .npz file of plain arrays"),
    "arrays: no ids": ("arrays", _arrays(expert_ids=None), "holds seq_len, prompt_len, expected an array expert_ids"),
    "arrays: no lengths": ("arrays", _arrays(seq_len=None, prompt_len=None), "expected an array prompt_len"),
    "arrays: wrong k": (
        "arrays",
        _arrays(expert_ids=np.zeros((5, 3, 3), int)),
        "expected integers of shape (any, 3, 2)",
    ),
    "arrays: wrong layers": ("arrays", _arrays(layer_ids=[0, 1, 2]), "layer_ids are [0, 1, 2], expected [1, 2, 4]"),
    "arrays: floats": ("arrays", _arrays(expert_ids=np.zeros((5, 3, 2))), "expert_ids is float64"),
    "arrays: wrong sum": ("arrays", _arrays(seq_len=[2, 2]), "seq_len adds up to 4 tokens, expert_ids has 5"),
    "arrays: wrong sum of prompts": (
        "arrays",
        _arrays(seq_len=None),
        "prompt_len adds up to 11 tokens, expert_ids has 5",
    ),
    "arrays: negative length": ("arrays", _arrays(seq_len=[6, -1]), "seq_len holds -1"),
    "arrays: negative position": ("arrays", _arrays(prompt_len=[1, -1]), "prompt_len of sequence 1 is -1"),
    "arrays: far position": ("arrays", _arrays(prompt_len=[1, 2**31]), "prompt_len of sequence 1 is 2147483648"),
    "arrays: fewer positions": ("arrays", _arrays(prompt_len=[1]), "prompt_len is int64 of shape (1,)"),
    "arrays: prompt_id": ("arrays", _arrays(prompt_id=[1, 2, 3]), "prompt_id is int64 of shape (3,)"),
    "arrays: expert out of range": (
        "arrays",
        _arrays(expert_ids=np.full((5, 3, 2), 65536 + 3)),
        "token 0, layer 1: expert 65539, expected ids from 0 to 7",
    ),
    "arrays: expert twice": (
        "arrays",
        _arrays(expert_ids=np.full((5, 3, 2), 3)),
        "sequence 0, position 5, layer 1: an expert twice among [3, 3]",
    ),
    "arrays: no token": (
        "arrays",
        _arrays(expert_ids=np.zeros((0, 3, 2), int), seq_len=[0, 0]),
        "holds no token",
    ),
    "json: malformed": ("prompt_json", _bytes("a.json", '{"router_data": [}'), "line 1: malformed JSON"),
    "json: empty folder": ("prompt_json", lambda folder: folder, "holds no file that ends in .json"),
    "json: no such folder": ("prompt_json", lambda folder: folder / "b", "no such file or folder"),
    "json: not an object": ("prompt_json", _prompt(lambda prompt: [1]), "sequence 1: is list, expected an object"),
    "json: no router_data": ("prompt_json", _prompt(lambda prompt: {}), "sequence 1: router_data is missing"),
    "json: no sequence": ("prompt_json", _bytes("a.json", "[]"), "holds no token"),
    "json: mixed layers": (
        "prompt_json",
        _prompt(_mixed_layers),
        "sequence 1, position 2: has layer_1, layer_4, layer_3, expected layer_1, layer_2, layer_4",
    ),
    "json: wrong token": (
        "prompt_json",
        _prompt(lambda prompt: prompt["router_data"].append({"token_x": {}})),
        "sequence 1: key 'token_x', expected token_<position>",
    ),
    "json: tokens out of order": (
        "prompt_json",
        _prompt(lambda prompt: prompt["router_data"].reverse()),
        "sequence 1, position 1: follows position 2",
    ),
    "json: wrong k": ("prompt_json", _layer({"selected_experts": [1]}), "position 2, layer_2: selected_experts is [1]"),
    "json: text": ("prompt_json", _layer({"selected_experts": ["1", "2"]}), "expected 2 whole numbers"),
    "json: too large": ("prompt_json", _layer({"selected_experts": [1, 2**80]}), "expected 2 whole numbers"),
    "json: out of range": (
        "prompt_json",
        _layer({"selected_experts": [1, 8]}),
        "sequence 1: token 1, layer 2: expert 8",
    ),
    "json: wrong weights": ("prompt_json", _layer({"selected_probs": [1]}), "layer_2: selected_probs are not as many"),
    "csv: header": ("prompt_csv", _bytes("a.csv", "Layer,Token\n"), "has columns Layer, Token, expected Layer ID"),
    "csv: empty": ("prompt_csv", _bytes("a.csv", ""), "has columns , expected Layer ID"),
    "csv: quote in a cell": (
        "prompt_csv",
        _bytes("a.csv", 'Layer ID,Batch Number,Token,Activated Expert IDs\n1,0,a"b,"[1, 2]"\n'),
        "malformed CSV: a quote inside a cell that is not quoted",
    ),
    "csv: binary": ("prompt_csv", _bytes("a.csv", b"\xff\xfe"), "not a text file (byte 0 is not UTF-8)"),
    "csv: open quote": (
        "prompt_csv",
        _bytes("a.csv", 'Layer ID,Batch Number,Token,Activated Expert IDs\n1,0,"a'),
        "malformed CSV",
    ),
    "csv: short row": ("prompt_csv", _rows(lambda rows: rows[2].pop()), "line 3: has 3 cells, expected 4"),
    "csv: dense layer": ("prompt_csv", _cell(2, 0, 3), "line 2: layer 3, expected one of 1, 2, 4"),
    "csv: second batch": ("prompt_csv", _cell(2, 1, 1), "line 2: batch 1, expected 0"),
    "csv: malformed experts": ("prompt_csv", _cell(4, 3, "[1, 2"), "line 4: experts '[1, 2', expected a list of 2"),
    "csv: wrong k": ("prompt_csv", _cell(4, 3, "[1, 2, 3]"), "line 4: experts '[1, 2, 3]', expected a list of 2"),
    "csv: out of range": ("prompt_csv", _cell(2, 3, "[1, 9]"), "token 0, layer 1: expert 9, expected ids from 0 to 7"),
    "csv: fewer tokens": ("prompt_csv", _rows(lambda rows: rows.pop()), "layer 4 has 2 tokens, layer 1 has 3"),
    "csv: missing layer": ("prompt_csv", _rows(lambda rows: rows.__delitem__(slice(7, 10))), "layer 4 is missing"),
    "csv: other token": ("prompt_csv", _cell(5, 2, "other"), "layer 2: token 0 is 'other', in layer 1 it is 'Ġa,b'"),
    "sglang: malformed line": ("sglang_routed_experts", _bytes("a.jsonl", "\n{]\n"), "line 2: malformed JSON"),
    "sglang: not UTF-8": ("sglang_routed_experts", _bytes("a.jsonl", b'"\xff"\n'), "line 1: malformed JSON"),
    "sglang: malformed list": ("sglang_routed_experts", _bytes("a.json", "[1,"), "malformed JSON"),
    "sglang: no response": (
        "sglang_routed_experts",
        _bytes("a.json", "[3]"),
        "response 0: no meta_info.routed_experts",
    ),
    "sglang: no routing": (
        "sglang_routed_experts",
        _response(routed_experts=None),
        "line 2: no meta_info.routed_experts",
    ),
    "sglang: truncated base64": (
        "sglang_routed_experts",
        _response(routed_experts=ENCODED[:-3]),
        "line 2: routed_experts is no base64",
    ),
    "sglang: no ASCII": ("sglang_routed_experts", _response(routed_experts="é"), "routed_experts is no base64"),
    "sglang: cut base64": (
        "sglang_routed_experts",
        _response(routed_experts=ENCODED[:-4]),
        "line 2: routed_experts has 198 bytes, expected a multiple of 40",
    ),
    "sglang: no prompt": ("sglang_routed_experts", _response(prompt_tokens=None), "meta_info.prompt_tokens is None"),
    "sglang: long prompt": (
        "sglang_routed_experts",
        _response(prompt_tokens=7, completion_tokens=None),
        "expected the 7 of the prompt",
    ),
    "sglang: wrong length": (
        "sglang_routed_experts",
        _response(completion_tokens=1),
        "line 2: routed_experts has 5 tokens, expected 3 or 4",
    ),
    "sglang: dense layer as MoE layer": (
        "sglang_routed_experts",
        _response(routed_experts=base64.b64encode(np.zeros((5, 5, 2), "<i4").tobytes()).decode()),
        "sequence 1, position 0, layer 1: an expert twice among [0, 0]",
    ),
    "vllm: no prompt length": (
        "vllm_routed_experts",
        _npz(routed_experts=FULL),
        "expected prompt_len or prompt_routed",
    ),
    "vllm: long prompt": (
        "vllm_routed_experts",
        _npz(routed_experts=FULL, prompt_len=9),
        "prompt_len is 9, routed_experts has only 5 tokens",
    ),
    "vllm: two prompt lengths": (
        "vllm_routed_experts",
        _npz(routed_experts=FULL, prompt_len=2, prompt_routed_experts=FULL[:3]),
        "prompt_len is 2, prompt_routed_experts has 3",
    ),
    "vllm: MoE layers only": (
        "vllm_routed_experts",
        _npz(routed_experts=TOKENS, prompt_len=3),
        "shape (5, 3, 2), expected (tokens, hidden layers, 2) with at least 5 hidden layers",
    ),
    "vllm: wrong k": ("vllm_routed_experts", _npz(routed_experts=FULL[..., :1], prompt_len=3), "shape (5, 6, 1)"),
    "vllm: flat": ("vllm_routed_experts", _npz(routed_experts=FULL[0], prompt_len=1), "shape (any, any, any)"),
    "vllm: nothing": ("vllm_routed_experts", _npz(), "holds nothing, expected an array routed_experts"),
    "vllm: negative": ("vllm_routed_experts", _npz(routed_experts=-FULL, prompt_len=1), "expected ids from 0 to 7"),
    "logits: none": ("transformers_logits", _npz(logits=LOGITS), "holds logits, expected router_logits or 3 arrays"),
    "logits: layers": ("transformers_logits", _npz(router_logits=LOGITS[:2]), "has 2 layers, expected 3"),
    "logits: gap": (
        "transformers_logits",
        _npz(router_logits_0=LOGITS[0], router_logits_1=LOGITS[0], router_logits_3=LOGITS[0]),
        "expected router_logits or 3 arrays router_logits_<i>",
    ),
    "logits: experts": ("transformers_logits", _npz(router_logits=LOGITS[..., :7]), "expected numbers of shape"),
    "logits: whole numbers": ("transformers_logits", _npz(router_logits=LOGITS.astype(int)), "are int64 of shape"),
    "logits: NaN": ("transformers_logits", _npz(router_logits=LOGITS * np.nan), "hold NaN"),
    "logits: no batch": ("transformers_logits", _npz(router_logits=LOGITS[:, 0]), "expected the number batch"),
    "logits: wrong batch": (
        "transformers_logits",
        _npz(router_logits=LOGITS[:, 0], batch=3),
        "have 2 rows, expected a multiple of batch, 3",
    ),
    "logits: wrong mask": (
        "transformers_logits",
        _npz(router_logits=LOGITS, attention_mask=np.ones((2, 2))),
        "attention_mask has shape (2, 2), expected (1, 2)",
    ),
    "logits: unequal layers": (
        "transformers_logits",
        _npz(router_logits_0=LOGITS[0], router_logits_1=LOGITS[0], router_logits_2=LOGITS[0][:, :1]),
        "layers have shapes",
    ),
    "logits: nothing but padding": (
        "transformers_logits",
        _npz(router_logits=LOGITS, attention_mask=np.zeros((1, 2), bool)),
        "holds no token",
    ),
    "counts: other JSON": ("sglang_recorder", _bytes("a.json", "[1]"), "holds neither logical_count nor records"),
    "counts: ragged": ("sglang_recorder", _bytes("a.json", '{"logical_count": [[1], [1, 2]]}'), "no array of numbers"),
    "counts: text": ("sglang_recorder", _bytes("a.json", '{"logical_count": "many"}'), "no array of numbers"),
    "counts: experts": ("sglang_recorder", _counts(lambda counts: counts[:, :7]), "counts have shape (1, 6, 7)"),
    "counts: layers": ("sglang_recorder", _counts(lambda counts: counts[:4]), "counts have shape (1, 4, 8)"),
    "counts: fractions": ("sglang_recorder", _counts(lambda counts: counts / 2), "holds numbers that are not whole"),
    "counts: negative": ("sglang_recorder", _counts(lambda counts: -counts), "counts hold -3"),
    "counts: zero": ("sglang_recorder", _counts(lambda counts: counts * 0), "the recorder was not started"),
    "counts: dense layer": (
        "sglang_recorder",
        _counts(lambda counts: counts[::-1]),
        "layer 3 has recorded experts, expected MoE layers 1, 2, 4 only",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_one_line(case, tmp_path):
    name, write, problem = WRONG[case]
    path = write(tmp_path)
    line = complaint(name, path)
    assert problem in line
    assert line.startswith(str(path))


def complaint(name: str, path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as raised:
        import_source(name, path, ROUTER, ORIGIN, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", FORMATS)
@fuzz(15)
@given(data=st.data())
def test_damaged_files_are_one_line(fresh_folder, name, data):
    """Whatever bytes are changed, there is what can be or a line for the user."""
    folder = fresh_folder()
    path = WHOLE[name](folder)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert_sound(import_source(name, path, ROUTER, ORIGIN))
    except UserError as error:
        assert "\n" not in str(error)


WHOLE = {
    "arrays": _arrays(),
    "prompt_json": _prompt(lambda prompt: None),
    "prompt_csv": _rows(lambda rows: None),
    "sglang_recorder": _counts(lambda counts: None),
    "sglang_routed_experts": _response(),
    "vllm_routed_experts": _npz(routed_experts=FULL, prompt_len=3),
    "transformers_logits": _npz(router_logits=LOGITS),
    "counts": _npz(counts=np.full((3, 8), 20)),
    "lines": _bytes("a.csv", "pos,layer,e0,e1\n0,1,3,5\n0,2,1,6\n0,4,0,7\n"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_whole_files_are_read(name, tmp_path):
    assert import_source(name, WHOLE[name](tmp_path), ROUTER, ORIGIN).router == ROUTER


def test_unknown_formats_and_options(tmp_path):
    path = _arrays()(tmp_path)
    assert "unknown format 'array', expected one of arrays, prompt_json" in complaint("array", path)
    assert "format arrays has no option hidden_layers" in complaint("arrays", path, hidden_layers=3)
    path = _response()(tmp_path)
    assert "hidden_layers is 4, expected more than the last MoE layer, 4" in complaint(
        "sglang_routed_experts", path, hidden_layers=4
    )


def test_dumps_of_different_kinds_are_refused(tmp_path):
    _counts(lambda counts: None)(tmp_path)
    write_json(tmp_path / "b.json", {"records": [{"topk_ids_of_layer": []}]})
    assert "b.json: is a dump of mode per_token, a.json is one of stat" in complaint("sglang_recorder", tmp_path)


def test_reading_a_dump_takes_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.pt").write_bytes(b"")
    assert "a.pt: reading it takes PyTorch. Run make gpu, then .venv-gpu/bin/" in complaint("sglang_recorder", tmp_path)


def _zeros(path: Path, size: int) -> Path:
    """An .npz file that holds an array of `size` zeros and is a thousandth of that."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        head = {"descr": "|u1", "fortran_order": False, "shape": (size // 6, 3, 2)}
        np.lib.format.write_array_header_1_0(member, head)
        for _ in range(0, size, 2**20):
            member.write(bytes(2**20))
    return path


@pytest.mark.parametrize("name", ["arrays", "counts", "vllm_routed_experts", "transformers_logits"])
def test_archives_that_fill_the_memory_are_not_expanded(name, tmp_path, monkeypatch):
    path = _zeros(tmp_path / "a.npz", 6 * 2**20)
    monkeypatch.setattr(arrays, "EXPANDED_BYTES", 2**22)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("expanded"))
    assert "bytes expand to 6,29" in complaint(name, path)


def test_arrays_that_pack_well_are_read(tmp_path):
    """However small a file is, it may expand to what takes no time."""
    np.savez_compressed(tmp_path / "a.npz", expert_ids=np.zeros((2**20, 3, 2), np.uint8))
    assert "expected an array prompt_len" in complaint("arrays", tmp_path / "a.npz")


def test_arrays_larger_than_their_file_are_refused(tmp_path):
    with (tmp_path / "a.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<i8", "fortran_order": False, "shape": (2**20, 8)})
    assert "truncated: an array of 67,108,864 bytes in 128" in complaint("counts", tmp_path / "a.npy")


def test_archives_may_hold_other_files(tmp_path):
    """NumPy gives the bytes of what is no array, which ended in a traceback."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("expert_ids", "no array")
    assert "zip archive without arrays" in complaint("arrays", tmp_path / "a.npz")


def test_gzip_files_that_fill_the_memory_are_cut_short(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "EXPANDED_BYTES", 2**22)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"pos,layer,e0,e1\n" + bytes(2**26)))
    assert "bytes expand to 6,5" in complaint("lines", tmp_path / "a.csv.gz")
