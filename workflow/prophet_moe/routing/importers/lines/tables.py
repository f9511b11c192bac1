"""Lines with named columns, CSV or JSON, as entries: experts in one cell, in k columns or in k rows."""

import csv
import io
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from prophet_moe.errors import UserError
from prophet_moe.routing.importers.lines.columns import NUMBERED, Roles, roles_of
from prophet_moe.routing.importers.lines.entries import EXPERTS, Entries, Integers, Stated
from prophet_moe.routing.importers.reading import fault
from prophet_moe.routing.trace import PHASES

PHASE_NAMES = {
    "prefill": 0,
    "prompt": 0,
    "pp": 0,
    "0": 0,
    "decode": 1,
    "generation": 1,
    "generate": 1,
    "tg": 1,
    "1": 1,
}
HIT_NAMES = {"miss": 0, "false": 0, "0": 0, "hit": 1, "true": 1, "1": 1, "prefetch": 2, "2": 2}
"""Whether an expert lay in the cache when it was asked for: no, yes, yes because it was prefetched."""
SCALAR = re.compile(r"\s*[-+0-9.e]+\s*")
SHOWN = 60


@dataclass(frozen=True)
class Lines:
    """The lines of a text that hold data: not blank, no comment."""

    path: Path
    text: list[str]
    number: Integers
    """Where each is in the file, counted from 1."""

    def fault(self, row: int | np.integer, problem: str) -> UserError:
        """Return the UserError about the line number `row`."""
        return fault(f"{self.path}: line {self.number[row]}", problem)


def lines_of(text: str, path: Path) -> Lines:
    """Return the lines of `text` that are neither blank nor comments; a file without one is refused."""
    kept = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip() and line[0] != "#"]
    if not kept:
        raise fault(path, "holds no line of data")
    return Lines(path, [line.strip("\r") for _, line in kept], np.array([number for number, _ in kept]))


def csv_entries(lines: Lines, chosen: str | None, stated: Stated) -> tuple[Entries, Stated]:
    """Return the entries of lines with one delimiter; without a header, columns are called 1, 2, ... from the left."""
    delimiter = next((mark for mark in "\t,;" if mark in lines.text[0]), " ")
    if delimiter == " ":
        lines = replace(lines, text=[" ".join(line.split()) for line in lines.text])
    header = lines.text[0]
    names = [name.strip() for name in _cells(lines, delimiter)]
    part = None
    if all(re.fullmatch(r"-?[0-9.:e+-]*", name) for name in names):
        names = [str(number) for number in range(1, len(names) + 1)]
        if not chosen:
            problem = f"has no header but {header[:SHOWN]!r}"
            raise UserError(
                str(lines.path), problem, "Name the columns by number, such as --columns token=1,layer=2,experts=3..8"
            )
    else:
        again = np.array([line == header for line in lines.text])
        part = (np.cumsum(again) - 1)[~again]
        lines = Lines(lines.path, [line for line in lines.text if line != header], lines.number[~again])
    roles = roles_of(names, chosen, lines.path)
    if not lines.text:
        raise fault(lines.path, "holds a header only, expected lines of data")
    return _entries(_columns(lines, names, roles, delimiter), roles, lines, part, stated)


def json_entries(lines: Lines, chosen: str | None, stated: Stated) -> tuple[Entries, Stated]:
    """Read the entries of JSON lines, an object each, without labels and objects that tell of many tokens."""
    objects = [_object(lines, row) for row in range(len(lines.text))]
    single = [row for row, found in enumerate(objects) if found.get("n_tokens", 1) == 1]
    kept = [row for row in single if set(objects[row]) != {"label"}]
    if not kept:
        raise fault(lines.path, "holds no line about one token")
    left_out = {"lines_of_many_tokens": len(objects) - len(single)} if len(single) < len(objects) else {}
    objects = [objects[row] for row in kept]
    lines = replace(lines, text=[lines.text[row] for row in kept], number=lines.number[kept])
    roles = roles_of(list(objects[0]), chosen, lines.path)
    names = [name for found in roles.values() for name in found]
    for row, found in enumerate(objects):
        if lacking := next((name for name in names if name not in found), None):
            raise lines.fault(row, f"has no {lacking!r}, the first line has")
    columns = {name: _column([found[name] for found in objects]) for name in names}
    entries, stated = _entries(columns, roles, lines, None, stated)
    return replace(entries, notes=dict(entries.notes) | left_out), stated


def _object(lines: Lines, row: int) -> dict[str, Any]:
    try:
        content = json.loads(lines.text[row])
    except (ValueError, RecursionError) as error:
        raise lines.fault(row, f"malformed JSON: {getattr(error, 'msg', 'too large or too deep')}") from None
    if not isinstance(content, dict):
        raise lines.fault(row, f"is {type(content).__name__}, expected an object in every line")
    return content


