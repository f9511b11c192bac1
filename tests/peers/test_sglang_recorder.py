"""Dumps of SGLang's expert-distribution recorder, written as SGLang writes them: with torch.save."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prophet_moe.errors import UserError
from prophet_moe.routing.importers import import_source
from prophet_moe.routing.trace import DECODE, PREFILL, Counts, Origin, Router, Trace, check

ORIGIN = Origin("a test", "CC0-1.0")
ROUTER = Router("Tiny", 6, 3, (1, 2, 4))
HIDDEN, SLOTS, PHYSICAL = 5, 8, 9
EXTEND_PASS, DECODE_PASS, MIXED_PASS, IDLE_PASS, VERIFY_PASS = 1, 2, 3, 4, 5

PHYSICAL_TO_LOGICAL = torch.stack(
    [
        torch.cat([torch.randperm(6, generator=torch.Generator().manual_seed(layer)), torch.arange(3)])
        for layer in range(5)
    ]
)
"""(hidden layers, P): every logical expert once, and three of them once more."""


class Request:
    """A request with its own token ids and routing, which a server works through."""

    def __init__(self, number: int, prompt: int, generated: int, rng: np.random.Generator) -> None:
        self.prompt, self.tokens, self.done = prompt, prompt + generated, 0
        self.token_ids = 1000 * number + np.arange(self.tokens)
        everyone = np.broadcast_to(np.arange(ROUTER.experts), (self.tokens, len(ROUTER.layers), ROUTER.experts))
        self.experts = rng.permuted(everyone, axis=2)[:, :, : ROUTER.top_k]

    def chunk(self, length: int) -> range:
        """The next `length` tokens, no further than the prompt while that is being read."""
        end = min(self.done + length, self.prompt if self.done < self.prompt else self.tokens)
        start, self.done = self.done, end
        return range(start, end)


def slots(experts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(hidden layers, N, 8): physical ids of logical ones (N, L, k); -1 in dense layers and slots not used."""
    names = PHYSICAL_TO_LOGICAL.numpy()
    found = np.full((HIDDEN, len(experts), SLOTS), -1, np.int32)
    for place, layer in enumerate(ROUTER.layers):
        for row, chosen in enumerate(experts[:, place]):
            found[layer, row, : ROUTER.top_k] = [rng.choice(np.flatnonzero(names[layer] == e)) for e in chosen]
    return found


def record(mode: int, chunks: list[tuple[Request, range]], rng: np.random.Generator, number: int = 0) -> dict[str, Any]:
    """One forward pass in mode per_token."""
    positions = [position for _, chunk in chunks for position in chunk]
    experts = np.concatenate([np.empty((0, 3, 3), int), *(request.experts[chunk] for request, chunk in chunks)])
    physical = slots(experts.astype(int), rng)
    counts = np.stack([np.bincount(layer[layer >= 0], minlength=PHYSICAL) for layer in physical])
    return {
        "forward_pass_id": number,
        "rank": 0,
        "gatherer_key": "primary",
        "input_ids": [int(request.token_ids[position]) for request, chunk in chunks for position in chunk],
        "positions": positions,
        "extend_seq_lens": None if mode in (DECODE_PASS, IDLE_PASS) else [len(chunk) for _, chunk in chunks],
        "forward_mode": mode,
        "topk_ids_of_layer": torch.from_numpy(physical),
        "misc_objects": [],
        "global_physical_count": torch.from_numpy(counts.astype(np.int32)),
    }


def serve(requests: list[Request], rng: np.random.Generator, chunk: int = 6, mixed: bool = False) -> list[dict]:
    """The records of a server that reads prompts in chunks, decodes in between and adds new requests at the end."""
    waiting, running, records = list(requests), [], []
    while waiting or running:
        room, chunks = chunk, []
        while waiting and room:
            request = waiting[0]
            chunks.append((request, request.chunk(room)))
            room -= len(chunks[-1][1])
            if request.done < request.prompt:
                break
            waiting.pop(0)
        read = [request for request, _ in chunks if request.done == request.prompt]
        if chunks and not mixed:
            records.append(record(EXTEND_PASS, chunks, rng, len(records)))
            running += read
            read, chunks = [], []
        decoded = [(request, request.chunk(1)) for request in running]
        if chunks or decoded:
            mode = MIXED_PASS if chunks else DECODE_PASS
            records.append(record(mode, chunks + decoded, rng, len(records)))
        running = [request for request in read + running if request.done < request.tokens]
        records.append(record(IDLE_PASS, [], rng, len(records)))
    return records


