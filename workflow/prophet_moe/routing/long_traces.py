"""What a trace of any length says, in bounded memory: totals over all its tokens, the rest from a sample of sequences.

The folder is read twice, block by block. The first pass checks every token and finds the sequences that count (as
`sequences.without_repetition` does); the second adds up the totals and gathers the sample.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.routing import sequences, statistics, store
from prophet_moe.routing.summary import SEED, Totals, totals_of
from prophet_moe.routing.trace import DECODE, PREFILL, Router, Trace, joined, sequence_starts

WHOLE_IDS = 2**25
"""Traces of at most so many expert ids are described from all their tokens."""
SAMPLE_IDS = 2**23
"""Most expert ids of a sample."""
SAMPLE_SEQUENCES = 2**12
"""Most sequences of a sample: some statistics look at all sequences for each random batch."""
LEAST_SEQUENCES = 2**4
"""Sequences that a sample has room for, however long they are: of longer ones it has the beginning."""


@dataclass(frozen=True)
class Described:
    """Described tokens without repetition, or a sample of them, the totals of the whole, and a note for the reader."""

    trace: Trace
    totals: Totals
    note: str


@dataclass(frozen=True)
class Survey:
    """The S sequences that count: their numbers, ascending, and how many of their tokens are described; each (S,)."""

    number: NDArray[np.int64]
    tokens: NDArray[np.int64]


def describe(folder: Path, metadata: dict[str, Any], whole: int = WHOLE_IDS, sample: int = SAMPLE_IDS) -> Described:
    """Read the trace in `folder`, whose `metadata` was read: all of it, or a `sample` if it has above `whole` ids."""
    width = len(metadata["layers"]) * metadata["top_k"]
    if metadata["tokens"] * width <= whole:
        trace = sequences.without_repetition(store.read_trace(folder)).described()
        return Described(trace, totals_of(trace), "")
    phase = DECODE if metadata["tokens_by_phase"]["decode"] else PREFILL
    flagged = sequences.flagged(metadata["notes"])
    survey = take_survey(store.check_trace(store.read_blocks(folder, metadata), folder, metadata), phase, flagged)
    if not len(survey.number):
        problem = "its source flags every sequence as repetitive, expected at least 1 that is not"
        raise UserError(str(folder), problem, "Collect or import others.")
    chosen, longest = choose(survey, max(1, sample // width))
    sums = Sums(store.router_of(metadata), metadata["ranked"])
    parts = []
    for block in _counting(store.read_blocks(folder, metadata), phase, survey):
        sums.add(block)
        parts.append(block.select(np.isin(block.sequence, chosen) & (sums.place < longest)))
    trace, totals = joined(parts), sums.totals()
    return Described(trace, totals, _note(trace, totals, cut=bool((survey.tokens > longest).any())))


def take_survey(blocks: Iterable[Trace], phase: int, flagged: Iterable[int]) -> Survey:
    """Return the sequences with tokens of `phase` that are neither `flagged` nor have the ids of an earlier one."""
    left_out, seen, rows = set(flagged), set(), []
    for number, digest, tokens in _digests(blocks, phase):
        if tokens and number not in left_out and digest not in seen:
            seen.add(digest)
            rows.append((number, tokens))
    table = np.array(rows, np.int64).reshape(-1, 2)
    return Survey(table[:, 0], table[:, 1])


def choose(survey: Survey, tokens: int) -> tuple[NDArray[np.int64], int]:
    """Draw sequences for a sample of at most `tokens` tokens: their numbers, and the most tokens it takes of each."""
    longest = max(1, tokens // LEAST_SEQUENCES)
    order = np.random.default_rng(SEED).permutation(len(survey.number))
    fitting = np.cumsum(np.minimum(survey.tokens[order], longest)) <= tokens
    return np.sort(survey.number[order[fitting][:SAMPLE_SEQUENCES]]), longest


@dataclass
class Sums:
    """Sums over the tokens of successive blocks of a trace."""

    router: Router
    ranked: bool
    tokens: int = 0
    sequences: int = 0
    pairs: int = 0
    """Tokens that follow another one of their sequence."""
    place: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """(tokens of the last block,): how many tokens of its sequence came before each."""
    last: Trace | None = None
    """The last token of what was added."""

    def __post_init__(self) -> None:
        """Begin with sums of 0 over no token."""
        layers = len(self.router.layers)
        self.chosen = np.zeros((layers, self.router.experts), np.int64)
        self.common, self.repeated = np.zeros(layers, np.int64), np.zeros(layers, np.int64)

    def add(self, block: Trace) -> None:
        """Add the tokens of a block, which holds at least one."""
        starts = sequence_starts(block)
        place = np.arange(len(block)) - np.repeat(starts[:-1], np.diff(starts))
        goes_on = self.last is not None and self.last.sequence[0] == block.sequence[0]
        if goes_on:
            place[: starts[1]] += self.place[-1] + 1
        linked = block if self.last is None else joined([self.last, block])
        pairs, common, repeated = statistics.shared_choices(linked)
        self.chosen += statistics.choice_counts(block)
        self.pairs += pairs
        self.common += common
        self.repeated += repeated
        self.tokens += len(block)
        self.sequences += len(starts) - 1 - goes_on
        self.place, self.last = place, block.select(np.arange(len(block) - 1, len(block)))

    def totals(self) -> Totals:
        """Return the totals over all tokens that were added."""
        pairs, top_k = self.pairs or np.nan, self.router.top_k
        repetition = self.repeated / pairs if self.ranked else None
        load = self.chosen / self.tokens / top_k
        return Totals(self.tokens, self.sequences, load, self.common / (pairs * top_k), repetition)


def _counting(blocks: Iterable[Trace], phase: int, survey: Survey) -> Iterator[Trace]:
    """Yield the described tokens of the sequences that count; no empty block."""
    for block in blocks:
        kept = (block.phase == phase) & np.isin(block.sequence, survey.number)
        if kept.any():
            yield block.select(kept)


def _digests(blocks: Iterable[Trace], phase: int) -> Iterator[tuple[int, bytes, int]]:
    """Number, digest of all expert ids, and tokens of `phase` of each sequence, which blocks may cut anywhere."""
    number, digest, tokens = -1, blake2b(), 0
    for block in blocks:
        starts = sequence_starts(block)
        counts = np.add.reduceat(block.phase == phase, starts[:-1], dtype=np.int64)
        numbers = block.sequence[starts[:-1]]
        for current, count, (start, end) in zip(
            numbers.tolist(), counts.tolist(), pairwise(starts.tolist()), strict=True
        ):
            if current != number:
                if number >= 0:
                    yield number, digest.digest(), tokens
                number, digest, tokens = current, blake2b(digest_size=16), 0
            digest.update(np.ascontiguousarray(block.experts[start:end]))
            tokens += count
    if number >= 0:
        yield number, digest.digest(), tokens


def _note(trace: Trace, totals: Totals, *, cut: bool) -> str:
    drawn = len(sequence_starts(trace)) - 1
    beginnings = f", of long ones the first {int(np.bincount(trace.sequence).max()):,} tokens" if cut else ""
    return (
        f"load, overlap and repetition are of all {totals.tokens:,} tokens; controls, intervals and all else rest on a "
        f"random sample of {drawn:,} of {totals.sequences:,} sequences ({len(trace):,} tokens{beginnings})"
    )
