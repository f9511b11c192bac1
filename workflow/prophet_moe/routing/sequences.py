"""Sequences of a trace: which token follows which, which sequences count, and which are held out.

Needs NumPy only: the machine that trains predictors uses it too.
"""

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.routing.trace import Trace, sequence_starts


def follows(trace: Trace) -> NDArray[np.bool_]:
    """(N,): whether a token is the next one, by position, of the same sequence as the row before it."""
    following = np.zeros(len(trace), bool)
    following[1:] = (np.diff(trace.sequence) == 0) & (np.diff(trace.position) == 1)
    return following


def without_duplicates(trace: Trace) -> Trace:
    """The trace less every sequence whose expert ids equal those of an earlier sequence."""
    starts = sequence_starts(trace)
    seen: set[bytes] = set()
    keep = np.ones(len(trace), bool)
    for start, end in pairwise(starts):
        ids = trace.experts[start:end].tobytes()
        keep[start:end] = ids not in seen
        seen.add(ids)
    return trace.select(keep)


def unrepeated(trace: Trace) -> Trace:
    """The trace without sequences that its source flags as repetitive and without duplicates; prompts stay."""
    notes = trace.origin.notes.get("sequences", [])
    flagged = [number for number, note in enumerate(notes) if note.get("has_repetition")]
    return without_duplicates(trace.select(~np.isin(trace.sequence, flagged)))


def divisible(trace: Trace, where: str | Path) -> Trace:
    """Return `trace` if it has two sequences, one to learn from and one to judge by; else a UserError names `where`."""
    count = len(sequence_starts(trace)) - 1
    if count < 2:
        problem = f"has {count} sequence without repetition, expected at least 2: one half is learned from, one judged"
        raise UserError(str(where), problem, "Collect or import more, or leave it out of `traces`.")
    return trace


def window(trace: Trace, chosen: NDArray[np.int64], first: NDArray[np.int64], tokens: NDArray[np.int64]) -> Trace:
    """`tokens` (n,) tokens from the `first` (n,) on of the sequences `chosen` (n,), in that order, renumbered from 0.

    A sequence is named by its place in `trace`, a token by its place in its sequence.
    """
    begin = sequence_starts(trace)[chosen] + first
    ends = np.cumsum(tokens)
    rows = np.repeat(begin - (ends - tokens), tokens) + np.arange(ends[-1])
    taken = trace.select(rows)
    return replace(taken, sequence=np.repeat(np.arange(len(chosen), dtype=np.int32), tokens))


def mixed(trace: Trace, seed: int) -> Trace:
    """The whole trace with its sequences in a random order, renumbered from 0.

    A trace is recorded domain by domain: neighbouring sequences that decode together would be of one tenant.
    """
    lengths = np.diff(sequence_starts(trace))
    order = np.random.default_rng(seed).permutation(len(lengths))
    return window(trace, order, np.zeros_like(order), lengths[order])


def split_by_sequence(trace: Trace, share: float, seed: int) -> tuple[Trace, Trace]:
    """Two traces of whole sequences: round(share * S) of them drawn at random, and the others."""
    starts = sequence_starts(trace)
    count = len(starts) - 1
    drawn = np.zeros(count, bool)
    drawn[np.random.default_rng(seed).permutation(count)[: round(share * count)]] = True
    keep = np.repeat(drawn, np.diff(starts))
    return trace.select(keep), trace.select(~keep)


def fingerprint(trace: Trace) -> str:
    """SHA-256 of router, sequences, positions, phases and choices, whatever the file that holds them."""
    router = trace.router
    digest = hashlib.sha256(repr((router.experts, router.top_k, router.layers)).encode())
    for values in (trace.sequence, trace.position, trace.phase, trace.experts):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
