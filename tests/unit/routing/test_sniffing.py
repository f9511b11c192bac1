"""What a file is, told to the user who gave it to the wrong importer."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.errors import UserError
from prophet_moe.routing.importers import FORMATS, import_source
from prophet_moe.routing.importers.sniffing import KINDS, recognise
from prophet_moe.routing.trace import Origin, Router
from tests.fuzzing import fuzz

ORIGIN = Origin("a test", "CC0-1.0")
LITE = Router("DeepSeek-V2-Lite", 64, 6, tuple(range(1, 27)))
PROMPT = {
    "row_index": 0,
    "router_data": [{"token_0": {"layer_1": {"selected_experts": [1, 2], "selected_probs": [1, 0]}}}],
}
CSV = 'Layer ID,Batch Number,Token,Activated Expert IDs\n1,0,a,"[1, 2]"\n'


def text(name: str, content: str):
    return lambda folder: (folder / name).write_text(content) and folder / name


def binary(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content) and folder / name


def array(name: str, *shape: int, key: str = ""):
    def write(folder: Path) -> Path:
        if key:
            np.savez(folder / name, **{key: np.ones(shape, int)})
        else:
            np.save(folder / name, np.ones(shape, int))
        return folder / name

    return write


LINES = json.dumps(PROMPT) + "\n" + json.dumps(PROMPT) + "\n"
RESPONSES = json.dumps({"text": "", "meta_info": {"routed_experts": "AAAA"}}) + "\n"

WRONG = {
    "gzip of JSON lines": (
        "prompt_json",
        binary("a.jsonl.gz", gzip.compress(LINES.encode())),
        "is a gzip file that holds JSON lines with router_data, expected format prompt_json. "
        "Decompress it first: gunzip {path}. Import it as prompt_json.",
    ),
    "gzip of CSV": (
        "prompt_csv",
        binary("a.csv.gz", gzip.compress(CSV.encode())),
        "gunzip {path}. Import it as prompt_csv",
    ),
    "gzip of nothing": ("arrays", binary("a.gz", gzip.compress(b"")), "is a gzip file, expected format arrays"),
    "other compression": ("counts", binary("a.csv", b"BZh91AY&SY"), "is a file compressed with bzip2"),
    "JSON as CSV": (
        "prompt_csv",
        text("a.json", json.dumps(PROMPT)),
        "is JSON with router_data, expected format prompt_csv. Import it as prompt_json.",
    ),
    "other JSON as CSV": (
        "prompt_csv",
        text("a.csv", '{"a": 1}'),
        "is JSON, expected format prompt_csv. Name another file",
    ),
    "JSON lines of another format": (
        "prompt_json",
        text("a.json", RESPONSES * 2),
        "is JSON lines with routed_experts, expected format prompt_json. Import it as sglang_routed_experts.",
    ),
    "CSV as JSON": ("prompt_json", text("a.json", CSV), "is a CSV file with columns Layer ID, Batch Number"),
    "bare counts": (
        "arrays",
        array("a.npy", 27, 64),
        "is one array (27, 64) without a name, expected format arrays. Import it as counts.",
    ),
    "named counts": (
        "arrays",
        array("a.npz", 27, 64, key="x"),
        "is an .npz file of x (27, 64), expected format arrays. Import it as counts.",
    ),
    "bare ids": ("arrays", array("a.npy", 9, 26, 6), "Ids of experts get names: numpy.savez(PATH, expert_ids=..."),
    "ids as counts": (
        "counts",
        array("a.npz", 9, 26, 6, key="expert_ids"),
        "expected format counts. Import it as arrays.",
    ),
    "vLLM as arrays": ("arrays", array("a.npz", 9, 27, 6, key="routed_experts"), "Import it as vllm_routed_experts."),
    "logits as vLLM": (
        "vllm_routed_experts",
        array("a.npz", 9, 64, key="router_logits_0"),
        "Import it as transformers_logits.",
    ),
    "counts as prompts": (
        "prompt_json",
        text("a.json", "[[1, 2], [3, 4]]"),
        "is JSON of nested lists, expected format prompt_json. Import it as counts or lines.",
    ),
    "stat as prompts": (
        "prompt_json",
        text("a.json", '{"logical_count": [[1]]}'),
        "Import it as sglang_recorder or counts.",
    ),
    "pickle": ("arrays", binary("a.npz", pickle.dumps({"a": 1})), "is a file of pickled Python objects"),
    "Parquet": ("counts", binary("a.npz", b"PAR1\x00\x00"), "is a Parquet file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistaken_file_is_told_with_its_format(case, tmp_path):
    name, write, problem = WRONG[case]
    path = write(tmp_path)
    line = refused(name, path)
    assert line.startswith(str(path)) and problem.replace("{path}", str(path)) in line


def refused(name: str, path: Path) -> str:
    with pytest.raises(UserError) as raised:
        import_source(name, path, LITE, ORIGIN)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_folder_of_another_format_is_told(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(PROMPT))
    assert "a.json: is JSON with router_data, expected format prompt_csv. Import it as" in refused(
        "prompt_csv", tmp_path
    )


def test_other_files_beside_the_right_ones_are_no_mistake(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.csv").write_text(CSV)
    assert "b.csv: line 2: experts '[1, 2]', expected a list of 6" in refused("prompt_csv", tmp_path)


def test_prompt_json_takes_one_document_a_line(tmp_path):
    router = Router("Tiny", 4, 2, (1,))
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text(LINES + "\n")
        trace = import_source("prompt_json", tmp_path / name, router, ORIGIN)
        assert trace.sequence.tolist() == [0, 1] and trace.ranked


def test_a_broken_line_of_json_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n{\n" + LINES)
    assert "a.jsonl: line 3: malformed JSON" in refused("prompt_json", tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text('{"a":' * 100_000)
    assert "a.jsonl: line 1: malformed JSON" in refused("prompt_json", tmp_path / "a.jsonl")


def test_kinds_hold_every_format():
    assert set(KINDS) == set(FORMATS)


@fuzz(200)
@given(
    head=st.sampled_from([b"", b"{", b"[[", b"\x1f\x8b\x08\x00", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"PAR1"]),
    rest=st.binary(max_size=300),
)
def test_recognise_never_fails(fresh_folder, head, rest):
    path = fresh_folder() / "a"
    path.write_bytes(head + rest)
    recognise(path)
