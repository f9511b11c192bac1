"""Routing as one CSV file per prompt, as the collector of MoE-Beyond writes it: prefill, one row per layer and token.

Columns `Layer ID,Batch Number,Token,Activated Expert IDs`; others, such as the collector's embeddings, are passed
over. Rows of one layer are in token order. `Token` is the token's text. The collector runs one prompt at a time, so
that `Batch Number` is 0, and its gate does not sort the experts.

docs/samples/prompt_csv.csv (model made-up) holds

    Layer ID,Batch Number,Token,Activated Expert IDs
    0,0,The,"[0, 1]"
    0,0,end,"[1, 3]"
    1,0,The,"[2, 3]"
    1,0,end,"[0, 2]"
"""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from prophet_moe.errors import UserError, from_os_error
from prophet_moe.routing.importers.reading import fault, files_of, logical_ids, trace_of, whole_sequence, with_notes
from prophet_moe.routing.trace import Origin, Router, Trace

COLUMNS = ("Layer ID", "Batch Number", "Token", "Activated Expert IDs")
LAYER, BATCH, TOKEN, CHOSEN = COLUMNS
NAMES = pa.dictionary(pa.int32(), pa.string())
TYPES = {LAYER: NAMES, BATCH: NAMES, TOKEN: NAMES, CHOSEN: pa.string()}
BLOCK_BYTES = 2**30
"""Most that is parsed at once; a row must fit."""
SPACE = r"[ \t\r\n]*"
NUMBER = rf"{SPACE}-?(0|[1-9][0-9]{{0,17}}){SPACE}"
LIST = rf"^{SPACE}\[{NUMBER}(,{NUMBER})*\]{SPACE}$"
"""A JSON list of whole numbers that fit into 64 bits, in RE2's grammar."""
TO_COMMAS, NO_PART = bytes.maketrans(b"]", b","), b"[ \t\r\n"
"""What makes one list of numbers of many such lists."""


def read(source: Path, router: Router, origin: Origin) -> Trace:
    """Read one .csv file or a folder of them; the files' names are kept in the notes, under "sequences"."""
    files = files_of(source, ".csv")
    experts = [_experts(path, router) for path in files]
    origin = with_notes(origin, sequences=[{"file": path.name} for path in files])
    return trace_of([whole_sequence(ids, len(ids)) for ids in experts], router, origin, source, ranked=False)


def _experts(path: Path, router: Router) -> NDArray[np.uint16]:
    try:
        data = path.read_bytes()
        data.decode()
        rows, uneven = _rows(data, _header(data, path))
    except UnicodeDecodeError as error:
        raise fault(path, f"not a text file (byte {error.start} is not UTF-8)") from None
    except pa.ArrowException as error:
        raise fault(path, f"malformed CSV: {str(error).splitlines()[0]}") from None
    except OSError as error:
        raise from_os_error(path, error) from None
    layers = [str(layer) for layer in router.layers]
    place = _places(rows[LAYER], layers)
    sound = (place >= 0) & (_places(rows[BATCH], ["0"]) == 0) & _are_lists(rows[CHOSEN], router.top_k)
    wrong = [*uneven, *np.flatnonzero(~sound)[:1].tolist()]
    if wrong or not _quoted_plainly(data):
        raise _explained(data, min(wrong, default=len(sound)), path, router)
    order = np.argsort(place, kind="stable")
    tokens = np.bincount(place, minlength=len(layers))
    _check_tokens(rows[TOKEN].take(order), tokens, router, path)
    by_layer = _numbers(rows[CHOSEN]).reshape(-1, router.top_k)[order].reshape(len(layers), -1, router.top_k)
    return logical_ids(by_layer.transpose(1, 0, 2), router, path)


def _header(data: bytes, path: Path) -> list[str]:
    """Return the names of the columns, the wanted ones once each."""
    try:
        header = next(_reader(data), [])
    except csv.Error as error:
        raise fault(path, f"malformed CSV: {error}") from None
    if any(header.count(column) != 1 for column in COLUMNS):
        raise fault(path, f"has columns {', '.join(header)}, expected {', '.join(COLUMNS)}")
    return header


def _reader(data: bytes) -> Any:
    """Return the rows as Python reads them, which knows its line: for the header and for what is wrong."""
    return csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""), strict=True)


