"""Dumps of SGLang's expert-distribution recorder, in all its modes.

`stat`, `stat_approx` (.pt, or JSON that holds `logical_count`) and `per_pass` give counts: one window per forward pass
or dump. `per_token` gives a trace. Reading .pt takes PyTorch. Layers run over all hidden layers; dense ones are empty.

Ranks: a folder may hold one file per rank. Ranks that share their tokens (tensor parallelism) record the same; those
copies are left out. The sequences of the other ranks (data parallelism) are numbered on; the counts of one forward
pass are added up. In `stat` SGLang has added up all ranks itself, those that share their tokens included.

Sequences: a dump names no requests. They are rebuilt from the order and the positions of the tokens (`Streams`). This
is ambiguous where one request ends and another, at the same position, goes on in its place, where requests of equal
length change places in the batch, and where a cached prefix ends at the position that another request has reached.
Expert ids are physical and are mapped by the last map of the recording; where experts moved meanwhile (EPLB), earlier
ids are mapped wrongly, and SGLang keeps nothing to mend that. The gate does not sort the experts.

docs/samples/sglang_recorder.json (model made-up) holds

    {"logical_count": [
      [300, 100, 200, 200],
      [200, 200, 100, 300]
    ]}
"""

import pickle
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.routing.importers.reading import (
    NEXT_STEP,
    POSITIONS,
    check_dense,
    fault,
    files_of,
    logical_ids,
    moe_counts,
    whole_numbers,
    with_notes,
)
from prophet_moe.routing.trace import DECODE, PREFILL, Counts, Origin, Router, Trace, check
from prophet_moe.validation import read_json

EMPTY = -1
"""Id of a slot without an expert."""
EXTEND_PASS, DECODE_PASS, MIXED_PASS, IDLE_PASS = 1, 2, 3, 4
"""SGLang's ForwardMode; the passes of speculative decoding and others, from 5 on, are refused."""
RECORD_AGAIN = "Start the record before the first request and dump again."


def read(source: Path, router: Router, origin: Origin) -> Trace | Counts:
    """Read one dump or a folder of dumps of one mode; the mode is told by what they hold."""
    files = files_of(source, ".pt", ".json")
    dumps = {path: read_json(path) if path.suffix == ".json" else _load(path) for path in files}
    modes = {path: _mode(dump, path) for path, dump in dumps.items()}
    mode = modes[files[0]]
    other = next((path for path in files if modes[path] != mode), None)
    if other:
        raise fault(other, f"is a dump of mode {modes[other]}, {files[0].name} is one of {mode}")
    if mode == "stat":
        windows = [_window_counts(dump["logical_count"], router, path) for path, dump in dumps.items()]
        return Counts(router, np.concatenate(windows), with_notes(origin, recorder=mode))
    ranks = _without_copies(dumps)
    origin = with_notes(origin, recorder=mode, dumps=len(ranks), copies_left_out=len(dumps) - len(ranks))
    return _trace(ranks, router, origin, source) if mode == "per_token" else _pass_counts(ranks, router, origin, source)


def _load(path: Path) -> Any:
    """Return the contents of a .pt file, of which nothing is run."""
    try:
        import torch
    except ImportError:
        raise UserError(
            str(path),
            "reading it takes PyTorch",
            "Run make gpu, then .venv-gpu/bin/prophet-moe in place of prophet-moe.",
        ) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged file raises whatever PyTorch stumbles over, AssertionError and IndexError included.
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise fault(path, "wants to run code; refused, for a dump holds tensors, lists and numbers only") from None
        raise fault(path, "truncated, or no PyTorch file") from None


def _mode(dump: Any, path: Path) -> str:
    """Return what kind of dump this is: stat, per_pass or per_token."""
    if isinstance(dump, Mapping) and "logical_count" in dump:
        return "stat"
    records = dump.get("records") if isinstance(dump, Mapping) else None
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise fault(path, "holds neither logical_count nor records: no dump of SGLang's expert-distribution recorder")
    if not records:
        raise UserError(str(path), "holds no record: the recorder was not started", RECORD_AGAIN)
    return "per_token" if "topk_ids_of_layer" in records[0] else "per_pass"


def _without_copies(dumps: dict[Path, Any]) -> dict[Path, Any]:
    """Return one dump of each group of ranks that recorded the same tokens and experts."""
    kept: dict[Path, Any] = {}
    for path, dump in dumps.items():
        if not any(_same(dump["records"], other["records"]) for other in kept.values()):
            kept[path] = dump
    return kept


def _same(records: list[Mapping], others: list[Mapping]) -> bool:
    names = ("forward_pass_id", "input_ids", "positions", "topk_ids_of_layer", "global_physical_count")
    return len(records) == len(others) and all(
        np.array_equal(record.get(name), other.get(name))
        for record, other in zip(records, others, strict=True)
        for name in names
    )