def save(path: Path, records: list[dict]) -> Path:
    torch.save({"records": records, "last_physical_to_logical_map": PHYSICAL_TO_LOGICAL}, path)
    return path


def trace_of(path: Path) -> Trace:
    trace = import_source("sglang_recorder", path, ROUTER, ORIGIN)
    assert isinstance(trace, Trace)
    return check(trace, path)


def assert_is(trace: Trace, requests: list[Request]) -> None:
    """Each request is one whole sequence, in the order of their first tokens."""
    assert len(np.unique(trace.sequence)) == len(requests)
    for number, request in enumerate(requests):
        rows = trace.sequence == number
        np.testing.assert_array_equal(trace.position[rows], np.arange(request.tokens))
        np.testing.assert_array_equal(trace.token[rows], request.token_ids)
        np.testing.assert_array_equal(trace.experts[rows], request.experts)
        np.testing.assert_array_equal(trace.phase[rows], np.where(np.arange(request.tokens) < request.prompt, 0, 1))
    assert not trace.ranked


def some(lengths: list[tuple[int, int]], rng: np.random.Generator) -> list[Request]:
    return [Request(number, prompt, generated, rng) for number, (prompt, generated) in enumerate(lengths)]


APART = [(4, 3), (20, 3), (9, 2), (31, 3), (16, 2)]
"""Prompts and generated tokens of requests that are never at the same position at the same time."""


@pytest.mark.parametrize("chunk", [3, 6, 64])
@pytest.mark.parametrize("mixed", [False, True])
def test_sequences_are_rebuilt(tmp_path, chunk, mixed):
    rng = np.random.default_rng(1)
    requests = some(APART, rng)
    trace = trace_of(save(tmp_path / "a.pt", serve(requests, rng, chunk, mixed)))
    assert_is(trace, requests)
    assert trace.origin.notes == {"recorder": "per_token", "dumps": 1, "copies_left_out": 0}


def test_requests_of_equal_length_keep_their_places(tmp_path):
    rng = np.random.default_rng(2)
    requests = some([(5, 4)] * 4, rng)
    assert_is(trace_of(save(tmp_path / "a.pt", serve(requests, rng, chunk=64))), requests)


def test_a_finished_sequence_is_not_taken_for_a_running_one(tmp_path):
    rng = np.random.default_rng(3)
    requests = some([(5, 3), (7, 4)], rng)
    records = serve(requests[:1], rng) + serve(requests[1:], rng)
    assert_is(trace_of(save(tmp_path / "a.pt", records)), requests)


def test_a_record_that_begins_in_the_middle(tmp_path):
    rng = np.random.default_rng(4)
    requests = some([(5, 3), (9, 4)], rng)
    whole = serve(requests, rng, chunk=64)
    assert [each["forward_mode"] for each in whole[:3]] == [EXTEND_PASS, DECODE_PASS, IDLE_PASS]
    trace = trace_of(save(tmp_path / "a.pt", whole[2:]))
    for number, request in enumerate(requests):
        rows = trace.sequence == number
        np.testing.assert_array_equal(trace.token[rows], request.token_ids[request.prompt + 1 :])
        assert (trace.phase[rows] == DECODE).all()


def test_a_cached_prefix_starts_a_sequence_of_its_own(tmp_path):
    rng = np.random.default_rng(5)
    first, second = some([(5, 3), (12, 2)], rng)
    records = serve([first], rng)
    second.done = 8
    trace = trace_of(save(tmp_path / "a.pt", records + serve([second], rng)))
    rows = trace.sequence == 1
    np.testing.assert_array_equal(trace.token[rows], second.token_ids[8:])
    assert trace.phase[rows].tolist() == [PREFILL] * 4 + [DECODE] * 2


