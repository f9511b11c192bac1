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
from prophet_moe.routing.trace import PREFILL, Trace, sequence_starts

RUN_TOKENS = 32
"""Sequences with so many equal tokens in a row share text: some 100 characters, a power of two."""
TRAINING_SHARE = 0.5
"""Share of the sequences that laws and predictors learn from; they are evaluated on the others."""
LEAST_FITTED, LEAST_TEXTS = 4, 2
"""The least sequences and texts of a trace that a law is fitted to: each half has a batch of two and its own text."""


def follows(trace: Trace) -> NDArray[np.bool_]:
    """(N,): whether a token is the next one, by position, of the same sequence as the row before it."""
    following = np.zeros(len(trace), bool)
    following[1:] = (np.diff(trace.sequence) == 0) & (np.diff(trace.position) == 1)
    return following


def without_duplicates(trace: Trace) -> Trace:
    """Return the trace less every sequence whose expert ids equal those of an earlier sequence."""
    starts = sequence_starts(trace)
    seen: set[bytes] = set()
    keep = np.ones(len(trace), bool)
    for start, end in pairwise(starts):
        ids = trace.experts[start:end].tobytes()
        keep[start:end] = ids not in seen
        seen.add(ids)
    return trace.select(keep)


def without_repetition(trace: Trace) -> Trace:
    """Return the trace without sequences that its source flags as repetitive and without duplicates; prompts stay.

    The one rule for statistics, laws, predictors and replays: what another prompt leads to is no duplicate. Where some
    sequences decode, those that do not are left out, so that either half of a trace holds tokens of the phase that is
    described. A trace of which nothing is left is a UserError.
    """
    kept = _counted(trace)
    if not kept.any():
        problem = "its source flags every sequence as repetitive, expected at least 1 that is not"
        raise UserError(trace.origin.source, problem, "Collect or import others.")
    return without_duplicates(trace.select(kept))


def _counted(trace: Trace) -> NDArray[np.bool_]:
    """(N,): whether a token is of a sequence that is described, not flagged as repetitive."""
    described = np.isin(trace.sequence, trace.sequence[trace.described_tokens()])
    return described & ~np.isin(trace.sequence, flagged(trace.origin.notes))


def unrepeated_extent(trace: Trace) -> dict[str, int]:
    """How many sequences without repetition there are, and of how many texts: what a build can do with a trace."""
    if not _counted(trace).any():
        return {"sequences": 0, "texts": 0}
    groups = text_groups(without_repetition(trace).described())
    return {"sequences": len(groups), "texts": int(groups.max()) + 1}


def flagged(notes: dict) -> list[int]:
    """Return the numbers of the sequences that their source flags as repetitive, from the origin's notes."""
    return [number for number, note in enumerate(notes.get("sequences", [])) if note.get("has_repetition")]


def of_one_text(trace: Trace) -> bool:
    """Return whether all sequences share text, as a single one does: none could be predicted from what others teach."""
    return not text_groups(trace).any()


def caveats(trace: Trace) -> list[str]:
    """Return the caveats of results about `trace`, which is without repetition: one line each, or none."""
    lines = []
    if trace.described_phase == PREFILL:
        lines.append("prefill tokens are used, because the trace holds no decode token")
    if of_one_text(trace):
        lines.append(
            "the trace holds one text: the first half of its tokens is for training, the second half for evaluation"
        )
    return lines


def divisible(trace: Trace, where: str | Path) -> Trace:
    """Return `trace` if it has two pieces of text, to learn from and to evaluate on; else a UserError names `where`."""
    groups, count = text_groups(trace), len(sequence_starts(trace)) - 1
    if count < 2:
        problem = f"has {count} sequence without repetition, expected at least 2: one for training, one for evaluation"
        raise UserError(str(where), problem, "Collect or import more, or leave it out of `traces`.")
    if not groups.any():
        problem = f"its {count} sequences are of one text, expected at least 2: one for training, one for evaluation"
        raise UserError(str(where), problem, "Collect or import others, or leave it out of `traces`.")
    return trace


