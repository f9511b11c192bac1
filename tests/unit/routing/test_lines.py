"""The importer `lines`: every form as its engine writes it, and every mistake in one line that names the line."""

import gzip
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.errors import UserError
from prophet_moe.routing.importers import import_source
from prophet_moe.routing.trace import DECODE, PREFILL, Origin, Router, Trace, check
from tests.conftest import published
from tests.fuzzing import fuzz

SAMPLES = Path(__file__).parent / "lines"
DOCS = Path("docs/formats.md")
ORIGIN = Origin("a test", "CC0-1.0")
TINY = Router("Tiny", 8, 2, (0, 1))
EXPERTS = [[[3, 5], [1, 6]], [[3, 2], [6, 0]], [[7, 3], [1, 4]]]
"""(3, 2, 2): what every sample says."""
PHASED = {"atlas.json.gz", "big_moe_on_edge.csv", "llama_moe_trace_phases.csv"}
"""Samples whose first token is of the prompt."""
RANKED = {*PHASED, "colibri.txt", "ds4.csv", "lattice.jsonl"}
STATES_EXPERTS = {"atlas.json.gz", "big_moe_on_edge.csv"}
TEXTS = sorted(path.name for path in SAMPLES.iterdir() if path.suffix not in (".bin", ".gz"))


def read(path: Path, router: Router | str = TINY, **options) -> Trace:
    trace = import_source("lines", path, router, ORIGIN, **options)
    assert isinstance(trace, Trace)
    return trace


def written(folder: Path, text: str | bytes, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint(path: Path, router: Router | str = TINY, **options) -> str:
    with pytest.raises(UserError) as raised:
        read(path, router, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.iterdir()))
def test_lines_every_form_gives_the_same_tokens(name):
    trace = read(SAMPLES / name)
    assert trace.experts.tolist() == EXPERTS
    assert trace.position.tolist() == [0, 1, 2]
    assert trace.sequence.tolist() == [0, 0, 0]
    assert trace.phase.tolist() == [PREFILL if name in PHASED else DECODE, DECODE, DECODE]
    assert trace.ranked == (name in RANKED)
    assert trace.origin.notes["sequences"] == [{"file": name}]


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.iterdir()))
def test_lines_unknown_model_needs_stated_experts(name):
    options = {"top_k": 2} if name in ("llama_moe_trace.csv",) else {}
    if name not in STATES_EXPERTS:
        problem = "says nothing of the number of experts, and model 'New' is not known. Add --experts N"
        assert problem in complaint(SAMPLES / name, "New", **options)
        options |= {"experts": 8}
    trace = read(SAMPLES / name, "New", **options)
    assert trace.router == Router("New", 8, 2, (0, 1))
    assert "model 'New' is not in config/; taken from the file: E = 8, 2 MoE layers" in trace.origin.notes["remarks"][0]


def test_lines_docs_show_every_sample():
    shown = DOCS.read_text()
    for name in TEXTS:
        first = (SAMPLES / name).read_text().splitlines()[:6]
        assert "\n".join(f"    {line}" for line in first) in shown, name


def columns(router: Router, experts: np.ndarray, delimiter: str = ",") -> str:
    """Tokens after one another, k columns."""
    names = ["pos", "layer", *(f"e{rank}" for rank in range(router.top_k))]
    rows = [
        [token, layer, *experts[token, index]]
        for token in range(len(experts))
        for index, layer in enumerate(router.layers)
    ]
    return "".join(delimiter.join(map(str, row)) + "\n" for row in [names, *rows])


def implied(router: Router, experts: np.ndarray, prompt: int) -> str:
    """A prompt layer by layer, the last layer for its last token only; then token by token; no token is named."""
    passes = [list(range(prompt)), *([token] for token in range(prompt, len(experts)))]
    rows = []
    for tokens in passes:
        for index, layer in enumerate(router.layers):
            last = index == len(router.layers) - 1
            rows += [f"{layer},{expert}" for token in tokens[-1 if last else 0 :] for expert in experts[token, index]]
    return "layer,expert\n" + "\n".join(rows)


