"""Counts: how often every expert was chosen, without any order of tokens.

A file is one of

* .csv with the columns `layer,expert,count`, one row per expert; experts without a row were not chosen;
* .npy, an array (layers, experts) or (windows, layers, experts) of whole numbers;
* .npz with such an array by the name `counts`, or with a single array;
* .json, such nested lists, or an object that holds them as `counts` or `logical_count`.

A folder holds such files; each is a window of its own, as is every example or forward pass of an array with windows.
Layers are the model's MoE layers in order, or all hidden layers from 0 on, dense ones 0. Windows without a count are
left out. Left open: which tokens ran together and in which order, so that nothing follows about reuse or prediction.
An expert with more than 1/k of a layer's choices is refused. Warned of, in the note `remarks`: totals that are no
multiple of k or differ between layers, a collapsed router, and tokens too few to tell popularity from chance.

docs/samples/counts.csv (model made-up) holds

    layer,expert,count
    0,0,300
    0,1,100
    0,2,200
    0,3,200
    1,0,200
    1,1,200
    1,2,100
    1,3,300
"""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prophet_moe.routing.arrays import read_arrays
from prophet_moe.routing.importers.reading import LAYERS, NEXT_STEP, fault, files_of, moe_counts, with_notes
from prophet_moe.routing.trace import Counts, Origin, Router
from prophet_moe.validation import read_json, read_text

COLUMNS = ("layer", "expert", "count")
NAMES = ("counts", "logical_count")
"""Names of the array of counts in an .npz file or a JSON object."""
LARGEST_COUNT_DIGITS = 16


def read(source: Path, router: Router, origin: Origin) -> Counts:
    """Read one file or a folder of them; the files' names are kept in the notes, under "files"."""
    files = files_of(source, ".csv", ".npy", ".npz", ".json")
    windows = np.concatenate([moe_counts(_numbers(path, router), router, path) for path in files])
    used = windows.any(axis=(1, 2))
    if not used.any():
        raise fault(source, "all counts are 0")
    return Counts(router, windows[used], with_notes(origin, files=[path.name for path in files]))


def _numbers(path: Path, router: Router) -> Any:
    """Return what a file holds as counts, in whichever form; not yet checked."""
    if path.suffix == ".csv":
        return _table(path, router)
    if path.suffix == ".json":
        content = read_json(path)
        if not isinstance(content, dict):
            return content
        held = [content[name] for name in NAMES if name in content]
    else:
        content = read_arrays(path, NEXT_STEP)
        held = [content[name] for name in NAMES if name in content] or list(content.values())
    if len(held) != 1:
        found = ", ".join(map(str, content)) or "nothing"
        raise fault(path, f"holds {found:.200}, expected counts by the name {' or '.join(NAMES)}")
    return held[0]


def _table(path: Path, router: Router) -> NDArray[np.int64]:
    """(layers, E): the counts of a CSV file, up to its last layer."""
    counts: dict[tuple[int, int], int] = {}
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
        header = [name.strip("\ufeff ").lower() for name in next(reader, [])]
        if sorted(header) != sorted(COLUMNS):
            raise fault(path, f"has columns {', '.join(header):.200}, expected {', '.join(COLUMNS)}")
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            if len(row) != len(header):
                raise fault(where, f"has {len(row)} cells, expected {len(header)}")
            cells = dict(zip(header, row, strict=True))
            layer, expert, count = (_whole(cells[name], name, where) for name in COLUMNS)
            if layer >= LAYERS or expert >= router.experts:
                expected = f"layers below {LAYERS} and experts from 0 to {router.experts - 1}"
                raise fault(where, f"layer {layer}, expert {expert}, expected {expected}")
            if (layer, expert) in counts:
                raise fault(where, f"layer {layer}, expert {expert} is counted twice")
            counts[layer, expert] = count
    except csv.Error as error:
        raise fault(path, f"malformed CSV: {error}") from None
    layers = 1 + max((layer for layer, _ in counts), default=0)
    # Counts of experts that were never chosen may be left out, and so may the last hidden layers.
    rows = layers if layers == len(router.layers) else max(layers, max(router.layers) + 1)
    table = np.zeros((rows, router.experts), np.int64)
    for (layer, expert), count in counts.items():
        table[layer, expert] = count
    return table


def _whole(cell: str, name: str, where: str) -> int:
    text = cell.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > LARGEST_COUNT_DIGITS:
        raise fault(where, f"{name} is {cell[:60]!r}, expected a whole number from 0 on")
    return int(text)