def test_ranks(tmp_path):
    """Data-parallel ranks are put one after another; tensor-parallel copies are left out."""
    rng = np.random.default_rng(6)
    requests = some(APART, rng)
    first = serve(requests[:2], rng)
    save(tmp_path / "expert_distribution_recorder_1750000000.1_0.pt", first)
    save(tmp_path / "expert_distribution_recorder_1750000000.2_1.pt", [each | {"rank": 1} for each in first])
    save(tmp_path / "expert_distribution_recorder_1750000000.3_2.pt", serve(requests[2:], rng))
    idle = [each | {"rank": 3, "forward_pass_id": 7} for each in first if each["forward_mode"] == IDLE_PASS]
    save(tmp_path / "expert_distribution_recorder_1750000000.4_3.pt", idle)
    trace = trace_of(tmp_path)
    assert_is(trace, requests)
    assert trace.origin.notes == {"recorder": "per_token", "dumps": 3, "copies_left_out": 1}


def counts_of(path: Path) -> np.ndarray:
    found = import_source("sglang_recorder", path, ROUTER, ORIGIN)
    assert isinstance(found, Counts)
    assert found.counts.dtype == np.int64
    return found.counts


def logical_counts(requests: list[Request]) -> np.ndarray:
    """(L, E) of all tokens."""
    experts = np.concatenate([request.experts for request in requests])
    return np.stack([np.bincount(layer.ravel(), minlength=ROUTER.experts) for layer in experts.transpose(1, 0, 2)])


def per_pass(records: list[dict]) -> list[dict]:
    names = ("forward_pass_id", "rank", "gatherer_key", "global_physical_count")
    return [{name: each[name] for name in names} for each in records]


def test_per_pass(tmp_path):
    rng = np.random.default_rng(8)
    requests = some(APART, rng)
    records = serve(requests, rng)
    counts = counts_of(save(tmp_path / "a_0.pt", per_pass(records)))
    tokens = [len(each["positions"]) for each in records if each["positions"]]
    np.testing.assert_array_equal(counts.sum(axis=2), np.tile(tokens, (3, 1)).T * ROUTER.top_k)
    np.testing.assert_array_equal(counts.sum(axis=0), logical_counts(requests))
    others = some(APART, rng)
    save(tmp_path / "a_1.pt", per_pass(serve(others, rng)))
    both = counts_of(tmp_path)
    assert len(both) == len(counts), "the ranks of one pass are one window"
    np.testing.assert_array_equal(both.sum(axis=0), logical_counts(requests + others))
    again = per_pass(records + records)
    assert len(counts_of(save(tmp_path / "a_1.pt", again))) == 2 * len(counts), "a restarted server counts passes anew"


def test_stat(tmp_path):
    """A circular buffer that is not full: its other rows are zero."""
    count = torch.zeros(4, HIDDEN, ROUTER.experts, dtype=torch.int32)
    chosen = (
        torch.rand(2, len(ROUTER.layers), 20, ROUTER.experts, generator=torch.Generator()).topk(ROUTER.top_k).indices
    )
    counted = torch.nn.functional.one_hot(chosen, ROUTER.experts).sum(dim=(2, 3))
    count[:2, list(ROUTER.layers)] = counted.to(torch.int32)
    dump = {"rank": 0, "logical_count": count, "average_utilization_rate_over_window": None}
    torch.save(dump, tmp_path / "a.pt")
    np.testing.assert_array_equal(counts_of(tmp_path / "a.pt"), count[:2, list(ROUTER.layers)])
    torch.save(dump, tmp_path / "b.pt")
    assert len(counts_of(tmp_path)) == 4


def _changed(**changes: Any) -> dict:
    """A whole dump of which the last decoding record is changed."""
    rng = np.random.default_rng(9)
    records = serve(some([(4, 3)], rng), rng)[:-1]
    records[-1] = {name: value for name, value in (records[-1] | changes).items() if value is not ...}
    return {"records": records, "last_physical_to_logical_map": PHYSICAL_TO_LOGICAL}


def _with_slot(layer: int, slot: int, expert: int) -> dict:
    ids = _changed()["records"][-1]["topk_ids_of_layer"].clone()
    ids[layer, 0, slot] = expert
    return _changed(topk_ids_of_layer=ids)


def _never_started() -> dict:
    dump = _changed()
    for each in dump["records"]:
        each["topk_ids_of_layer"] = torch.full_like(each["topk_ids_of_layer"], -1)
    return dump