@st.composite
def workloads(draw) -> tuple[Router, np.ndarray]:
    """A router with two layers or more, and the choices (T, L, k) of some tokens."""
    experts = draw(st.integers(2, 300))
    top_k = draw(st.integers(1, min(experts, 6)))
    layers = tuple(sorted(draw(st.sets(st.integers(0, 9), min_size=2, max_size=4))))
    tokens = draw(st.integers(2, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    everyone = np.broadcast_to(np.arange(experts), (tokens, len(layers), experts))
    return Router("Tiny", experts, top_k, layers), rng.permuted(everyone, axis=2)[..., :top_k]


@settings(max_examples=25, deadline=None)
@given(workload=workloads(), delimiter=st.sampled_from(",;\t "))
def test_lines_columns_read_back(tmp_path_factory, workload, delimiter):
    router, experts = workload
    text = columns(router, experts, delimiter)
    trace = read(written(tmp_path_factory.mktemp("lines"), text), router)
    np.testing.assert_array_equal(trace.experts, experts)


@settings(max_examples=25, deadline=None)
@given(workload=workloads(), data=st.data())
def test_lines_implied_tokens_read_back(tmp_path_factory, workload, data):
    """A prompt loses the tokens for which the last layer was not run, and nothing else."""
    router, experts = workload
    prompt = data.draw(st.integers(1, len(experts)))
    trace = read(written(tmp_path_factory.mktemp("lines"), implied(router, experts, prompt)), router)
    np.testing.assert_array_equal(trace.experts, experts[prompt - 1 :])
    assert trace.position.tolist() == list(range(prompt - 1, len(experts)))
    told = " ".join(trace.origin.notes["remarks"])
    assert (f"{prompt - 1} prompt tokens left out" in told) == (prompt > 1)


def test_lines_concatenated_files_are_sequences(tmp_path):
    text = (SAMPLES / "moe_cache_profile.csv").read_text()
    trace = read(written(tmp_path, text + text))
    assert trace.sequence.tolist() == [0, 0, 0, 1, 1, 1]
    assert "2 sequences" not in " ".join(trace.origin.notes["remarks"])
    without_header = text.split("\n", 1)[1]
    trace = read(written(tmp_path, text + without_header))
    assert trace.sequence.tolist() == [0, 0, 0, 1, 1, 1]
    assert trace.origin.notes["remarks"][0] == "a.csv: 2 sequences, as positions start anew 1 times"
    implied_order = (SAMPLES / "llama_moe_trace.csv").read_text()
    assert read(written(tmp_path, implied_order + implied_order)).position.tolist() == [0, 1, 2, 0, 1, 2]


def test_lines_folder_is_a_sequence_per_file(tmp_path):
    for name in ("a.csv", "b.csv"):
        written(tmp_path, (SAMPLES / "ds4.csv").read_bytes(), name)
    trace = read(tmp_path)
    assert trace.sequence.tolist() == [0, 0, 0, 1, 1, 1]
    assert trace.origin.notes["sequences"] == [{"file": "a.csv"}, {"file": "b.csv"}]


def test_lines_interleaved_sequences_are_sorted(tmp_path):
    text = "request,pos,layer,e0,e1\n"
    rows = [(pos, layer, *EXPERTS[pos][layer]) for pos in range(3) for layer in range(2)]
    text += "".join(f"{name},{','.join(map(str, row))}\n" for row in rows for name in ("x", "y"))
    trace = read(written(tmp_path, text))
    assert trace.sequence.tolist() == [0, 0, 0, 1, 1, 1]
    assert trace.experts.tolist() == [*EXPERTS, *EXPERTS]


def test_lines_weights_give_the_ranks(tmp_path):
    trace = read(written(tmp_path, "pos,layer,e0,e1,w0,w1\n0,0,3,5,0.1,0.9\n0,1,1,6,0.7,0.3\n"))
    assert trace.ranked and trace.experts.tolist() == [[[5, 3], [1, 6]]]


def test_lines_columns_can_be_named(tmp_path):
    path = written(tmp_path, "0 0 3 5\n0 1 1 6\n")
    assert "Name the columns by number, such as --columns token=1,layer=2" in complaint(path)
    assert read(path, columns="token=1,layer=2,experts=3..4").experts.tolist() == EXPERTS[:1]
    path = written(tmp_path, "t\tblock\tslot\tchosen\n0\t0\t9\t[3,5]\n0\t1\t9\t[1,6]\n")
    assert "none of them known for layer: add --columns layer=NAME" in complaint(path)
    named = read(path, columns="token=t,layer=block,experts=chosen,rank=")
    assert named.experts.tolist() == EXPERTS[:1]


@pytest.mark.parametrize(
    "content",
    [
        "a" * 2_000_000 + "\n1",
        "a1" * 1_000_000 + " x\n1",
        "# a=" + " " * 2_000_000 + "x\n1",
        "# " + "a" * 2_000_000 + "\n1",
        ",".join(f"c{number}" for number in range(300_000)) + "\n",
        "0 0 0" + " 1:1" * 300_000 + " x\n",
        "[" * 1_000_000,
        "layer,experts\n0," + "9" * 1_000_000,
        "layer,experts\n" + "".join(f"{number},1\n" for number in range(60_000)),
    ],
    ids=["word", "digits", "spaces", "comment", "columns", "pairs", "deep", "number", "layers"],
)
def test_lines_no_input_takes_long_to_refuse(tmp_path, content):
    path = written(tmp_path, content)
    started = time.process_time()
    for router in (TINY, "New"):
        with pytest.raises(UserError):
            read(path, router)
    assert time.process_time() - started < 4.0


def test_lines_prompt_tokens_are_prefill():
    assert "got 1, but " in complaint(SAMPLES / "big_moe_on_edge.csv", prompt_tokens=1)
    assert read(SAMPLES / "ds4.csv", prompt_tokens=2).phase.tolist() == [PREFILL, PREFILL, DECODE]


def test_lines_recorded_hits_are_kept():
    notes = read(SAMPLES / "big_moe_on_edge.csv").origin.notes["lines"]["big_moe_on_edge.csv"]
    recorded = notes["recorded_cache"]
    assert (recorded["requests"], recorded["hits"]) == (12, 4)
    assert recorded["by_phase"]["decode"]["hit_rate"] == 0.5
    assert recorded["by_layer"]["1"]["requests"] == 6
    assert notes["expert_bytes"] == {"0": 4096, "1": 4096}
    assert notes["model"] == "Tiny-Q4_K_M.gguf"


def test_lines_stated_top_k_may_be_smaller(tmp_path):
    wide = Router("Tiny", 8, 3, (0, 1))
    trace = read(SAMPLES / "big_moe_on_edge.csv", wide)
    assert trace.router == TINY
    assert "the run used 2 experts of a token, Tiny has 3" in trace.origin.notes["remarks"][0]
    assert "2 experts of one token, Tiny uses 3. If the run used fewer, add --top-k 2" in complaint(
        SAMPLES / "moe_cache_profile.csv", wide
    )
    assert read(SAMPLES / "moe_cache_profile.csv", wide, top_k=2).router == TINY
    narrow = Router("Tiny", 8, 1, (0, 1))
    assert "2 experts of one token, Tiny uses 1" in complaint(SAMPLES / "big_moe_on_edge.csv", narrow)


def test_lines_header_is_held_against_the_model():
    path = SAMPLES / "big_moe_on_edge.csv"
    assert "states experts 8, Tiny has 9" in complaint(path, Router("Tiny", 9, 2, (0, 1)))
    assert "states MoE layers (0, 1), Tiny has (0, 1, 2)" in complaint(path, Router("Tiny", 8, 2, (0, 1, 2)))
    assert "states experts 8, the command line 9" in complaint(path, experts=9)


def test_lines_prompt_passes_of_flash_moe_left_out(tmp_path):
    text = (SAMPLES / "flash_moe.jsonl").read_text()
    many = '{"layer":0,"n_tokens":9,"n_experts":4,"expert_ids":[0,1,2,3],"slot_ids":[0,1,2,3],"elapsed_us":1}\n'
    trace = read(written(tmp_path, many + text, "a.jsonl"))
    assert trace.experts.tolist() == EXPERTS
    assert "1 lines left out: they name the experts of many tokens together" in trace.origin.notes["remarks"][0]


def test_lines_tokens_of_minus_one_left_out(tmp_path):
    text = (SAMPLES / "moe_cache_profile.csv").read_text()
    header, rows = text.split("\n", 1)
    trace = read(written(tmp_path, f"{header}\n-1,0,1,2\n-1,1,1,2\n{rows}"))
    assert trace.experts.tolist() == EXPERTS
    assert "2 lines left out: prompt tokens without a position" in trace.origin.notes["remarks"][0]


def edited(name: str, edit: Callable[[list[str]], object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        lines = (SAMPLES / name).read_text().splitlines()
        edit(lines)
        return written(folder, "\n".join(lines) + "\n", name)

    return write


def replaced(name: str, line: int, old: str, new: str) -> Callable[[Path], Path]:
    def edit(lines: list[str]) -> None:
        assert old in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(old, new, 1)

    return edited(name, edit)


def text(content: str | bytes, name: str = "a.csv") -> Callable[[Path], Path]:
    return lambda folder: written(folder, content, name)


BINARY = (SAMPLES / "moe_trace.bin").read_bytes()
ATLAS = json.loads(gzip.decompress((SAMPLES / "atlas.json.gz").read_bytes()))

WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (text(""), "a.csv: holds no line of data"),
    "only comments": (text("# nothing\n\n"), "holds no line of data"),
    "only a header": (text("pos,layer,e0,e1\n"), "holds a header only"),
    "no text": (text(b"\xff\xfe\xfd"), "neither text (byte 0 is not UTF-8)"),
    "damaged gzip": (text(gzip.compress(b"pos,layer")[:9]), "truncated or damaged gzip file"),
    "unknown columns": (text("a,b\n1,2\n"), "has columns 'a', 'b', none of them known for layer"),
    "a column twice": (text("pos,layer,layer,e0\n0,0,0,1\n"), "has the column 'layer' twice"),
    "two tokens": (text("pos,step,layer,e0,e1\n0,0,0,1,2\n"), "columns pos and step both may say the token: choose"),
    "two experts": (text("pos,layer,expert,e0,e1\n0,0,0,1,2\n"), "columns expert, e0 all may say the experts: choose"),
    "order": (
        edited("ds4.csv", lambda lines: lines.insert(3, lines.pop(5))),
        "line 4: its token has 1 of 2 layers, layer 1 is missing",
    ),
    "order of layers": (
        edited("ds4.csv", lambda lines: lines.insert(3, lines.pop(4))),
        "line 5: token 1, layer 0 after token 1, layer 1: expected tokens, and the layers of a token, in order",
    ),
    "layer missing": (edited("ds4.csv", lambda lines: lines.pop(5)), "line 6: its token has 1 of 2 layers, layer 0"),
    "last layer missing": (edited("ds4.csv", lambda lines: lines.pop()), "line 6: its token has 1 of 2 layers"),
    "a token twice": (
        edited("ds4.csv", lambda lines: lines.extend(lines[-2:])),
        "line 8: token 2, layer 0 after token 2, layer 1: expected tokens, and the layers of a token, in order",
    ),
    "huge layer": (replaced("ds4.csv", 5, "1,1,", "1,65536,"), "line 5: layer 65536, expected a number"),
    "unknown layer": (replaced("ds4.csv", 5, "1,1,", "1,2,"), "line 5: layer 2, expected one of 0, 1"),
    "a layer twice": (
        edited("big_moe_on_edge.csv", lambda lines: lines.extend(lines[-2:])),
        "line 18: token 2, layer 1 after token 2, layer 1",
    ),
    "repeated expert": (replaced("ds4.csv", 3, "1,6", "6,6"), "line 3: an expert twice among 6, 6"),
    "id of E": (replaced("ds4.csv", 3, "1,6", "8,6"), "line 3: experts 8, 6, expected ids from 0 to 7"),
    "negative id": (replaced("ds4.csv", 3, "1,6", "-1,6"), "line 3: experts -1, 6, expected ids from 0 to 7"),
    "huge id": (replaced("ds4.csv", 3, "1,6", f"{10**20},6"), "line 3: e0 '100000000000000000000', expected a whole"),
    "fraction": (replaced("ds4.csv", 3, "1,6", "1.0,6"), "line 3: e0 '1.0', expected a whole number"),
    "empty cell": (replaced("ds4.csv", 3, "1,6", ",6"), "line 3: e0 '', expected a whole number"),
    "weight": (replaced("ds4.csv", 3, "0.6", "nan"), "line 3: w0 'nan', expected a number"),
    "varying n": (replaced("ds4.csv", 3, ",2,", ",1,"), "line 3: states k = 1, expected 2 as before"),
    "cells": (replaced("ds4.csv", 4, ",0.4", ""), "line 4: has 6 cells, expected 7"),
    "cut off": (edited("ds4.csv", lambda lines: lines.append("3,0,2,1")), "line 8: has 4 cells, expected 7"),
    "quotes": (text('pos,layer,ids\n0,0,"3 5\n0,1,1 6\n'), "malformed CSV"),
    "varying k": (replaced("named_cell.csv", 4, "3, 2", "3"), "line 4: ids holds 1 numbers, in line 2 it has 2"),
    "nested cell": (replaced("named_cell.csv", 4, "[3, 2]", "[[3], 2]"), "line 4: ids '[3]', expected a whole number"),
    "k of rows": (
        edited("llama_moe_trace_phases.csv", lambda lines: lines.pop(6)),
        "line 6: its token and layer have 1 experts, expected 2",
    ),
    "k of plain rows": (
        edited("llama_moe_trace.csv", lambda lines: lines.pop(6)),
        "line 6: its token and layer have 1 experts, expected 2",
    ),
    "ranks": (
        replaced("llama_moe_trace_phases.csv", 5, ",1,6", ",2,6"),
        "line 5: rank 2, expected 1: ranks in order, from 0 or 1",
    ),
    "mixed phases": (
        edited("llama_moe_trace_phases.csv", lambda lines: lines.__setitem__(slice(1, 3), [
            line.replace("prefill", "decode") for line in lines[1:3]
        ])),
        "its token is of two phases",
    ),
    "unknown phase": (replaced("llama_moe_trace_phases.csv", 4, "prefill", "warm"), "line 4: phase 'warm'"),
    "residency": (replaced("big_moe_on_edge.csv", 7, "0.4,0", "0.4,3"), "line 7: residency '3', expected one of"),
    "header number": (replaced("big_moe_on_edge.csv", 2, "n_expert=8", "n_expert=x"), "line 2: n_expert=x, expected a"),
    "header layers": (replaced("big_moe_on_edge.csv", 2, "n_layer=2", "n_layer=1"), "states 1 layers, expected"),
    "header layer twice": (replaced("big_moe_on_edge.csv", 4, "layer=1", "layer=0"), "line 4: layer 0 is stated twice"),
    "header k of 0": (replaced("big_moe_on_edge.csv", 2, "used=2", "used=0"), "states n_expert_used=0, expected"),
    "k of 0": (text("layer,n,e0,w0\n0,0,1,1\n"), "line 2: states k = 0, expected a number from 1"),
    "header k": (replaced("big_moe_on_edge.csv", 2, "used=2", "used=3"), "experts, expected 3"),
    "tensor without a layer": (replaced("ggml_moe_log.txt", 2, "blk.1.", "x."), "line 2: tensor 'x.ffn"),
    "tensor without ids": (replaced("ggml_moe_log.txt", 2, " 1 6", ""), "line 2: is 'blk.1.ffn_gate_exps.weight'"),
    "k of a log": (replaced("ggml_moe_log.txt", 2, " 1 6", " 1"), "line 2: experts holds 1 numbers"),
    "colibri cells": (replaced("colibri.txt", 2, " 6:0.4000", ""), "line 2: has 5 cells, expected 7"),
    "JSON line": (replaced("lattice.jsonl", 3, "}", ""), "line 3: malformed JSON"),
    "JSON list": (edited("lattice.jsonl", lambda lines: lines.append("[1]")), "line 7: is list, expected an object"),
    "JSON key": (replaced("lattice.jsonl", 3, "layer_idx", "layer"), "line 3: has no 'layer_idx', the first line has"),
    "JSON fraction": (replaced("lattice.jsonl", 3, '"token_idx": 1', '"token_idx": 1.5'), "line 3: token_idx 1.5"),
    "JSON truth": (replaced("lattice.jsonl", 3, '"token_idx": 1', '"token_idx": true'), "line 3: token_idx 'true'"),
    "JSON list of tokens": (
        text('{"layer": 0, "pos": [0], "ids": [1, 2]}\n', "a.jsonl"),
        "line 1: pos '[0]', expected a whole number",
    ),
    "JSON weights": (replaced("lattice.jsonl", 1, "[0.6, 0.4]", "[0.6]"), "gate_weights holds 2 numbers, in line 1 it"),
    "deep JSON": (text("[" * 100_000, "a.json"), "malformed JSON"),
    "imp cut off": (edited("imp.json", lambda lines: lines.pop()), "line 8: malformed JSON"),
    "imp k": (replaced("imp.json", 3, "[1, 1, 6]", "[1, 1]"), "entry 2: holds 2, expected a list of 3 numbers"),
    "imp id": (replaced("imp.json", 3, "[1, 1, 6]", "[1, 1, 9]"), "entry 2: experts 1, 9, expected ids from 0 to 7"),
    "imp text": (replaced("imp.json", 3, "[1, 1, 6]", '[1, 1, "6"]'), "entry 2: is [1, 1, '6'], expected"),
    "imp stated k": (replaced("imp.json", 1, "2", "4"), "has 2 experts of one token, where k is stated as 4"),
    "imp keys": (text('{\n"routes": []}', "a.json"), "has keys 'routes', expected trace, entries or data"),
    "imp empty": (text('{"trace": []}', "a.json"), "holds list, expected a list of entries"),
    "imp flat length": (replaced("imp_flat.json", 3, "1, 1, 6", "1, 1"), "holds 17 numbers, expected a multiple of 3"),
    "binary cut off": (text(BINARY[:-3], "a.bin"), "record 6: is cut off: 5 bytes of 2 ids"),
    "binary head cut off": (text(BINARY[:-9], "a.bin"), "record 6: is cut off: 11 bytes of its head of 12"),
    "binary k": (text(BINARY + struct.pack("<4i", 0, 1, 1, 3), "a.bin"), "record 7: k is 1, expected 2 as before"),
    "binary numbers": (text(struct.pack("<4i", 0, -5, 2, 1), "a.bin"), "record 1: layer 0, n_tokens -5, k 2"),
    "atlas without prompts": (text(json.dumps(ATLAS | {"conditional": {}}), "a.json"), "names no prompts"),
    "atlas prompts": (
        text(json.dumps(ATLAS | {"conditional": {"prompts": [{"start_row": 0, "prefill_rows": 1, "end_row": 2}]}})),
        "prompts end at row 2 of 3",
    ),
    "atlas rows": (
        text(json.dumps(ATLAS | {"layers": {"0": {"executed_topk": [[1, 2]]}, "1": ATLAS["layers"]["1"]}})),
        "layers have (1, 2) and (3, 2) rows and ids, expected one shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_lines_mistakes_are_one_line(case, tmp_path):
    write, problem = WRONG[case]
    path = write(tmp_path)
    line = complaint(path)
    assert problem in line
    assert line.startswith(str(path))


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ("token", "got 'token', expected <name>=<column>"),
        ("time=pos", "got 'time=pos', expected <name>=<column> with a name of sequence, token"),
        ("token=t", "names 't', the file has 'pos', 'layer'"),
        ("experts=e5..e0", "got 'e5..e0', expected an ascending range"),
        ("experts=e0..w1", "got 'e0..w1', expected an ascending range"),
        ("experts=e0..e999999999", "expected an ascending range"),
        ("token=pos,token=n", "gives token twice"),
        ("token=layer,layer=layer", "lets the column 'layer' say token and layer"),
        ("layer=", "none of them known for layer"),
    ],
)
def test_lines_wrong_column_options_are_one_line(chosen, problem):
    assert problem in complaint(SAMPLES / "ds4.csv", columns=chosen)


@pytest.mark.parametrize("option", [{"experts": 0}, {"top_k": -1}, {"prompt_tokens": -1}, {"experts": 2**40}])
def test_lines_impossible_options_are_one_line(option):
    assert "expected a whole number up to" in complaint(SAMPLES / "ds4.csv", **option)


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.iterdir()))
@fuzz(15)
@given(data=st.data())
def test_lines_damaged_files_are_one_line(fresh_folder, name, data):
    """Whatever bytes or lines are changed, there is a sound trace or a line for the user."""
    content = bytearray((SAMPLES / name).read_bytes())
    packed = name.endswith(".gz")
    if packed:
        content = bytearray(gzip.decompress(content))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255) | st.sampled_from(b"0123456789,:; []\n-"))
    lines = bytes(content).split(b"\n")
    for place in data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=2)):
        lines.insert(data.draw(st.integers(0, len(lines))), lines.pop(place % len(lines)))
    content = b"\n".join(lines)[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    path = written(fresh_folder(), gzip.compress(content) if packed else content, name)
    one_line_or_sound(path, data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 8) | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ek0"), inner, max_size=2),
    max_leaves=6,
)
"""JSON of any kind, numbers near those of a small model most of the time."""
NAMES = ("pos", "layer", "rank", "e0", "e1", "ids", "w0", "w1", "weights", "phase", "hit", "n", "n_tokens", "turn", "x")


