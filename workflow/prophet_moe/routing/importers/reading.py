"""What the importers share: finding files, reading arrays, and checks that name the file."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError, from_os_error
from prophet_moe.routing.arrays import check_expansion, largest_expansion, machine_memory, read_arrays
from prophet_moe.routing.trace import DECODE, PREFILL, Origin, Router, Trace, check
from prophet_moe.validation import read_json

NEXT_STEP = "Name another file, format or model."
POSITIONS = 2**31
"""Positions are below this."""
LAYERS = 10_000
"""Ids of layers are below this."""
SHARED_SLOTS_SURE = 64
"""Tokens times layers in which one id in the same slot is no chance."""
UNFUSED = "Serve it with --disable-shared-experts-fusion and record again."
TEXT_RATIO = 100
"""Beyond this, how many times its own size a compressed text may expand to. Tables of routing shrink to 1/30."""
REMARKS = "remarks"
"""The note with sentences for the user: what a file leaves out, and what of it looks wrong."""


@dataclass(frozen=True)
class Sequence:
    """The T tokens of one sequence, in the order in which they were processed."""

    position: NDArray[np.integer]
    """(T,)."""
    phase: NDArray[np.uint8]
    """(T,), PREFILL or DECODE."""
    experts: NDArray[np.uint16]
    """(T, L, k), logical ids."""


def fault(where: str | Path, problem: str) -> UserError:
    """Return the error for a file, or a place in it, that is not what the format or the model expects."""
    return UserError(str(where), problem, NEXT_STEP)


def files_of(source: Path, *suffixes: str) -> list[Path]:
    """Return `source` if it is a file, else the files of the folder that end in one of `suffixes`, by name."""
    if not source.exists():
        raise fault(source, "no such file or folder")
    if not source.is_dir():
        return [source]
    files = sorted(path for path in source.iterdir() if path.suffix in suffixes and path.is_file())
    if not files:
        raise fault(source, f"holds no file that ends in {' or '.join(suffixes)}")
    return files


def documents_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the JSON documents of a file, each with its place: those of one list, or of JSON lines."""
    if path.suffix != ".jsonl" and not _begins_with_lines(path):
        content = read_json(path)
        documents = content if isinstance(content, list) else [content]
        yield from ((f"{path}: response {number}", document) for number, document in enumerate(documents))
        return
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise from_os_error(path, error) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise fault(where, f"malformed JSON: {error}") from None