def window(trace: Trace, chosen: NDArray[np.int64], first: NDArray[np.int64], tokens: NDArray[np.int64]) -> Trace:
    """Cut `tokens` (n,) tokens from the `first` (n,) on out of the sequences `chosen` (n,), renumbered from 0.

    A sequence is named by its place in `trace`, a token by its place in its sequence.
    """
    begin = sequence_starts(trace)[chosen] + first
    ends = np.cumsum(tokens)
    rows = np.repeat(begin - (ends - tokens), tokens) + np.arange(ends[-1])
    numbers, notes = np.unique(trace.sequence)[chosen], trace.origin.notes.get("sequences", [])
    kept = [notes[number] if number < len(notes) else {} for number in numbers] if notes else []
    origin = replace(trace.origin, notes=trace.origin.notes | {"sequences": kept})
    renumbered = np.repeat(np.arange(len(chosen), dtype=np.int32), tokens)
    return replace(trace.select(rows), sequence=renumbered, origin=origin)


def mixed(trace: Trace, seed: int) -> Trace:
    """Return the whole trace with its sequences in a random order, renumbered from 0.

    A trace is recorded domain by domain: neighbouring sequences that decode together would be of one tenant.
    """
    lengths = np.diff(sequence_starts(trace))
    order = np.random.default_rng(seed).permutation(len(lengths))
    return window(trace, order, np.zeros_like(order), lengths[order])


def notes_of(trace: Trace, key: str) -> list[str | None]:
    """Return what the origin notes under `key` of each of the S sequences, in order; None where it notes nothing."""
    notes = trace.origin.notes.get("sequences", [])
    numbers = np.unique(trace.sequence).tolist()
    return [notes[number].get(key) if number < len(notes) else None for number in numbers]


def text_groups(trace: Trace) -> NDArray[np.int64]:
    """(S,): the group of each sequence, numbered from 0 in their order; sequences of one group share text.

    Those of one piece (the origin's note `piece`) do, and those with a run of RUN_TOKENS equal tokens; whoever shares
    with one of a group belongs to it. Where the trace has neither pieces nor tokens, every sequence is its own group.
    """
    pieces = notes_of(trace, "piece")
    named = np.array([number for number, piece in enumerate(pieces) if piece is not None], np.int64)
    keys = np.unique([piece for piece in pieces if piece is not None], return_inverse=True)[1]
    links = _links(keys, named)
    if trace.token is not None:
        owner = np.unique(trace.sequence, return_inverse=True)[1]
        links = np.concatenate([links, _links(*_runs(trace.token, owner))])
    return _components(len(pieces), links)


def repeated_share(learned: Trace, held_out: Trace) -> float:
    """Return the share of runs of RUN_TOKENS tokens in `held_out` that occur in `learned`; NaN without any."""
    if learned.token is None or held_out.token is None:
        return float("nan")
    owner = np.concatenate([learned.sequence, held_out.sequence + learned.sequence.max() + 1])
    runs, owner = _runs(np.concatenate([learned.token, held_out.token]), owner)
    of_learned = owner <= learned.sequence.max()
    tested = runs[~of_learned]
    return float(np.isin(tested, runs[of_learned]).mean()) if len(tested) else float("nan")


