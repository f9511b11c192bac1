"""What the importers share: finding files, reading arrays, and checks that name the file."""

import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError, from_os_error
from prophet_moe.routing.trace import DECODE, PREFILL, Origin, Router, Trace, check

NEXT_STEP = "Name another file, format or model."
POSITIONS = 2**31
"""Positions are below this."""


@dataclass(frozen=True)
class Sequence:
    """The T tokens of one sequence, in order."""

    position: NDArray[np.integer]
    """(T,)."""
    phase: NDArray[np.uint8]
    """(T,), PREFILL or DECODE."""
    experts: NDArray[np.uint16]
    """(T, L, k), logical ids."""


def fault(where: str | Path, problem: str) -> UserError:
    """The error for a file, or a place in it, that is not what the format or the model expects."""
    return UserError(str(where), problem, NEXT_STEP)


def files_of(source: Path, *suffixes: str) -> list[Path]:
    """`source` itself if it is a file; the files of the folder `source` that end in one of `suffixes`, by name."""
    if not source.exists():
        raise fault(source, "no such file or folder")
    if not source.is_dir():
        return [source]
    files = sorted(path for path in source.iterdir() if path.suffix in suffixes and path.is_file())
    if not files:
        raise fault(source, f"holds no file that ends in {' or '.join(suffixes)}")
    return files


def read_arrays(path: Path) -> dict[str, NDArray]:
    """All arrays of an .npz file."""
    try:
        arrays = np.load(path, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise fault(path, "holds one array, expected an .npz file of named arrays")
        with arrays:
            return {name: arrays[name] for name in arrays.files}
    except OSError as error:
        raise from_os_error(path, error) from None
    except (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        raise fault(path, "truncated, or no .npz file of plain arrays") from None


def member(arrays: dict[str, NDArray], name: str, path: Path, shape: tuple[int | None, ...]) -> NDArray[np.integer]:
    """The array `name` of integers; None in `shape` stands for any length."""
    if name not in arrays:
        raise fault(path, f"holds {', '.join(arrays) or 'nothing'}, expected an array {name}")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if array.dtype.kind not in "iu" or not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise fault(path, f"{name} is {array.dtype} of shape {array.shape}, expected integers of shape ({wanted})")
    return array


def scalar(arrays: dict[str, NDArray], name: str, path: Path) -> int:
    """The whole number `name`, 0 or more."""
    value = int(member(arrays, name, path, ()))
    if not 0 <= value < POSITIONS:
        raise fault(path, f"{name} is {value}, expected a number of tokens")
    return value


def logical_ids(ids: NDArray[np.integer], router: Router, where: str | Path) -> NDArray[np.uint16]:
    """Expert ids (T, L, k), all in the range of the model."""
    wrong = (ids < 0) | (ids >= router.experts)
    if wrong.any():
        row, layer, rank = np.argwhere(wrong)[0]
        problem = f"expert {ids[row, layer, rank]}, expected ids from 0 to {router.experts - 1}"
        raise fault(where, f"token {row}, layer {router.layers[layer]}: {problem}")
    return ids.astype(np.uint16)


def moe_layers(ids: NDArray[np.integer], router: Router, where: str | Path) -> NDArray[np.uint16]:
    """Expert ids (T, L, k) of the MoE layers, from those of all hidden layers (T, hidden layers, k)."""
    deepest = max(router.layers)
    if ids.ndim != 3 or ids.shape[1] <= deepest or ids.shape[2] != router.top_k:
        expected = f"(tokens, hidden layers, {router.top_k}) with at least {deepest + 1} hidden layers"
        raise fault(where, f"expert ids have shape {ids.shape}, expected {expected}")
    return logical_ids(ids[:, list(router.layers)], router, where)


def phases(prompt_tokens: int, tokens: int) -> NDArray[np.uint8]:
    """(tokens,): PREFILL for the first `prompt_tokens`, then DECODE."""
    return np.where(np.arange(tokens) < prompt_tokens, PREFILL, DECODE).astype(np.uint8)


def whole_sequence(experts: NDArray[np.uint16], prompt_tokens: int) -> Sequence:
    """A sequence recorded from its first token on, of which `prompt_tokens` are the prompt."""
    tokens = len(experts)
    return Sequence(np.arange(tokens), phases(prompt_tokens, tokens), experts)


def trace_of(sequences: list[Sequence], router: Router, origin: Origin, source: Path, *, ranked: bool) -> Trace:
    """The checked trace of `sequences`, numbered in their order."""
    lengths = [len(sequence.position) for sequence in sequences]
    none = Sequence(np.empty(0, int), np.empty(0, np.uint8), np.empty((0, len(router.layers), router.top_k), np.uint16))
    position, phase, experts = (
        np.concatenate([getattr(none, name), *(getattr(sequence, name) for sequence in sequences)])
        for name in ("position", "phase", "experts")
    )
    number = np.repeat(np.arange(len(sequences), dtype=np.int32), lengths)
    trace = Trace(router, number, position.astype(np.int32), phase, experts, ranked, origin)
    return check(trace, source, NEXT_STEP)


def with_notes(origin: Origin, **notes: Any) -> Origin:
    """`origin` with `notes` added to its own."""
    return replace(origin, notes=origin.notes | notes)