def _window_counts(counts: Any, router: Router, where: str | Path) -> NDArray[np.int64]:
    moe = moe_counts(counts, router, where)
    used = moe.any(axis=(1, 2))
    if not used.any():
        raise UserError(str(where), "all counts are 0: the recorder was not started", RECORD_AGAIN)
    return moe[used]


def _pass_counts(ranks: dict[Path, Any], router: Router, origin: Origin, source: Path) -> Counts:
    """Return one window per forward pass, the ranks added up; a pass that one rank has twice is two windows."""
    windows: dict[tuple[int, int], NDArray[np.int64]] = {}
    for path, dump in ranks.items():
        names = _map(dump, router, path)
        seen: Counter[int] = Counter()
        for number, record in enumerate(dump["records"]):
            where = f"{path}: record {number}"
            physical = _field(record, "global_physical_count", where, ndim=2)
            if physical.shape != names.shape:
                raise fault(where, f"global_physical_count has shape {physical.shape}, the map has {names.shape}")
            logical = np.zeros((len(physical), router.experts), np.int64)
            np.add.at(logical, (np.arange(len(physical))[:, None], names), physical)
            forward_pass = int(_field(record, "forward_pass_id", where, ndim=0))
            key = (forward_pass, seen[forward_pass])
            seen[forward_pass] += 1
            windows[key] = windows.get(key, 0) + logical
    return Counts(router, _window_counts(np.stack(list(windows.values())), router, source), origin)


def _trace(ranks: dict[Path, Any], router: Router, origin: Origin, source: Path) -> Trace:
    """Return the tokens of all ranks, by sequence and position."""
    columns: dict[str, list[NDArray]] = defaultdict(list)
    streams = Streams()
    for path, dump in ranks.items():
        for name, values in _rank(dump, router, path, streams).items():
            columns[name] += values
        streams = Streams(streams.count)
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    order = np.lexsort((joined["position"], joined["sequence"]))
    rows = {name: values[order] for name, values in joined.items()}
    return check(Trace(router=router, ranked=False, origin=origin, **rows), source, NEXT_STEP)


def _rank(dump: Mapping, router: Router, path: Path, streams: "Streams") -> dict[str, list[NDArray]]:
    """Return the columns of one rank's trace, one part per forward pass."""
    columns: dict[str, list[NDArray]] = defaultdict(list)
    names = _map(dump, router, path)
    slots = [_slots(r, len(names), router, f"{path}: record {number}") for number, r in enumerate(dump["records"])]
    if any(ids.size for ids in slots) and not any((ids != EMPTY).any() for ids in slots):
        raise UserError(
            str(path),
            "no slot of any record holds an expert: the recorder was not started, or not in mode per_token",
            f"Launch SGLang with --expert-distribution-recorder-mode per_token. {RECORD_AGAIN}",
        )
    for number, (record, ids) in enumerate(zip(dump["records"], slots, strict=True)):
        where = f"{path}: record {number}"
        positions, tokens = (_tokens(record, name, len(ids), where) for name in ("positions", "input_ids"))
        sequence, phase = _place(record, positions, streams, where)
        columns["sequence"].append(sequence)
        columns["position"].append(positions)
        columns["phase"].append(phase)
        columns["experts"].append(_logical(ids, names, router, where))
        columns["token"].append(tokens)
    return columns


def _slots(record: Mapping, layers: int, router: Router, where: str) -> NDArray[np.int64]:
    """(N, L, slots): physical ids of the MoE layers; EMPTY where there is none."""
    ids = _field(record, "topk_ids_of_layer", where, ndim=3)
    if len(ids) != layers:
        raise fault(where, f"topk_ids_of_layer has {len(ids)} layers, last_physical_to_logical_map has {layers}")
    check_dense((ids != EMPTY).any(axis=(1, 2)), router, where)
    return ids[list(router.layers)].transpose(1, 0, 2)


def _logical(slots: NDArray[np.int64], names: NDArray[np.int64], router: Router, where: str) -> NDArray[np.uint16]:
    """(N, L, k): logical ids of the slots (N, L, slots) that are not empty, of which there must be k."""
    filled = slots != EMPTY
    wrong = filled.sum(axis=2) != router.top_k
    if wrong.any():
        row, layer = np.argwhere(wrong)[0]
        problem = f"{filled[row, layer].sum()} experts, expected {router.top_k}"
        raise fault(where, f"token {row}, layer {router.layers[layer]}: {problem}")
    physical = slots[filled].reshape(len(slots), len(router.layers), router.top_k)
    wrong = (physical < 0) | (physical >= names.shape[1])
    if wrong.any():
        row, layer, rank = np.argwhere(wrong)[0]
        problem = f"physical expert {physical[row, layer, rank]}, expected ids below {names.shape[1]}"
        raise fault(where, f"token {row}, layer {router.layers[layer]}: {problem}")
    return logical_ids(names[np.array(router.layers)[:, None], physical], router, where)