def _runs(token: NDArray[np.int32], owner: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every run of RUN_TOKENS tokens of one owner: a number, the same for equal runs, and the owner; each (m,).

    Numbers of runs of a length are joined to those of twice that length (Karp, Miller, Rosenberg 1972).
    """
    numbers, length = np.unique(token, return_inverse=True)[1].astype(np.int64), 1
    while length < RUN_TOKENS:
        pairs = numbers[:-length] * (len(token) + 1) + numbers[length:]
        numbers, length = np.unique(pairs, return_inverse=True)[1].astype(np.int64), 2 * length
    within = owner[: len(numbers)] == owner[length - 1 : length - 1 + len(numbers)]
    return numbers[within], owner[: len(numbers)][within]


def _links(keys: NDArray[np.int64], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m, 2): pairs of owners that join all owners of each key."""
    order = np.lexsort((owners, keys))
    keys, owners = keys[order], owners[order]
    joined = (keys[1:] == keys[:-1]) & (owners[1:] != owners[:-1])
    return np.unique(np.stack([owners[:-1][joined], owners[1:][joined]], 1), axis=0)


def _components(count: int, links: NDArray[np.int64]) -> NDArray[np.int64]:
    """(count,): the connected component of each node, numbered in the order of their first nodes (union-find)."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for one, other in links.tolist():
        one, other = sorted((root(one), root(other)))
        parent[other] = one
    return np.unique([root(node) for node in range(count)], return_inverse=True)[1].astype(np.int64)


def popularity(trace: Trace) -> NDArray[np.float64]:
    """(L, E): share of the tokens that choose each expert; each layer sums to k. Without tokens all are alike."""
    return np.array([chosen_share(chosen, trace.router.experts) for chosen in trace.experts.swapaxes(0, 1)])


def chosen_share(chosen: NDArray[np.uint16], experts: int) -> NDArray[np.float64]:
    """(E,): share of the tokens of one layer that choose each expert, from their choices (n, k); k/E without tokens."""
    if not len(chosen):
        return np.full(experts, chosen.shape[1] / experts)
    return np.bincount(chosen.ravel(), minlength=experts) / len(chosen)


def split_to_evaluate(trace: Trace, share: float, seed: int) -> tuple[Trace, Trace]:
    """Split into what is learned from and what is evaluated on: by sequence, or by token where all is one text."""
    return split_by_token(trace, share) if of_one_text(trace) else split_by_sequence(trace, share, seed)


def split_by_sequence(trace: Trace, share: float, seed: int) -> tuple[Trace, Trace]:
    """Split into traces of whole sequences, the first of about `share` of them, without dividing `text_groups`.

    Groups are drawn at random, domain by domain (the origin's note `label`). Of groups of one sequence each,
    round(share * S) are drawn. Neither trace is empty if there are two groups and 0 < round(share * S) < S.
    """
    starts, group = sequence_starts(trace), text_groups(trace)
    first = np.unique(group, return_index=True)[1]
    labels = notes_of(trace, "label")
    domains = list(dict.fromkeys(labels[sequence] for sequence in first))
    domain = np.array([domains.index(labels[sequence]) for sequence in first])
    drawn = _drawn(np.bincount(group), domain, share, np.random.default_rng(seed))
    keep = np.repeat(drawn[group], np.diff(starts))
    return trace.select(keep), trace.select(~keep)


def split_by_token(trace: Trace, share: float) -> tuple[Trace, Trace]:
    """Return two traces: the tokens before about `share` of those that are described, and the tokens from there on.

    The second holds at least one token that is described; the first is empty where that is the only one.
    """
    described = np.flatnonzero(trace.described_tokens())
    cut = described[min(int(share * len(described)), len(described) - 1)]
    earlier = np.arange(len(trace)) < cut
    return trace.select(earlier), trace.select(~earlier)


def _drawn(
    sizes: NDArray[np.int64], domain: NDArray[np.int64], share: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Return which groups are drawn, so that each domain has about `share` of its sequences among them.

    In a random order every group of a domain is drawn that fits; then the smallest that is left, if that comes nearer.
    """
    order = random.permutation(len(sizes))
    drawn = np.zeros(len(sizes), bool)
    met = 0
    for number in np.unique(domain):
        groups = order[domain[order] == number]
        before, met = met, met + int(sizes[groups].sum())
        # Differences of rounded sums: over all domains they add up to the rounded whole.
        wanted, taken = round(share * met) - round(share * before), 0
        for group in groups:
            if taken + sizes[group] <= wanted:
                drawn[group] = True
                taken += sizes[group]
        left = groups[~drawn[groups]]
        if len(left):
            least = left[np.argmin(sizes[left])]
            drawn[least] = abs(taken + sizes[least] - wanted) < abs(taken - wanted)
    if len(sizes) > 1 and 0 < round(share * met) < met and drawn.all() | ~drawn.any():
        drawn[np.argmin(sizes)] ^= True
    return drawn


def fingerprint(trace: Trace) -> str:
    """Return SHA-256 of router, sequences, positions, phases and choices, whatever the file that holds them."""
    router = trace.router
    digest = hashlib.sha256(repr((router.experts, router.top_k, router.layers)).encode())
    for values in (trace.sequence, trace.position, trace.phase, trace.experts):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