WRONG = {
    "no dump": ({"weights": torch.zeros(3)}, "holds neither logical_count nor records"),
    "a tensor": (torch.zeros(3), "holds neither logical_count nor records"),
    "no record": ({"records": [], "last_physical_to_logical_map": PHYSICAL_TO_LOGICAL}, "the recorder was not started"),
    "nothing recorded": (
        _never_started(),
        "no slot of any record holds an expert: the recorder was not started, or not",
    ),
    "an empty slot": (_with_slot(2, 1, -1), "record 5: token 0, layer 2: 2 experts, expected 3"),
    "too many slots": (_with_slot(2, 5, 3), "record 5: token 0, layer 2: 4 experts, expected 3"),
    "physical id": (_with_slot(4, 0, 9), "token 0, layer 4: physical expert 9, expected ids below 9"),
    "negative id": (_with_slot(4, 0, -2), "token 0, layer 4: physical expert -2, expected ids below 9"),
    "dense layer": (_with_slot(0, 0, 1), "record 5: layer 0 has recorded experts, expected MoE layers 1, 2, 4 only"),
    "layers": (_changed(topk_ids_of_layer=torch.zeros(4, 1, 8, dtype=torch.int32)), "topk_ids_of_layer has 4 layers"),
    "no ids": (_changed(topk_ids_of_layer=...), "record 5: has no topk_ids_of_layer"),
    "no positions": (_changed(positions=...), "record 5: has no positions"),
    "more positions": (_changed(positions=[4, 5]), "positions has 2 tokens, topk_ids_of_layer has 1"),
    "positions in rows": (_changed(positions=[[4]]), "positions has 2 dimensions, expected 1"),
    "negative position": (_changed(positions=[-4]), "positions holds numbers from -4 to -4"),
    "texts": (_changed(input_ids=["one"]), "input_ids is no array of numbers"),
    "lengths": (_changed(extend_seq_lens=[2]), "extend_seq_lens adds up to 2 tokens, positions has 1"),
    "speculative decoding": (_changed(forward_mode=VERIFY_PASS), "forward_mode 5, expected 1 to 4"),
    "no map": (_changed() | {"last_physical_to_logical_map": None}, "last_physical_to_logical_map is no array"),
    "map of more experts": (
        _changed() | {"last_physical_to_logical_map": PHYSICAL_TO_LOGICAL + 1},
        "last_physical_to_logical_map has 5 layers of ids from 0 to 6, expected more than 4 layers of ids from 0 to 5",
    ),
    "counts of a pass": (
        {
            "records": [{"forward_pass_id": 0, "global_physical_count": torch.ones(5, 8, dtype=torch.int32)}],
            "last_physical_to_logical_map": PHYSICAL_TO_LOGICAL,
        },
        "record 0: global_physical_count has shape (5, 8), the map has (5, 9)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_dumps_are_one_line(case, tmp_path):
    dump, problem = WRONG[case]
    torch.save(dump, tmp_path / "a.pt")
    line = complaint(tmp_path / "a.pt")
    assert problem in line
    assert line.startswith(str(tmp_path / "a.pt"))


@pytest.mark.parametrize("zipped", [False, True])
def test_code_is_not_run(tmp_path, zipped):
    class TouchesItsFolder:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "was_run"),)

    torch.save({"records": [TouchesItsFolder()]}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert "wants to run code; refused" in complaint(tmp_path / "a.pt")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_dumps_are_one_line(tmp_path, zipped):
    path = tmp_path / "a.pt"
    torch.save(_changed(), path, _use_new_zipfile_serialization=zipped)
    content, rng = path.read_bytes(), np.random.default_rng(10)
    for _ in range(200):
        damaged = bytearray(content[: rng.integers(len(content) // 2, len(content) + 1)])
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            import_source("sglang_recorder", path, ROUTER, ORIGIN)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_files_of_another_kind(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    assert "a.pt: truncated, or no PyTorch file." in complaint(tmp_path / "a.pt")


def complaint(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        import_source("sglang_recorder", path, ROUTER, ORIGIN)
    assert "\n" not in str(raised.value)
    return str(raised.value)