@fuzz(50)
@given(data=st.data())
def test_lines_any_json_is_read_or_one_line(fresh_folder, data):
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6))
    objects = data.draw(st.lists(st.fixed_dictionaries({"layer": VALUES} | dict.fromkeys(names, VALUES)), min_size=1))
    documents = [
        "\n".join(map(json.dumps, objects)),
        json.dumps({"top_k": data.draw(VALUES), "trace": data.draw(VALUES)}, indent=1),
        json.dumps(ATLAS | {data.draw(st.sampled_from(sorted(ATLAS))): data.draw(VALUES)}),
    ]
    one_line_or_sound(written(fresh_folder(), data.draw(st.sampled_from(documents))), data)


@fuzz(50)
@given(data=st.data())
def test_lines_any_table_is_read_or_one_line(fresh_folder, data):
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    cell = st.integers(-1, 4).map(str) | st.sampled_from(
        ["[1, 2]", "1 2", "", "0.5", "nan", "prefill", "hit", '"', "é"]
    )
    rows = data.draw(st.lists(st.lists(cell, min_size=len(names), max_size=len(names)), max_size=8))
    header = data.draw(st.sampled_from(["", "# n_expert=8 n_expert_used=2\n", "# layer=0 expert_bytes=1\n"]))
    mark = data.draw(st.sampled_from(",;\t "))
    content = header + "\n".join(mark.join(row) for row in [names, *rows])
    one_line_or_sound(written(fresh_folder(), content), data)


