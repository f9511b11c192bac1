"""Routing traces: which experts every token chose in every MoE layer, and what makes such a record wrong.

Needs NumPy only: the machine that collects uses it too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError

PREFILL, DECODE = 0, 1
PHASES = ("prefill", "decode")
"""Names of the phases, by their number."""

DTYPES = {"sequence": np.int32, "position": np.int32, "phase": np.uint8, "token": np.int32}
LARGEST_EXPERTS = 4096
"""Experts of a layer; the largest models have 2048. Tables of pairs of them take 128 MiB then."""
BLOCK_TOKENS = 16_384
"""Tokens checked at once: bounds the memory that checking takes."""


@dataclass(frozen=True)
class Router:
    """What a model's routers have in common: `experts` E, `top_k` k, and the ids of the MoE layers, ascending."""

    model: str
    experts: int
    top_k: int
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Origin:
    """Where a trace comes from: source, licence, checksum and the code that made it."""

    source: str
    """Project, file or command."""
    licence: str
    source_sha256: str = ""
    """SHA-256 of the file that was read; empty where the trace was recorded here."""
    collector: str = ""
    """Name and version of the code that made it."""
    notes: dict = field(default_factory=dict)
    """Anything else worth keeping: machine, training, versions; JSON-like."""


@dataclass(frozen=True)
class Trace:
    """One row per token, sequences one after another; N tokens, L MoE layers, k choices."""

    router: Router
    sequence: NDArray[np.int32]
    """(N,), not descending."""
    position: NDArray[np.int32]
    """(N,), ascending inside a sequence."""
    phase: NDArray[np.uint8]
    """(N,), PREFILL or DECODE."""
    experts: NDArray[np.uint16]
    """(N, L, k), logical ids."""
    ranked: bool
    """Whether the k choices are in descending order of router weight."""
    origin: Origin
    token: NDArray[np.int32] | None = None
    """(N,), ids of the tokens themselves, where known."""

    def __len__(self) -> int:
        """Return the number of tokens, N."""
        return len(self.sequence)

    def select(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> "Trace":
        """Return the tokens that `keep` names: a mask of (N,), or their row numbers."""
        token = None if self.token is None else self.token[keep]
        return Trace(
            self.router,
            self.sequence[keep],
            self.position[keep],
            self.phase[keep],
            self.experts[keep],
            self.ranked,
            self.origin,
            token,
        )

    @property
    def described_phase(self) -> int:
        """Return the phase that is described and replayed: DECODE, or PREFILL where no token is of decoding."""
        return DECODE if (self.phase == DECODE).any() else PREFILL

    def described_tokens(self) -> NDArray[np.bool_]:
        """(N,): which tokens are of the phase that is described and replayed."""
        return self.phase == self.described_phase

    def described(self) -> "Trace":
        """Return the decode tokens alone; the trace as it is where it holds none, but tokens of prefill."""
        return self.select(self.described_tokens())


@dataclass(frozen=True)
class Counts:
    """How often every expert was chosen; all that sources without token order can tell.

    `counts` is int64 (S, L, E): S windows (such as forward passes), L MoE layers, E experts.
    """

    router: Router
    counts: NDArray[np.int64]
    origin: Origin


def sequence_starts(trace: Trace) -> NDArray[np.int64]:
    """Return the index of the first token of every sequence, and the number of tokens last: (sequences + 1,)."""
    changes = np.flatnonzero(np.diff(trace.sequence)) + 1
    return np.concatenate([[0], changes, [len(trace)]]).astype(np.int64)


def joined(traces: Sequence[Trace]) -> Trace:
    """Return the tokens of all `traces`, at least one, of the same routers and origin, in their order."""
    first, columns = traces[0], ["sequence", "position", "phase", "experts"]
    if first.token is not None:
        columns.append("token")
    return replace(first, **{name: np.concatenate([getattr(trace, name) for trace in traces]) for name in columns})


def check(trace: Trace, where: str | Path, next_step: str = "Collect or import it again.") -> Trace:
    """Return `trace` if it is sound; else a UserError names `where`, the sequence, the position and the layer."""
    router, tokens = trace.router, len(trace)
    check_router(router, where, next_step)
    expected = (tokens, len(router.layers), router.top_k)
    if trace.experts.shape != expected:
        raise UserError(
            str(where),
            f"expert ids have shape {trace.experts.shape}, expected {expected} (tokens, layers, k)",
            next_step,
        )
    for name in ("position", "phase", "token"):
        values = getattr(trace, name)
        if values is not None and values.shape != (tokens,):
            raise UserError(str(where), f"{name} has shape {values.shape}, expected ({tokens},)", next_step)
    if tokens == 0:
        raise UserError(str(where), "holds no token", next_step)
    for name, kind in DTYPES.items():
        values = getattr(trace, name)
        if values is not None and values.dtype != kind:
            raise UserError(str(where), f"{name} is of type {values.dtype}, expected {kind}", next_step)
        if values is not None and values.min() < 0:
            row = int(np.argmin(values))
            raise _at(trace, row, None, f"{name} is {values[row]}, expected at least 0", where, next_step)
    _check_order(trace, where, next_step)
    for start in range(0, tokens, BLOCK_TOKENS):
        block = trace.experts[start : start + BLOCK_TOKENS]
        if block.max() >= router.experts:
            row, layer, rank = np.argwhere(block >= router.experts)[0]
            problem = f"expert {block[row, layer, rank]}, expected ids below {router.experts}"
            raise _at(trace, start + row, layer, problem, where, next_step)
        repeated = _repeats(block)
        if repeated.any():
            row, layer = np.argwhere(repeated)[0]
            chosen = ", ".join(map(str, block[row, layer]))
            raise _at(trace, start + row, layer, f"an expert twice among [{chosen}]", where, next_step)
    return trace


def check_blocks(blocks: Iterable[Trace], where: str | Path) -> Iterator[Trace]:
    """Yield the successive `blocks` of one trace, each after `check` of it and of how it goes on from the last."""
    last = None
    for block in blocks:
        check(block, where)
        if last is not None:
            check(joined([last, block.select(np.arange(1))]), where)
        last = block.select(np.arange(len(block) - 1, len(block)))
        yield block


def check_counts(counts: Counts, where: str | Path, next_step: str = "Import them again.") -> Counts:
    """Return `counts` if they are sound; else a UserError names `where` and what was expected."""
    check_router(counts.router, where, next_step)
    expected = (len(counts.counts), len(counts.router.layers), counts.router.experts)
    if counts.counts.shape != expected:
        problem = f"counts have shape {counts.counts.shape}, expected {expected} (windows, layers, experts)"
        raise UserError(str(where), problem, next_step)
    if not np.issubdtype(counts.counts.dtype, np.integer) or counts.counts.size == 0 or counts.counts.min() < 0:
        raise UserError(str(where), "holds counts that are not whole numbers from 0 on", next_step)
    router = counts.router
    if counts.counts.sum(dtype=float) >= 2**53 or counts.counts.max() >= 2**53 // router.top_k:
        raise UserError(str(where), "counts add up to more than 2^53 choices, expected a number of choices", next_step)
    choices = counts.counts.sum(axis=2)
    empty = choices.sum(axis=0) == 0
    if empty.any():
        problem = f"layer {router.layers[np.argmax(empty)]} has no count, expected some in each of the MoE layers"
        raise UserError(str(where), problem, next_step)
    impossible = counts.counts * router.top_k > choices[:, :, None]
    if impossible.any():
        window, layer, expert = np.argwhere(impossible)[0]
        most = counts.counts[window, layer, expert]
        problem = (
            f"window {window}, layer {router.layers[layer]}: expert {expert} has {most} of {choices[window, layer]} "
            f"choices, expected at most 1/{router.top_k} of them: a token chooses {router.top_k} different experts"
        )
        raise UserError(str(where), problem, next_step)
    return counts


def check_router(router: Router, where: str | Path, next_step: str) -> None:
    """Refuse routers that cannot be: no k of E experts, too many experts, or layers that do not ascend."""
    if not 1 <= router.top_k <= router.experts <= LARGEST_EXPERTS:
        problem = f"k = {router.top_k} of {router.experts} experts, expected 1 <= k <= E <= {LARGEST_EXPERTS}"
        raise UserError(str(where), problem, next_step)
    if not router.layers or any(second <= first for first, second in pairwise((-1, *router.layers))):
        raise UserError(str(where), f"layers {list(router.layers)!s:.60}, expected ids from 0 on, ascending", next_step)


def _repeats(experts: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """(N, L): whether one of the k choices is there twice."""
    top_k = experts.shape[2]
    repeated = np.zeros(experts.shape[:2], bool)
    for first in range(top_k):
        for second in range(first + 1, top_k):
            repeated |= experts[:, :, first] == experts[:, :, second]
    return repeated


def _check_order(trace: Trace, where: str | Path, next_step: str) -> None:
    if trace.phase.max() > DECODE:
        row = int(np.argmax(trace.phase > DECODE))
        problem = f"phase {trace.phase[row]}, expected 0 (prefill) or 1 (decode)"
        raise _at(trace, row, None, problem, where, next_step)
    step = np.diff(trace.sequence)
    if (step < 0).any():
        row = int(np.argmax(step < 0)) + 1
        raise _at(trace, row, None, f"follows sequence {trace.sequence[row - 1]}", where, next_step)
    stuck = (step == 0) & (np.diff(trace.position) <= 0)
    if stuck.any():
        row = int(np.argmax(stuck)) + 1
        raise _at(trace, row, None, f"follows position {trace.position[row - 1]}", where, next_step)


def _at(trace: Trace, row: int, layer: int | None, problem: str, where: str | Path, next_step: str) -> UserError:
    place = f"sequence {trace.sequence[row]}, position {trace.position[row]}"
    if layer is not None:
        place += f", layer {trace.router.layers[layer]}"
    return UserError(str(where), f"{place}: {problem}", next_step)
