"""Forms of lines that name no columns: logs of engines, lists in JSON, binary records."""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prophet_moe.errors import UserError
from prophet_moe.routing.importers.lines.entries import EXPERTS, Entries, Integers, Stated
from prophet_moe.routing.importers.lines.tables import Lines, csv_entries
from prophet_moe.routing.importers.reading import fault
from prophet_moe.routing.trace import DECODE, PREFILL

ATLAS = "routing-trace-export"
"""What the schema of a routing atlas contains."""
LISTS = ("trace", "entries", "data")
DOCUMENT = {*LISTS, "schema"}
"""Keys of a document, as opposed to a JSON line."""
COLIBRI = re.compile(r"\s*\d+\s+\d+\s+\d+(\s+\d+:[-+0-9.e]+)+\s*")
HEAD = struct.Struct("<3i")
LAYER_OF_TENSOR = re.compile(r"(?:^|[._-])(?:blk|layers?)[._](\d+)|-(\d+)")


def colibri_entries(lines: Lines, stated: Stated) -> tuple[Entries, Stated]:
    """Read lines `<call> <row> <layer> <id>:<gate> ...`, where a token is a row of a call."""
    spaced = replace(lines, text=[line.replace(":", " ") for line in lines.text])
    width = (len(spaced.text[0].split()) - 3) // 2
    ids, gates = ([f"{kind}{number}" for number in range(width)] for kind in "ew")
    pairs = [name for pair in zip(ids, gates, strict=True) for name in pair]
    header = " ".join(["turn", "token", "layer", *pairs])
    entries, stated = csv_entries(_headed(spaced, header), None, stated)
    pair = np.stack([entries.sequence, entries.token], axis=1)
    token = np.unique(pair, axis=0, return_inverse=True)[1].reshape(-1)
    return replace(entries, sequence=None, token=token), stated


def is_tensor_log(line: str) -> bool:
    """Return whether a line is a tensor's name with a number, and ids."""
    name, *ids = line.split()
    whole = bool(ids) and all(part.isdecimal() for part in ids)
    return whole and not name[0].isdecimal() and LAYER_OF_TENSOR.search(name) is not None


def tensor_log_entries(lines: Lines, stated: Stated) -> tuple[Entries, Stated]:
    """Read lines `<tensor name> <id> ...`, a token and layer each; the layer is the number in the name."""
    split = [line.split(None, 1) for line in lines.text]
    layers: dict[str, str] = {}
    for row, parts in enumerate(split):
        if len(parts) != 2:
            raise lines.fault(row, f"is {lines.text[row][:60]!r}, expected a tensor's name and ids")
        if parts[0] not in layers:
            match = LAYER_OF_TENSOR.search(parts[0])
            if match is None:
                raise lines.fault(row, f"tensor {parts[0][:60]!r}, expected a name with the layer's number")
            layers[parts[0]] = match[1] or match[2]
    text = [f"{layers[name]},{ids}" for name, ids in split]
    return csv_entries(_headed(replace(lines, text=text), "layer,experts"), None, stated)


def _headed(lines: Lines, header: str) -> Lines:
    return Lines(lines.path, [header, *lines.text], np.append(0, lines.number))


def document_entries(content: Any, path: Path, stated: Stated) -> tuple[Entries, Stated]:
    """Return one JSON document: a routing atlas, or a list of entries [layer, e0, ...], nested or flat."""
    entries: Any = content
    if isinstance(content, dict):
        if ATLAS in str(content.get("schema", "")):
            return _atlas(content, path, stated)
        key = next((name for name in LISTS if name in content), None)
        if key is None:
            raise fault(path, f"has keys {', '.join(map(repr, list(content)[:12]))}, expected trace, entries or data")
        entries = content[key]
        if "top_k" in content:
            stated = replace(stated, top_k=_whole(content["top_k"], "top_k", path))
    if not isinstance(entries, list) or not entries:
        raise fault(path, f"holds {type(entries).__name__}, expected a list of entries [layer, e0, ...]")
    if not isinstance(entries[0], list):
        top_k = stated.top_k or stated.usual_top_k
        if top_k is None:
            raise UserError(str(path), "is one flat list and says nothing of k", "Add --top-k K.")
        width = top_k + 1
        if len(entries) % width:
            raise fault(path, f"holds {len(entries)} numbers, expected a multiple of {width}: a layer and k experts")
        entries = [entries[start : start + width] for start in range(0, len(entries), width)]
    rows = _matrix(entries, path, "entry")
    if rows.shape[1] < 2:
        raise fault(f"{path}: entry 1", "holds a layer alone, expected experts after it")
    number = np.arange(1, len(rows) + 1)
    return Entries(path, number, rows[:, 0], rows[:, 1:], unit="entry"), stated


def _whole(value: Any, name: str, path: Path) -> int:
    if type(value) is not int or not 0 < value <= EXPERTS:
        raise fault(path, f"{name} is {str(value)[:60]}, expected a whole number from 1 to {EXPERTS}")
    return value


def _matrix(rows: Any, path: Path, unit: str) -> Integers:
    """(N, n) from a list of lists of whole numbers, all of one length."""
    if not isinstance(rows, list) or not rows:
        raise fault(path, f"{unit} holds {type(rows).__name__}, expected a list of lists")
    width = len(rows[0]) if isinstance(rows[0], list) else 0
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != width or not width:
            size = len(row) if isinstance(row, list) else type(row).__name__
            raise fault(f"{path}: {unit} {number}", f"holds {size}, expected a list of {width} numbers as before")
        if not all(type(value) is int and -1 <= value < EXPERTS for value in row):
            raise fault(f"{path}: {unit} {number}", f"is {str(row)[:60]}, expected whole numbers from 0 on")
    return np.array(rows, np.int64)