def test_lines_one_weight_of_a_smaller_k_is_read(tmp_path):
    """Two columns of experts, one of weights and k = 1: this was an IndexError."""
    path = written(tmp_path, "e0,w0,n,pos,layer,e1\n3,0.5,1,0,0,4\n2,0.5,1,0,1,5\n")
    assert read(path, TINY).experts.tolist() == [[[3], [2]]]


def one_line_or_sound(path: Path, data: st.DataObject) -> None:
    """Reading the file gives a sound trace or one line for the user, with and without options."""
    router = data.draw(st.sampled_from([TINY, "New"]))
    options = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "experts": st.integers(-1, 9),
                "top_k": st.integers(-1, 3),
                "prompt_tokens": st.integers(-1, 3),
                "columns": st.sampled_from(["", "token=1,layer=2,experts=3", "experts=e0..e1", "rank="])
                | st.text(alphabet="tokenlayrxpsw=,.019", max_size=30),
            },
        )
    )
    try:
        check(read(path, router, **options), path)
    except UserError as error:
        assert "\n" not in str(error)


def test_lines_100_000_lines_are_read_exactly(tmp_path):
    router = Router("Big", 128, 8, tuple(range(48)))
    rng = np.random.default_rng(0)
    experts = rng.random((2_100, 48, 128)).argsort(-1)[..., :8]
    path = written(tmp_path, columns(router, experts))
    trace = read(path, router)
    np.testing.assert_array_equal(trace.experts, experts)


@pytest.mark.parametrize(
    ("name", "router", "tokens", "hits"),
    [
        ("qwen", Router("Qwen3-30B-A3B", 128, 8, tuple(range(48))), 129, 0.8029),
        ("gptoss", Router("gpt-oss-120b", 128, 4, tuple(range(36))), 65, 0.4484),
        ("qwen", "a name", 129, 0.8029),
    ],
)
def test_lines_real_traces_with_recorded_hits(name, router, tokens, hits):
    trace = read(published(f"expert_cache/{name}.route.csv"), router)
    assert (len(trace), int((trace.phase == DECODE).sum())) == (tokens, tokens - 1)
    assert trace.router.top_k == {"qwen": 6, "gptoss": 2}[name]
    recorded = trace.origin.notes["lines"][f"{name}.route.csv"]["recorded_cache"]
    assert round(recorded["by_phase"]["decode"]["hit_rate"], 4) == hits