def _begins_with_lines(path: Path) -> bool:
    """Return whether the first line is a JSON document of its own that another line follows."""
    try:
        with path.open("rb") as stream:
            first, second = stream.readline(), stream.readline()
        return bool(second.strip()) and isinstance(json.loads(first), dict)
    except (OSError, ValueError, RecursionError):
        return False


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, decompressed where it is one of gzip, and no further than routing may expand."""
    try:
        with path.open("rb") as stream:
            if stream.read(2) != b"\x1f\x8b":
                return path.read_bytes()
        most = min(largest_expansion(path, TEXT_RATIO), machine_memory())
        with gzip.open(path) as stream:
            content = stream.read(most + 1)
        check_expansion(path, len(content), TEXT_RATIO, NEXT_STEP)
        return content
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise fault(path, "truncated or damaged gzip file") from None
    except OSError as error:
        raise from_os_error(path, error) from None


def read_named_arrays(path: Path) -> dict[str, NDArray]:
    """Return all arrays of an .npz file; an .npy file, whose array has no name, is refused."""
    arrays = read_arrays(path, NEXT_STEP)
    if "" in arrays:
        raise fault(path, f"holds one array {arrays[''].shape} without a name, expected an .npz file of named arrays")
    return arrays


def member(arrays: dict[str, NDArray], name: str, path: Path, shape: tuple[int | None, ...]) -> NDArray[np.integer]:
    """Return the array `name` of integers; None in `shape` stands for any length."""
    if name not in arrays:
        raise fault(path, f"holds {', '.join(arrays) or 'nothing'}, expected an array {name}")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if array.dtype.kind not in "iu" or not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise fault(path, f"{name} is {array.dtype} of shape {array.shape}, expected integers of shape ({wanted})")
    return array


def scalar(arrays: dict[str, NDArray], name: str, path: Path) -> int:
    """Return the whole number called `name`, which must be at least 0."""
    value = int(member(arrays, name, path, ()))
    if not 0 <= value < POSITIONS:
        raise fault(path, f"{name} is {value}, expected a number of tokens")
    return value


def logical_ids(ids: NDArray[np.integer], router: Router, where: str | Path) -> NDArray[np.uint16]:
    """Return expert ids (T, L, k), all in the range of the model."""
    wrong = (ids < 0) | (ids >= router.experts)
    if wrong.any():
        row, layer, rank = np.argwhere(wrong)[0]
        problem = f"expert {ids[row, layer, rank]}, expected ids from 0 to {router.experts - 1}"
        raise fault(where, f"token {row}, layer {router.layers[layer]}: {problem}")
    return ids.astype(np.uint16)


def moe_layers(ids: NDArray[np.integer], router: Router, where: str | Path) -> NDArray[np.uint16]:
    """Return expert ids (T, L, k) of the MoE layers, from those of all hidden layers (T, hidden layers, k)."""
    deepest = max(router.layers)
    if ids.ndim != 3 or ids.shape[1] <= deepest or ids.shape[2] != router.top_k:
        expected = f"(tokens, hidden layers, {router.top_k}) with at least {deepest + 1} hidden layers"
        raise fault(where, f"expert ids have shape {ids.shape}, expected {expected}")
    return logical_ids(ids[:, list(router.layers)], router, where)


def whole_numbers(values: Any, name: str, where: str | Path) -> NDArray[np.int64]:
    """Return a tensor or nested lists of whole numbers below 2^53 in size, perhaps written as floats."""
    try:
        array = np.asarray(values)
        array = array.astype(np.int64) if array.size == 0 else array
        array = array.astype(np.float64) if array.dtype.kind == "f" else array
    except (ValueError, TypeError, RuntimeError):
        raise fault(where, f"{name} is no array of numbers") from None
    if array.dtype.kind not in "iuf":
        raise fault(where, f"{name} is no array of numbers")
    if not ((array >= -(2**53)) & (array <= 2**53)).all():
        raise fault(where, f"{name} holds numbers that are not finite or too large to be counted")
    if array.dtype.kind == "f" and (array != np.rint(array)).any():
        raise fault(where, f"{name} holds numbers that are not whole")
    return array.astype(np.int64)


def moe_counts(counts: Any, router: Router, where: str | Path) -> NDArray[np.int64]:
    """(S, L, E) of counts of windows, layers and experts; one window needs no axis of its own.

    The layers are the model's MoE layers in order, or hidden layers from 0 on, of which dense ones are 0.
    """
    numbers = whole_numbers(counts, "counts", where)
    numbers = numbers[None] if numbers.ndim == 2 else numbers
    deepest, layers = max(router.layers), len(router.layers)
    enough = numbers.ndim == 3 and (numbers.shape[1] > deepest or numbers.shape[1] == layers)
    if not enough or numbers.shape[2] != router.experts:
        rows = f"{layers} MoE or at least {deepest + 1} hidden"
        expected = f"(windows, {rows} layers, {router.experts} experts)"
        raise fault(where, f"counts have shape {numbers.shape}, expected {expected}")
    if (numbers < 0).any():
        raise fault(where, f"counts hold {numbers.min()}, expected none below 0")
    if numbers.shape[1] <= deepest:
        return numbers
    check_dense((numbers != 0).any(axis=(0, 2)), router, where)
    return numbers[:, list(router.layers)]


def check_dense(recorded: NDArray[np.bool_], router: Router, where: str | Path) -> None:
    """Refuse a record (hidden layers,) of layers that are not among the model's MoE layers."""
    wrong = set(np.flatnonzero(recorded).tolist()) - set(router.layers)
    if wrong:
        layers = ", ".join(map(str, router.layers))
        raise fault(where, f"layer {min(wrong)} has recorded experts, expected MoE layers {layers} only")


def without_shared_slots(ids: NDArray[np.integer], router: Router, where: str | Path) -> NDArray[np.integer]:
    """Return expert ids (T, hidden layers, k) without the further slots of fused shared experts.

    Such a slot holds one id in all tokens and MoE layers, and is no routing. Among k slots it is refused.
    """
    slots = ids.shape[2]
    moe = ids[:, list(router.layers)].reshape(-1, slots)
    same = (moe == moe[:1]).all(axis=0) if len(moe) else np.zeros(slots, bool)
    names = ", ".join(map(str, np.unique(moe[:1, same])))
    if slots > router.top_k:
        if same.sum() != slots - router.top_k:
            problem = f"a token has {slots} experts, expected {router.top_k}, or {slots - router.top_k} slots of one id"
            raise fault(where, f"{problem} each that fused shared experts leave; there are {same.sum()} such slots")
        return ids[:, :, ~same]
    if same.all():
        return ids
    if (moe[:1, same] >= router.experts).any() or (same.any() and len(moe) >= SHARED_SLOTS_SURE):
        problem = f"id {names} in the same slot of every token and layer is of a fused shared expert, no routing"
        raise UserError(str(where), f"{problem}; expected {router.top_k} routed experts", UNFUSED)
    return ids


