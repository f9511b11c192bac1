"""The importer of prompt_csv row by row: plain and slow, for what is held against it."""

import csv
import json
from pathlib import Path

import numpy as np

from prophet_moe.routing.importers.reading import fault, files_of, logical_ids, trace_of, whole_sequence, with_notes
from prophet_moe.routing.trace import Origin, Router, Trace

COLUMNS = ("Layer ID", "Batch Number", "Token", "Activated Expert IDs")


def read(source: Path, router: Router, origin: Origin) -> Trace:
    files = files_of(source, ".csv")
    experts = [_experts(path, router) for path in files]
    origin = with_notes(origin, sequences=[{"file": path.name} for path in files])
    return trace_of([whole_sequence(ids, len(ids)) for ids in experts], router, origin, source, ranked=False)


def _experts(path: Path, router: Router) -> np.ndarray:
    layers = _layers(path, router)
    for layer in router.layers:
        if layer not in layers:
            raise fault(path, f"layer {layer} is missing, expected layers {', '.join(map(str, router.layers))}")
    first = router.layers[0]
    texts = [text for text, _ in layers[first]]
    for layer in router.layers:
        if len(layers[layer]) != len(texts):
            raise fault(path, f"layer {layer} has {len(layers[layer])} tokens, layer {first} has {len(texts)}")
        for row, (text, _) in enumerate(layers[layer]):
            if text != texts[row]:
                raise fault(path, f"layer {layer}: token {row} is {text!r}, in layer {first} it is {texts[row]!r}")
    by_layer = np.array([[chosen for _, chosen in layers[layer]] for layer in router.layers], np.int64)
    return logical_ids(by_layer.transpose(1, 0, 2), router, path)


def _layers(path: Path, router: Router) -> dict[int, list[tuple[str, list[int]]]]:
    layers: dict[int, list[tuple[str, list[int]]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            if any(header.count(column) != 1 for column in COLUMNS):
                raise fault(path, f"has columns {', '.join(header)}, expected {', '.join(COLUMNS)}")
            places = [header.index(column) for column in COLUMNS]
            for row in reader:
                where = f"{path}: line {reader.line_num}"
                if len(row) != len(header):
                    raise fault(where, f"has {len(row)} cells, expected {len(header)}")
                layer, batch, text, chosen = (row[place] for place in places)
                if layer not in map(str, router.layers):
                    raise fault(where, f"layer {layer}, expected one of {', '.join(map(str, router.layers))}")
                if batch != "0":
                    raise fault(where, f"batch {batch}, expected 0: one prompt per file")
                layers.setdefault(int(layer), []).append((text, _chosen(chosen, router, where)))
    except csv.Error as error:
        raise fault(path, f"malformed CSV: {error}") from None
    except UnicodeDecodeError as error:
        raise fault(path, f"not a text file (byte {error.start} is not UTF-8)") from None
    return layers


def _chosen(cell: str, router: Router, where: str) -> list[int]:
    try:
        chosen = json.loads(cell)
    except ValueError:
        chosen = None
    whole = isinstance(chosen, list) and all(type(expert) is int and abs(expert) < 10**18 for expert in chosen)
    if not whole or len(chosen) != router.top_k:
        raise fault(where, f"experts {cell[:60]!r}, expected a list of {router.top_k} whole numbers")
    return chosen