def _atlas(content: dict[str, Any], path: Path, stated: Stated) -> tuple[Entries, Stated]:
    """`layers.<layer>.executed_topk`, rows of k ids by rank; `conditional.prompts` says which rows are which prompt."""
    routing = content.get("routing")
    if isinstance(routing, Mapping):
        top_k, experts = (_whole(routing.get(name), name, path) for name in ("k", "n_expert_per_layer"))
        stated = replace(stated, top_k=top_k, experts=stated.experts or experts)
    layers = content.get("layers")
    if not isinstance(layers, dict) or not layers:
        raise fault(path, "has no layers, expected layers.<number>.executed_topk")
    ids = {}
    for name, layer in layers.items():
        if not re.fullmatch("[0-9]{1,5}", name) or not isinstance(layer, dict):
            raise fault(path, f"layer {name[:60]!r}, expected layers.<number>.executed_topk")
        ids[int(name)] = _matrix(layer.get("executed_topk"), path, f"layer {name}, row")
    numbers = sorted(ids)
    shapes = {ids[number].shape for number in numbers}
    if len(shapes) != 1:
        raise fault(path, f"layers have {' and '.join(map(str, sorted(shapes)))} rows and ids, expected one shape")
    rows = len(ids[numbers[0]])
    sequence, token, phase = _prompts(content, rows, path)
    entries = Entries(
        path,
        np.tile(np.arange(1, rows + 1), len(numbers)),
        np.repeat(numbers, rows),
        np.concatenate([ids[number] for number in numbers]),
        np.tile(token, len(numbers)),
        np.tile(sequence, len(numbers)),
        np.tile(phase, len(numbers)),
        ranked=True,
        unit="row",
    )
    return entries, stated


def _prompts(content: dict[str, Any], rows: int, path: Path) -> tuple[Integers, Integers, Any]:
    """(rows,) each: sequence, position and phase of the rows of an atlas."""
    conditional = content.get("conditional")
    prompts = conditional.get("prompts") if isinstance(conditional, dict) else None
    expected = "expected conditional.prompts with start_row, prefill_rows and end_row of rows in order"
    if not isinstance(prompts, list) or not prompts:
        raise fault(path, f"names no prompts, {expected}")
    sequence, token, phase = np.full(rows, -1), np.zeros(rows, np.int64), np.zeros(rows, np.uint8)
    end = 0
    for number, prompt in enumerate(prompts):
        keys = ("start_row", "prefill_rows", "end_row")
        values = [prompt.get(key) if isinstance(prompt, dict) else None for key in keys]
        if not all(type(value) is int for value in values):
            raise fault(path, f"prompt {number}: {expected}")
        start, prefill, last = values
        if start != end or not start < last <= rows or not 0 <= prefill <= last - start:
            raise fault(path, f"prompt {number} is rows {start} to {last}, {expected}")
        end = last
        sequence[start:last], token[start:last] = number, np.arange(last - start)
        phase[start:last] = np.where(token[start:last] < prefill, PREFILL, DECODE)
    if end != rows:
        raise fault(path, f"prompts end at row {end} of {rows}, {expected}")
    return sequence, token, phase


def binary_entries(content: bytes, path: Path, stated: Stated) -> tuple[Entries, Stated]:
    """Read records of little-endian int32: layer, n_tokens, k, then n_tokens x k ids."""
    place, heads = 0, []
    while place < len(content):
        record = f"{path}: record {len(heads) + 1}"
        if place + HEAD.size > len(content):
            raise fault(record, f"is cut off: {len(content) - place} bytes of its head of {HEAD.size}")
        layer, tokens, top_k = HEAD.unpack_from(content, place)
        place += HEAD.size
        if layer < 0 or tokens <= 0 or not 0 < top_k <= EXPERTS:
            raise fault(record, f"layer {layer}, n_tokens {tokens}, k {top_k}, expected numbers from 0, 1 and 1 on")
        if heads and top_k != heads[0][3]:
            raise fault(record, f"k is {top_k}, expected {heads[0][3]} as before")
        if place + 4 * tokens * top_k > len(content):
            raise fault(record, f"is cut off: {len(content) - place} bytes of {tokens * top_k} ids")
        heads.append((place // 4, layer, tokens, top_k))
        place += 4 * tokens * top_k
    words = np.frombuffer(content, "<i4").astype(np.int64)
    if not heads:
        raise fault(path, "holds no record")
    first, layer, tokens, top_k = np.array(heads).T
    width, begins = int(top_k[0]), np.cumsum(tokens) - tokens
    inside = np.arange(tokens.sum()) - np.repeat(begins, tokens)
    ids = words[(np.repeat(first, tokens) + inside * width)[:, None] + np.arange(width)]
    number = np.repeat(np.arange(1, len(heads) + 1), tokens)
    return Entries(path, number, np.repeat(layer, tokens), ids, unit="record"), stated


def parsed(text: str, path: Path) -> Any:
    """Parse a JSON document; malformed text is a UserError that names `path`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise fault(f"{path}: line {error.lineno}", f"malformed JSON: {error.msg}") from None
    except (ValueError, RecursionError):
        raise fault(path, "malformed JSON: too large or too deep") from None