def _map(dump: Mapping, router: Router, path: Path) -> NDArray[np.int64]:
    """(hidden layers, P): the logical expert of every physical one."""
    names = _field(dump, "last_physical_to_logical_map", path, ndim=2)
    deepest = max(router.layers)
    if len(names) <= deepest or (names < 0).any() or (names >= router.experts).any():
        found = f"{len(names)} layers of ids from {names.min(initial=0)} to {names.max(initial=0)}"
        expected = f"more than {deepest} layers of ids from 0 to {router.experts - 1}"
        raise fault(path, f"last_physical_to_logical_map has {found}, expected {expected}")
    return names


def _tokens(record: Mapping, name: str, tokens: int, where: str) -> NDArray[np.int32]:
    values = _field(record, name, where, ndim=1)
    if len(values) != tokens:
        raise fault(where, f"{name} has {len(values)} tokens, topk_ids_of_layer has {tokens}")
    if ((values < 0) | (values >= POSITIONS)).any():
        raise fault(where, f"{name} holds numbers from {values.min()} to {values.max()}, expected 31 bits")
    return values.astype(np.int32)


def _place(
    record: Mapping, positions: NDArray[np.int32], streams: "Streams", where: str
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """(N,) sequence and (N,) phase of the tokens of one forward pass."""
    mode = int(_field(record, "forward_mode", where, ndim=0))
    if mode not in (EXTEND_PASS, DECODE_PASS, MIXED_PASS, IDLE_PASS):
        raise fault(where, f"forward_mode {mode}, expected 1 to 4; switch speculative decoding off")
    lengths = np.ones(len(positions), np.int64)
    if record.get("extend_seq_lens") is not None:
        lengths = _field(record, "extend_seq_lens", where, ndim=1)
    if (lengths < 1).any() or sum(lengths.tolist()) != len(positions):
        raise fault(where, f"extend_seq_lens adds up to {lengths.sum()} tokens, positions has {len(positions)}")
    first = positions[np.cumsum(lengths) - lengths]
    sequence, phase = streams.place(mode, first.tolist(), lengths.tolist())
    return np.repeat(np.array(sequence, np.int32), lengths), np.repeat(np.array(phase, np.uint8), lengths)


def _field(record: Mapping, name: str, where: str | Path, ndim: int) -> NDArray[np.int64]:
    if name not in record:
        raise fault(where, f"has no {name}")
    values = whole_numbers(record[name], name, where)
    if values.ndim != ndim:
        raise fault(where, f"{name} has {values.ndim} dimensions, expected {ndim}")
    return values


@dataclass(eq=False)
class _Stream:
    """One sequence: its number, the position of its next token, and whether it has decoded already."""

    number: int
    next: int = 0
    decoded: bool = False


class Streams:
    """Rebuilds which sequence the tokens of each forward pass belong to.

    `running` are the sequences of the last passes in batch order; SGLang keeps that order, takes finished requests out
    and adds new ones at the end. `paused` are those that were missing in a later decode pass: finished, or with a
    prompt that is still being read in chunks.
    """

    def __init__(self, count: int = 0) -> None:
        """Begin without sequences; the first one that starts gets the number `count`."""
        self.count = count
        self.running: list[_Stream] = []
        self.paused: dict[int, list[_Stream]] = defaultdict(list)

    def place(self, mode: int, firsts: list[int], lengths: list[int]) -> tuple[list[int], list[int]]:
        """Return sequence and phase of the chunks of one pass, which start at `firsts` and are of `lengths`.

        A mixed pass has the chunks of prompts first: those of one token at its end, if they go on with a sequence, are
        decoding. (A last chunk of a prompt that is one token long is mistaken for decoding there.)
        """
        prompts = max((place for place, length in enumerate(lengths, start=1) if length > 1), default=0)
        chosen, phases = [], []
        for place, (first, length) in enumerate(zip(firsts, lengths, strict=True)):
            decoding = mode == DECODE_PASS or (mode == MIXED_PASS and place >= prompts)
            stream = self._take(first, decoding=decoding) if first > 0 else None
            phase = DECODE if mode == DECODE_PASS or (decoding and stream) else PREFILL
            stream = stream or self._new()
            stream.next = first + length
            stream.decoded |= phase == DECODE
            chosen.append(stream)
            phases.append(phase)
        if mode in (DECODE_PASS, MIXED_PASS):
            for stream in reversed(self.running):
                self.paused[stream.next].append(stream)
            self.running = []
        self.running += chosen
        return [stream.number for stream in chosen], phases

    def _take(self, position: int, *, decoding: bool) -> _Stream | None:
        paused = self.paused[position]
        running = self.running if decoding else self.running[::-1]
        for streams, in_turn in ((self.running, running), (paused, paused[::-1])):
            for stream in in_turn:
                if stream.next == position and (decoding or not stream.decoded):
                    streams.remove(stream)
                    return stream
        return None

    def _new(self) -> _Stream:
        self.count += 1
        return _Stream(self.count - 1)