def first_position(
    tokens: int, prompt: int, generated: int | None, start: int | None, where: str | Path
) -> tuple[int, str]:
    """Return the position of the first of `tokens` with routing, and what is missing: "", "last" or "first".

    Of the `prompt` and `generated` tokens the last has no routing, where it was never fed back; of a prompt alone
    SGLang loses that of its last token ("last"). Tokens before `start` were not asked for, or were cached ("first");
    a start that is not told (None) follows from the number of tokens, where `generated` is told.
    """
    first = start or 0
    if generated is None:
        if first + tokens >= prompt:
            return first, "first" if first else ""
        if first + tokens == prompt - 1:
            return first, "last"
        raise fault(where, f"routed_experts has {tokens} tokens, expected the {prompt - first} of the prompt at least")
    both = prompt + generated
    if first + tokens in (both - 1, both):
        lost = generated == 0 and first + tokens == both - 1
        return first, "last" if lost else "first" if first else ""
    inferred = both - 1 - tokens
    if start is None and 0 < inferred <= prompt:
        return inferred, "first"
    expected = (
        f"{max(both - 1 - first, 0)} or {both - first} (prompt + completion{f' - start {first}' if first else ''})"
    )
    raise fault(where, f"routed_experts has {tokens} tokens, expected {expected}")


def missing_told(missing: Iterable[str]) -> list[str]:
    """Return sentences about requests that lack routing of some tokens, by the words of `first_position`."""
    counted = Counter(missing)
    texts = {
        "first": "of {} of {} requests the first tokens have no routing: not asked for (routed_experts_start_len), "
        "cached, or lost",
        "last": "of {} of {} requests the last token of the prompt has no routing: SGLang loses it where nothing is "
        "generated (sgl-project/sglang issue 20964)",
    }
    return [text.format(counted[word], counted.total()) for word, text in texts.items() if counted[word]]


def phases(position: NDArray[np.integer], prompt_tokens: int) -> NDArray[np.uint8]:
    """(T,): PREFILL for positions among the first `prompt_tokens`, then DECODE."""
    return np.where(position < prompt_tokens, PREFILL, DECODE).astype(np.uint8)


def whole_sequence(experts: NDArray[np.uint16], prompt_tokens: int, first: int = 0) -> Sequence:
    """Return a sequence recorded from the position `first` on, of which `prompt_tokens` are the prompt."""
    position = np.arange(first, first + len(experts))
    return Sequence(position, phases(position, prompt_tokens), experts)


def trace_of(sequences: list[Sequence], router: Router, origin: Origin, source: Path, *, ranked: bool) -> Trace:
    """Check the trace of `sequences`, numbered in their order, and return it."""
    lengths = [len(sequence.position) for sequence in sequences]
    none = Sequence(np.empty(0, int), np.empty(0, np.uint8), np.empty((0, len(router.layers), router.top_k), np.uint16))
    position, phase, experts = (
        np.concatenate([getattr(none, name), *(getattr(sequence, name) for sequence in sequences)])
        for name in ("position", "phase", "experts")
    )
    number = np.repeat(np.arange(len(sequences), dtype=np.int32), lengths)
    trace = Trace(router, number, position.astype(np.int32), phase, experts, ranked, origin)
    return check(trace, source, NEXT_STEP)


def with_remarks(origin: Origin, remarks: Iterable[str]) -> Origin:
    """Return `origin` with sentences for the user added to its notes, each once."""
    all_remarks = [*origin.notes.get(REMARKS, []), *remarks]
    return with_notes(origin, **{REMARKS: list(dict.fromkeys(all_remarks))}) if all_remarks else origin


def with_notes(origin: Origin, **notes: Any) -> Origin:
    """Return `origin` with `notes` added to those it has."""
    return replace(origin, notes=origin.notes | notes)