def _column(values: list[Any]) -> pa.Array:
    """Return the numbers or lists of numbers as they are; else the text of JSON values as a CSV file would have it."""
    try:
        column = pa.array(values)
        inner = column.flatten() if pa.types.is_list(column.type) else column
        if _are_numbers(inner) and not column.null_count and not inner.null_count:
            return column
    except (pa.ArrowException, ValueError, OverflowError):
        pass
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array([text.encode(errors="replace").decode() for text in texts], pa.string())


def _text(column: pa.Array) -> pa.Array:
    if pa.types.is_list(column.type):
        return pa.array([str(cell) for cell in column.to_pylist()], pa.string())
    return pc.cast(column, pa.string())


def _are_numbers(column: pa.Array) -> bool:
    return pa.types.is_integer(column.type) or pa.types.is_floating(column.type)


def _cells(lines: Lines, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([lines.text[0]], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise lines.fault(0, f"malformed CSV: {error}") from None


def _columns(lines: Lines, names: list[str], roles: Roles, delimiter: str) -> dict[str, pa.Array]:
    wanted = [name for found in roles.values() for name in found]
    content = "\n".join(lines.text).encode()
    wrong: list[Any] = []
    try:
        table = arrow_csv.read_csv(
            io.BytesIO(content),
            arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=min(len(content) + 1, 2**30)),
            arrow_csv.ParseOptions(
                delimiter=delimiter,
                invalid_row_handler=lambda row: wrong.append(row) or "skip",
                ignore_empty_lines=False,
            ),
            arrow_csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise fault(lines.path, f"malformed CSV: {str(error).splitlines()[0]}") from None
    if wrong:
        row = wrong[0]
        raise lines.fault(row.number - 1, f"has {row.actual_columns} cells, expected {row.expected_columns}")
    if table.num_rows != len(lines.text):
        raise fault(lines.path, f"malformed CSV: {len(lines.text)} lines give {table.num_rows} rows, see its quotes")
    return {name: table[name].combine_chunks() for name in wanted}


def _first(mask: pa.Array | NDArray[np.bool_]) -> int | None:
    values = np.asarray(mask)
    return int(np.argmax(values)) if values.any() else None


def _integers(column: pa.Array, name: str, lines: Lines) -> Integers:
    if _are_numbers(column):
        values = column.to_numpy()
        wrong = _first((np.abs(values) >= 2.0**53) | (values != np.floor(values)))
        if wrong is None:
            return values.astype(np.int64)
        raise lines.fault(wrong, f"{name} {values[wrong]}, expected a whole number")
    text = pc.utf8_trim_whitespace(_text(column))
    wrong = _first(pc.invert(pc.match_substring_regex(text, "^-?[0-9]{1,18}$")))
    if wrong is not None:
        raise lines.fault(wrong, f"{name} {text[wrong].as_py()[:SHOWN]!r}, expected a whole number")
    return pc.cast(text, pa.int64()).to_numpy()


def _split(column: pa.Array, name: str, lines: Lines) -> tuple[pa.Array, int]:
    """The parts of cells such as `[8, 26, 5]`, `8 26 5` or `8;26;5`, one after another, and how many each has."""
    if pa.types.is_list(column.type):
        return column.flatten(), _one_length(pc.list_value_length(column).to_numpy(), name, lines)
    bare = pc.replace_substring_regex(column, r"^\s*[\[(]?[\s,;|]*", "")
    if pa.types.is_list(column.type):
        return column.flatten(), _one_length(pc.list_value_length(column).to_numpy(), name, lines)
    bare = pc.replace_substring_regex(bare, r"[\s,;|]*[\])]?\s*$", "")
    parts = pc.split_pattern_regex(bare, r"[\s,;|]+")
    return parts.flatten(), _one_length(pc.list_value_length(parts).to_numpy(), name, lines)


def _one_length(lengths: NDArray[np.integer], name: str, lines: Lines) -> int:
    """Return the number that all lists hold, which is not 0."""
    wrong = _first((lengths != lengths[0]) | (lengths == 0))
    if wrong is not None:
        raise lines.fault(
            wrong, f"{name} holds {lengths[wrong]} numbers, in line {lines.number[0]} it has {lengths[0]}"
        )
    return int(lengths[0])


def _repeated(lines: Lines, times: int) -> Lines:
    return replace(lines, number=np.repeat(lines.number, times))


def _numbers(columns: dict[str, pa.Array], names: list[str], lines: Lines, *, whole: bool) -> NDArray:
    """(N,) of one column of numbers, (N, k) of one column of lists or of k columns."""
    read = _integers if whole else _floats
    if len(names) > 1:
        return np.stack([read(columns[name], name, lines) for name in names], axis=1)
    column = columns[names[0]]
    if _are_numbers(column) or (pa.types.is_string(column.type) and SCALAR.fullmatch(column[0].as_py())):
        return read(column, names[0], lines)
    parts, width = _split(column, names[0], lines)
    return read(parts, names[0], _repeated(lines, width)).reshape(-1, width)


def _floats(column: pa.Array, name: str, lines: Lines) -> NDArray[np.float64]:
    try:
        text = column if _are_numbers(column) else pc.utf8_trim_whitespace(_text(column))
        values = pc.cast(text, pa.float64()).to_numpy()
        wrong = _first(~np.isfinite(values))
    except pa.ArrowInvalid:
        wrong = next(row for row, cell in enumerate(_text(column).to_pylist()) if not _is_number(cell))
    if wrong is not None:
        raise lines.fault(wrong, f"{name} {str(column[wrong])[:SHOWN]!r}, expected a number")
    return values


def _is_number(cell: str) -> bool:
    try:
        pc.cast(pa.array([cell.strip()]), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _words(column: pa.Array, name: str, meanings: dict[str, int], lines: Lines) -> Integers:
    """Return the number that `meanings` gives each name in the column (N,), whatever its case."""
    text = pc.utf8_lower(pc.utf8_trim_whitespace(_text(column)))
    place = pc.index_in(text, pa.array(list(meanings)))
    wrong = _first(pc.is_null(place))
    if wrong is not None:
        raise lines.fault(wrong, f"{name} {str(column[wrong])[:SHOWN]!r}, expected one of {', '.join(meanings)}")
    return np.array(list(meanings.values()))[place.to_numpy()]


def _flags(column: pa.Array, name: str, lines: Lines) -> Integers:
    if not pa.types.is_list(column.type) and not re.match(r"\s*[\[(]", str(column[0])):
        return _words(column, name, HIT_NAMES, lines)
    parts, width = _split(column, name, lines)
    return _words(parts, name, HIT_NAMES, _repeated(lines, width)).reshape(-1, width)


def _entries(
    columns: dict[str, pa.Array], roles: Roles, lines: Lines, part: Integers | None, stated: Stated
) -> tuple[Entries, Stated]:
    """Return the entries, and what the columns state; `part` (N,) counts the headers above a line."""
    values: dict[str, NDArray] = {}
    for role, names in roles.items():
        if role in NUMBERED:
            values[role] = _numbers(columns, names, lines, whole=role == "experts")
        elif role == "phase":
            values[role] = _words(columns[names[0]], names[0], PHASE_NAMES, lines).astype(np.uint8)
        elif role == "hit":
            values[role] = _flags(columns[names[0]], names[0], lines)
        elif role == "sequence":
            values[role] = _text(columns[names[0]]).dictionary_encode().indices.to_numpy().astype(np.int64)
        else:
            values[role] = _integers(columns[names[0]], names[0], lines)
    if part is not None and part[-1] > 0:
        values["sequence"] = part * len(part) + values.get("sequence", 0)
    notes = {"recorded_cache": _recorded(values)} if "hit" in values else {}
    values, lines, notes = _without_unnumbered(values, lines, notes)
    if "k" in values:
        stated = replace(stated, top_k=_constant(values.pop("k"), lines, stated))
    if values["experts"].ndim == 1:
        values, lines = _grouped(values, lines, stated)
    elif stated.top_k is not None and stated.top_k < values["experts"].shape[1]:
        for role in {"experts", "weights"} & set(values):
            # Weights of a single column have no axis of their own.
            values[role] = values[role].reshape(len(lines.number), -1)[:, : stated.top_k]
    order, ranked = _by_weight(values, lines)
    experts, hit = (None if found is None else np.take_along_axis(found, order, axis=1) for found in _choices(values))
    named = {role: values.get(role) for role in ("token", "sequence", "phase")}
    entries = Entries(lines.path, lines.number, values["layer"], experts, **named, ranked=ranked, hit=hit, notes=notes)
    return entries, stated


def _choices(values: dict[str, NDArray]) -> tuple[Integers, Integers | None]:
    """(M, k) each: the experts, and how the cache served them; None where the lines do not tell it of each."""
    hit = values.get("hit")
    return values["experts"], None if hit is None or hit.shape != values["experts"].shape else hit


def _recorded(values: dict[str, NDArray]) -> dict[str, Any]:
    """Return what the cache of the run did: requests, hits and hits by prefetch, over all, by phase and by layer."""
    hit = values["hit"]

    def counted(rows: NDArray) -> dict[str, Any]:
        outcomes = hit[rows]
        totals = {
            "requests": outcomes.size,
            "hits": int((outcomes > 0).sum()),
            "hits_by_prefetch": int((outcomes == 2).sum()),
        }
        return totals | {"hit_rate": totals["hits"] / outcomes.size}

    summary = counted(np.ones(len(hit), bool))
    if "phase" in values:
        phases = np.unique(values["phase"]).tolist()
        summary["by_phase"] = {PHASES[phase]: counted(values["phase"] == phase) for phase in phases}
    summary["by_layer"] = {str(layer): counted(values["layer"] == layer) for layer in np.unique(values["layer"])[:512]}
    return summary


def _without_unnumbered(
    values: dict[str, NDArray], lines: Lines, notes: dict[str, Any]
) -> tuple[dict[str, NDArray], Lines, dict[str, Any]]:
    """Return all but the lines whose token is -1: prompt tokens that the engine did not number."""
    unnumbered = values["token"] == -1 if "token" in values else np.zeros(1, bool)
    if not unnumbered.any() or unnumbered.all():
        return values, lines, notes
    values = {role: found[~unnumbered] for role, found in values.items()}
    notes = notes | {"lines_without_token": int(unnumbered.sum())}
    return values, replace(lines, number=lines.number[~unnumbered]), notes


def _constant(top_k: Integers, lines: Lines, stated: Stated) -> int:
    expected = top_k[0] if stated.top_k is None else stated.top_k
    wrong = _first(top_k != expected)
    if wrong is not None:
        raise lines.fault(wrong, f"states k = {top_k[wrong]}, expected {expected} as before")
    if not 0 < expected <= EXPERTS:
        raise lines.fault(0, f"states k = {expected}, expected a number from 1 to {EXPERTS}")
    return int(expected)


def _grouped(values: dict[str, NDArray], lines: Lines, stated: Stated) -> tuple[dict[str, NDArray], Lines]:
    """Return the values of k rows as those of one entry; experts and weights become (M, k)."""
    rows, top_k = len(lines.number), stated.top_k
    keys = [values[role] for role in ("sequence", "token", "layer", "phase") if role in values]
    begins = np.concatenate([[True], np.logical_or.reduce([key[1:] != key[:-1] for key in keys])])
    if "rank" in values:
        first = values["rank"].min()
        begins |= values["rank"] == first
    elif "token" not in values:
        top_k = top_k or stated.usual_top_k
        if top_k is None:
            problem = "names neither tokens nor ranks, so that k is not known"
            raise UserError(str(lines.path), problem, "Add --top-k K.")
        run = np.flatnonzero(begins)
        begins = (np.arange(rows) - np.repeat(run, np.diff(np.append(run, rows)))) % top_k == 0
    starts = np.flatnonzero(begins)
    sizes = np.diff(np.append(starts, rows))
    expected = int(sizes[0]) if top_k is None else top_k
    wrong = _first(sizes != expected)
    if wrong is not None:
        last = starts[wrong] + sizes[wrong] - 1
        raise lines.fault(last, f"its token and layer have {sizes[wrong]} experts, expected {expected}")
    if "rank" in values:
        wrong = _first(values["rank"] - first != np.arange(rows) - np.repeat(starts, sizes))
        if first not in (0, 1) or wrong is not None:
            row = wrong or 0
            expected_rank = first + row - starts[np.searchsorted(starts, row, "right") - 1] if first in (0, 1) else 0
            raise lines.fault(row, f"rank {values['rank'][row]}, expected {expected_rank}: ranks in order, from 0 or 1")
    kept: dict[str, NDArray] = {}
    for role, found in values.items():
        by_choice = role in NUMBERED or (role == "hit" and found.ndim == 1)
        kept[role] = found.reshape(-1, expected) if by_choice else found[starts]
    return kept, replace(lines, number=lines.number[starts])


def _by_weight(values: dict[str, NDArray], lines: Lines) -> tuple[Integers, bool]:
    """(M, k) places of the experts by rank, else by descending weight, else as they stand; and whether it is known."""
    experts = values["experts"]
    as_they_stand = np.broadcast_to(np.arange(experts.shape[1]), experts.shape)
    if "rank" in values or "weights" not in values:
        return as_they_stand, "rank" in values
    weights = values["weights"].reshape(len(experts), -1)
    if weights.shape != experts.shape:
        raise lines.fault(0, f"has {experts.shape[1]} experts and {weights.shape[1]} weights")
    return np.argsort(-weights, axis=1, kind="stable"), True
