"""Routing as named NumPy arrays in one .npz file.

`expert_ids` (N, L, k) holds the tokens of all S sequences one after another, k in descending router weight where
`seq_len` is there. Which tokens these are depends on the other arrays:

* `seq_len` (S,) and `prompt_len` (S,): decode tokens only; the first of a sequence is at position `prompt_len`.
* `prompt_len` (S,) alone, perhaps with `prompt_id` (S,): the tokens of the prompts, in no order of rank.

`layer_ids` (L,), if there, must be the model's MoE layers. A file <name>_sequences.csv beside <name>.npz, with a row
for each sequence, goes into the notes.

docs/samples/arrays.npz (model made-up) is written by

    import numpy as np
    np.savez(
        "arrays.npz",
        expert_ids=np.array([[[0, 1], [2, 3]], [[1, 3], [0, 2]], [[0, 2], [1, 3]]], np.uint8),  # tokens, layers, k
        seq_len=np.array([2, 1]), prompt_len=np.array([5, 7]),  # decoded tokens and prompt of each sequence
    )
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prophet_moe.routing.importers.reading import (
    NEXT_STEP,
    POSITIONS,
    fault,
    logical_ids,
    member,
    read_named_arrays,
    with_notes,
)
from prophet_moe.routing.trace import DECODE, PREFILL, Origin, Router, Trace, check
from prophet_moe.validation import read_csv

COLUMNS = [
    "sequence",
    "dataset",
    "category",
    "row_index",
    "finished",
    "repetition",
    "n_decode_steps",
    "prompt_len_tokens",
]
"""Columns of <name>_sequences.csv."""


def read(source: Path, router: Router, origin: Origin) -> Trace:
    """Read the routing of one .npz file of named arrays, described at the head of this module."""
    arrays = read_named_arrays(source)
    _check_layers(arrays, router, source)
    experts = logical_ids(
        member(arrays, "expert_ids", source, (None, len(router.layers), router.top_k)), router, source
    )
    tokens = len(experts)
    if "seq_len" in arrays:
        lengths = _lengths(arrays, "seq_len", source, tokens)
        first = _first_positions(arrays, source, lengths)
        phase, ranked = DECODE, True
    else:
        lengths = _lengths(arrays, "prompt_len", source, tokens)
        first = np.zeros_like(lengths)
        phase, ranked = PREFILL, False
    if "prompt_id" in arrays:
        prompt_ids = member(arrays, "prompt_id", source, (len(lengths),))
        origin = with_notes(origin, prompt_id=prompt_ids.tolist())
    about = source.with_name(f"{source.stem}_sequences.csv")
    if about.exists():
        origin = with_notes(origin, sequences=_about(about, lengths))
    starts = np.cumsum(lengths) - lengths
    trace = Trace(
        router,
        np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        (np.arange(tokens) + np.repeat(first - starts, lengths)).astype(np.int32),
        np.full(tokens, phase, np.uint8),
        experts,
        ranked,
        origin,
    )
    return check(trace, source, NEXT_STEP)


def _about(path: Path, lengths: NDArray[np.int64]) -> list[dict[str, str | bool]]:
    """Return what is known about every sequence, in the words of the JSON form of the same data."""
    rows = read_csv(path, COLUMNS)
    if [(row[0], row[6]) for row in rows] != [(str(number), str(length)) for number, length in enumerate(lengths)]:
        raise fault(path, f"its rows are not the {len(lengths)} sequences and lengths of the .npz file")
    return [{"dataset": row[1], "category": row[2], "has_repetition": row[5] == "True"} for row in rows]


def _check_layers(arrays: dict[str, NDArray], router: Router, source: Path) -> None:
    layers = arrays.get("layer_ids", np.array(router.layers))
    if layers.tolist() != list(router.layers):
        raise fault(source, f"layer_ids are {layers.tolist()}, expected {list(router.layers)}")


def _lengths(arrays: dict[str, NDArray], name: str, source: Path, tokens: int) -> NDArray[np.int64]:
    """(S,): tokens of each sequence, which must add up to `tokens`."""
    lengths = member(arrays, name, source, (None,))
    total = sum(lengths.tolist())
    if (lengths < 0).any():
        raise fault(source, f"{name} holds {lengths.min()}, expected lengths of sequences")
    if total != tokens:
        raise fault(source, f"{name} adds up to {total} tokens, expert_ids has {tokens}")
    return lengths.astype(np.int64)


def _first_positions(arrays: dict[str, NDArray], source: Path, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    first = member(arrays, "prompt_len", source, lengths.shape)
    wrong = (first < 0) | (first >= POSITIONS - lengths)
    if wrong.any():
        raise fault(source, f"prompt_len of sequence {np.argmax(wrong)} is {first[wrong][0]}, expected a length")
    return first.astype(np.int64)