def _rows(data: bytes, header: list[str]) -> tuple[dict[str, pa.Array], list[int]]:
    """The wanted columns of all rows up to the first with another number of cells, and the place of that one, if any.

    The header is no row. Of an empty line all cells are empty.
    """
    uneven: list[int] = []

    def note(row: pa.csv.InvalidRow) -> str:
        uneven.append(row.number - 2)
        return "skip"

    # Columns that are not wanted may have any name, also the same one.
    names = [name if name in COLUMNS else f"{place} {name}" for place, name in enumerate(header)]
    ended = data if data.endswith((b"\n", b"\r")) else data + b"\n"
    table = pa.csv.read_csv(
        io.BytesIO(ended),
        pa.csv.ReadOptions(
            use_threads=False, column_names=names, skip_rows_after_names=1, block_size=min(len(ended) + 1, BLOCK_BYTES)
        ),
        pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=note),
        pa.csv.ConvertOptions(column_types=TYPES, include_columns=COLUMNS),
    )
    before = table.unify_dictionaries().slice(0, uneven[0] if uneven else None)
    return {name: before[name].combine_chunks() for name in COLUMNS}, uneven[:1]


def _quoted_plainly(data: bytes) -> bool:
    """Whether every quote opens a cell, ends one, or is doubled inside one: pyarrow takes others as they come."""
    text = np.frombuffer(b"," + data + b",", np.uint8)
    quotes = np.flatnonzero(text == ord('"'))
    beside = np.concatenate([text[quotes[0::2] - 1], text[quotes[1::2] + 1]])
    return len(quotes) % 2 == 0 and bool(np.isin(beside, list(b',"\r\n')).all())


def _places(cells: pa.DictionaryArray, names: list[str]) -> NDArray[np.int64]:
    """(rows,): the place of each cell among `names`, -1 where it is none of them."""
    places = np.array([names.index(name) if name in names else -1 for name in cells.dictionary.to_pylist()], np.int64)
    return places[cells.indices.to_numpy()]


def _are_lists(cells: pa.StringArray, top_k: int) -> NDArray[np.bool_]:
    """(rows,): whether a cell is a list of k whole numbers, such as `[8, 26, 56, 57, 60, 43]`."""
    matching = pc.and_(pc.match_substring_regex(cells, LIST), pc.equal(pc.count_substring(cells, ","), top_k - 1))
    return matching.to_numpy(zero_copy_only=False)


def _numbers(lists: pa.StringArray) -> NDArray[np.int64]:
    joined = "".join(lists.to_pylist()).encode()
    return np.fromstring(joined.translate(TO_COMMAS, NO_PART)[:-1], np.int64, sep=",")


def _explained(data: bytes, wrong: int, path: Path, router: Router) -> UserError:
    """Return what is wrong with a file: from its row `wrong` on, or that it is no CSV."""
    reader = _reader(data)
    try:
        header = next(reader)
        for place, row in enumerate(reader):
            problem = _problem(row, header, router) if place >= wrong else ""
            if problem:
                return fault(f"{path}: line {reader.line_num}", problem)
    except csv.Error as error:
        return fault(path, f"malformed CSV: {error}")
    return fault(path, "malformed CSV: a quote inside a cell that is not quoted")


def _problem(row: list[str], header: list[str], router: Router) -> str:
    """Return what is wrong with a row; empty where nothing is."""
    if len(row) != len(header):
        return f"has {len(row)} cells, expected {len(header)}"
    layer, batch, _, chosen = (row[header.index(name)] for name in COLUMNS)
    if layer not in map(str, router.layers):
        return f"layer {layer}, expected one of {', '.join(map(str, router.layers))}"
    if batch != "0":
        return f"batch {batch}, expected 0: one prompt per file"
    if not _are_lists(pa.array([chosen]), router.top_k)[0]:
        return f"experts {chosen[:60]!r}, expected a list of {router.top_k} whole numbers"
    return ""


def _check_tokens(texts: pa.DictionaryArray, tokens: NDArray[np.int64], router: Router, path: Path) -> None:
    """Hold the texts of every layer's `tokens` (L,), layer by layer, against those of the first layer."""
    first, *others = np.split(texts.indices.to_numpy(), np.cumsum(tokens)[:-1])
    if not tokens.all():
        missing = router.layers[int(np.argmin(tokens))]
        raise fault(path, f"layer {missing} is missing, expected layers {', '.join(map(str, router.layers))}")
    for layer, column in zip(router.layers[1:], others, strict=True):
        if len(column) != len(first):
            raise fault(path, f"layer {layer} has {len(column)} tokens, layer {router.layers[0]} has {len(first)}")
        if (column != first).any():
            token = int(np.argmax(column != first))
            text, expected = (texts.dictionary[codes[token]].as_py() for codes in (column, first))
            raise fault(
                path, f"layer {layer}: token {token} is {text!r}, in layer {router.layers[0]} it is {expected!r}"
            )
