"""Routing as a tree of JSON: one object per prompt, with the decode tokens and the experts of every layer.

`{"row_index": ..., "dataset": ..., "router_data": [{"token_<position>": {"layer_<i>": {"selected_experts": [k ids],
"selected_probs": [k weights]}}}, ...]}`; a file holds one such object, a list of them, or one a line; a folder holds
such files.
Positions are the numbers in the file. The experts are ranked if their weights descend in every token and layer.

docs/samples/prompt_json.json (model made-up) holds

    {"row_index": 0, "router_data": [
      {"token_5": {"layer_0": {"selected_experts": [0, 1], "selected_probs": [0.7, 0.3]},
                   "layer_1": {"selected_experts": [2, 3], "selected_probs": [0.6, 0.4]}}},
      {"token_6": {"layer_0": {"selected_experts": [1, 3], "selected_probs": [0.8, 0.2]},
                   "layer_1": {"selected_experts": [0, 2], "selected_probs": [0.9, 0.1]}}}
    ]}
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from prophet_moe.routing.importers.reading import (
    Sequence,
    documents_of,
    fault,
    files_of,
    logical_ids,
    trace_of,
    with_notes,
)
from prophet_moe.routing.trace import DECODE, Origin, Router, Trace

ABOUT = ("row_index", "dataset", "category", "has_repetition", "finished_successfully")
"""What is kept of a prompt in the notes, under "sequences"."""


def read(source: Path, router: Router, origin: Origin) -> Trace:
    """Read one .json or .jsonl file or a folder of them."""
    sequences, about, ranked = [], [], True
    for path in files_of(source, ".json", ".jsonl"):
        for _, prompt in documents_of(path):
            where = f"{path}: sequence {len(sequences)}"
            if not isinstance(prompt, dict):
                raise fault(where, f"is {type(prompt).__name__}, expected an object with router_data")
            sequence, descending = _sequence(prompt.get("router_data"), router, where)
            sequences.append(sequence)
            about.append({"file": path.name} | {key: prompt[key] for key in ABOUT if key in prompt})
            ranked &= descending
    return trace_of(sequences, router, with_notes(origin, sequences=about), source, ranked=ranked)


def _sequence(router_data: Any, router: Router, where: str) -> tuple[Sequence, bool]:
    """Return one prompt's tokens, and whether the weights of all their experts descend."""
    if not isinstance(router_data, list) or not all(isinstance(step, dict) for step in router_data):
        raise fault(where, "router_data is missing or no list of objects")
    positions, experts, ranked = [], [], True
    for key, layers in (item for step in router_data for item in step.items()):
        position = _position(key, where)
        chosen, descending = _token(layers, router, f"{where}, position {position}")
        positions.append(position)
        experts.append(chosen)
        ranked &= descending
    shape = (len(positions), len(router.layers), router.top_k)
    ids = logical_ids(np.array(experts, np.int64).reshape(shape), router, where)
    return Sequence(np.array(positions, np.int64), np.full(len(positions), DECODE, np.uint8), ids), ranked


def _token(layers: Any, router: Router, where: str) -> tuple[list[list[int]], bool]:
    """L lists of k ids of one token, and whether the weights of all of them descend."""
    if not isinstance(layers, dict):
        raise fault(where, f"is {type(layers).__name__}, expected an object of layers")
    names = [f"layer_{number}" for number in router.layers]
    if set(layers) != set(names):
        raise fault(where, f"has {', '.join(layers) or 'no layer'}, expected {', '.join(names)}")
    chosen = [_experts(layers[name], router, f"{where}, {name}") for name in names]
    return chosen, all([_descends(layers[name], f"{where}, {name}") for name in names])


def _experts(layer: Any, router: Router, where: str) -> list[int]:
    chosen = layer.get("selected_experts") if isinstance(layer, dict) else None
    if not _is_list_of(chosen, int) or len(chosen) != router.top_k or max(map(abs, chosen)) >= 2**63:
        raise fault(where, f"selected_experts is {chosen!s:.60}, expected {router.top_k} whole numbers")
    return chosen


def _descends(layer: dict, where: str) -> bool:
    """Return whether the weights descend; without weights nothing is known."""
    if "selected_probs" not in layer:
        return False
    weights = layer["selected_probs"]
    if not _is_list_of(weights, int | float) or len(weights) != len(layer["selected_experts"]):
        raise fault(where, "selected_probs are not as many numbers as selected_experts")
    return all(first >= second for first, second in pairwise(weights))


def _is_list_of(values: Any, kind: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)


def _position(key: str, where: str) -> int:
    match = re.fullmatch("token_([0-9]{1,9})", key)
    if not match:
        raise fault(where, f"key {key!r}, expected token_<position>")
    return int(match[1])
