"""What every form of line says, and how lines become the tokens of sequences.

An entry is the choice of one token in one layer. A pass is what an engine runs at once: entries whose layers do not
descend. Where no token is named, a pass holds as many tokens as entries of its longest layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.routing.importers.reading import POSITIONS, Sequence, fault
from prophet_moe.routing.trace import DECODE, PREFILL, Router

Integers = NDArray[np.int64]
EXPERTS = 2**16
"""Ids of experts and of layers are below this."""


@dataclass(frozen=True)
class Stated:
    """What a file, or the command line, says of the routers; None where it says nothing."""

    experts: int | None = None
    top_k: int | None = None
    layers: tuple[int, ...] | None = None
    hidden_layers: int | None = None
    usual_top_k: int | None = None
    """The model's k, for forms that cannot say what k is."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What else is worth keeping: the model's name, bytes of an expert by layer."""


@dataclass(frozen=True)
class Entries:
    """M choices of k experts, in the order of the file."""

    path: Path
    line: Integers
    """(M,), where each is in the file, counted from 1."""
    layer: Integers
    """(M,)."""
    experts: Integers
    """(M, k)."""
    token: Integers | None = None
    """(M,), positions inside the sequences; None where the order of the entries says it."""
    sequence: Integers | None = None
    """(M,); None where a position that does not go on begins a sequence."""
    phase: NDArray[np.uint8] | None = None
    """(M,)."""
    ranked: bool = False
    """Whether the k choices are in descending order of router weight."""
    hit: Integers | None = None
    """(M, k): how the run's own cache served each choice: 0 a miss, 1 a hit, 2 a hit by prefetch; None if not told."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "line"
    """What `line` counts."""

    def fault(self, row: int | np.integer, problem: str) -> UserError:
        """Return the UserError about the entry number `row`."""
        return fault(f"{self.path}: {self.unit} {self.line[row]}", problem)

    def select(self, rows: NDArray) -> "Entries":
        """Return the entries that `rows` names: a mask, or row numbers in their new order."""
        names = ("line", "layer", "experts", "token", "sequence", "phase", "hit")
        columns = {name: getattr(self, name) for name in names}
        return replace(self, **{name: None if values is None else values[rows] for name, values in columns.items()})


def router_of(entries: Entries, router: Router | str, stated: Stated) -> Router:
    """Return the router of the run: the model's, with the k of the file where the file states a smaller one.

    Of a model that only has a name, the file must state the number of experts.
    """
    path, top_k = entries.path, entries.experts.shape[1]
    if stated.top_k is not None and stated.top_k != top_k:
        raise entries.fault(0, f"has {top_k} experts of one token, where k is stated as {stated.top_k}")
    outside = (entries.layer < 0) | (entries.layer >= EXPERTS)
    if outside.any():
        row = np.argmax(outside)
        raise entries.fault(row, f"layer {entries.layer[row]}, expected a number from 0 to {EXPERTS - 1}")
    if isinstance(router, str):
        if stated.experts is None:
            problem = f"says nothing of the number of experts, and model {router!r} is not known"
            raise UserError(str(path), problem, "Add --experts N, or name a model of config/.")
        seen = tuple(np.unique(entries.layer).tolist())
        router = Router(router, stated.experts, top_k, seen if stated.layers is None else stated.layers)
    _agree(path, "experts", stated.experts, router.experts, router)
    _agree(path, "MoE layers", stated.layers, router.layers, router)
    if stated.hidden_layers is not None and max(router.layers) >= stated.hidden_layers:
        raise fault(path, f"states {stated.hidden_layers} layers, expected at least {max(router.layers) + 1}")
    if top_k > router.top_k or (top_k != router.top_k and stated.top_k is None):
        problem = f"{top_k} experts of one token, {router.model} uses {router.top_k}"
        raise UserError(
            f"{path}: {entries.unit} {entries.line[0]}", problem, f"If the run used fewer, add --top-k {top_k}."
        )
    if not 0 < top_k <= router.experts <= EXPERTS:
        raise fault(path, f"has k = {top_k} of E = {router.experts} experts, expected 1 <= k <= E <= {EXPERTS}")
    return replace(router, top_k=top_k)


def _agree(path: Path, what: str, stated: Any, expected: Any, router: Router) -> None:
    if stated is not None and stated != expected:
        raise fault(path, f"states {what} {stated}, {router.model} has {expected}")


def sequences_of(entries: Entries, router: Router, prompt_tokens: int = 0) -> tuple[list[Sequence], int]:
    """Return the sequences, and how many prompt tokens were left out because the last layer was not run for them.

    Engines run the last layer only for tokens whose logits they need: of a prompt, for its last. Where no phase is
    stated, the first `prompt_tokens` of every sequence are its prompt.
    """
    _check_choices(entries, router)
    entries = _in_order(entries)
    sequence, token = _tokens(entries, router.layers)
    order = np.lexsort((entries.layer, token, sequence))
    entries, sequence, token = entries.select(order), sequence[order], token[order]
    starts = np.flatnonzero(_changes(sequence) | _changes(token))
    kept, left_out = _complete(entries, sequence, starts, router.layers)
    phase = _phases(entries, sequence, starts, prompt_tokens)[kept]
    rows = starts[kept]
    experts = entries.experts[rows[:, None] + np.arange(len(router.layers))].astype(np.uint16)
    bounds = np.flatnonzero(_changes(sequence[rows]))[1:]
    parts = (np.split(column, bounds) for column in (token[rows], phase, experts))
    return [Sequence(*part) for part in zip(*parts, strict=True)], left_out


def _check_choices(entries: Entries, router: Router) -> None:
    """Return every layer is one of the model's, every id below E and only once in an entry."""
    wrong = ~np.isin(entries.layer, router.layers)
    if wrong.any():
        row = np.argmax(wrong)
        expected = ", ".join(map(str, router.layers))
        raise entries.fault(row, f"layer {entries.layer[row]}, expected one of {expected}")
    outside = ((entries.experts < 0) | (entries.experts >= router.experts)).any(1)
    if outside.any():
        row = np.argmax(outside)
        chosen = ", ".join(map(str, entries.experts[row]))
        raise entries.fault(row, f"experts {chosen}, expected ids from 0 to {router.experts - 1}")
    twice = (np.diff(np.sort(entries.experts, axis=1), axis=1) == 0).any(1)
    if twice.any():
        row = np.argmax(twice)
        raise entries.fault(row, f"an expert twice among {', '.join(map(str, entries.experts[row]))}")
    for name, values in (("token", entries.token), ("phase", entries.phase)):
        wrong = np.zeros(1, bool) if values is None else (values < 0) | (values >= POSITIONS)
        if wrong.any():
            row = np.argmax(wrong)
            raise entries.fault(row, f"{name} {values[row]}, expected a number from 0 to {POSITIONS - 1}")


def _in_order(entries: Entries) -> Entries:
    if entries.sequence is None:
        return entries
    return entries.select(np.argsort(entries.sequence, kind="stable"))


def _changes(values: NDArray) -> NDArray[np.bool_]:
    """(N,): whether each value differs from the one before; the first does."""
    return np.concatenate([[True], values[1:] != values[:-1]])


def _tokens(entries: Entries, layers: tuple[int, ...]) -> tuple[Integers, Integers]:
    """(M,) each: the sequences and positions of the entries' tokens."""
    named = np.zeros(len(entries.layer), np.int64) if entries.sequence is None else entries.sequence
    step = np.diff(entries.layer, prepend=entries.layer[0])
    begins = _changes(named) | (step < 0)
    if entries.token is None:
        return named, _implied_tokens(entries, named, begins)
    begins |= (step == 0) & (np.diff(entries.token, prepend=-1) <= 0)
    starts = np.flatnonzero(begins)
    lowest, highest = (ends.reduceat(entries.token, starts) for ends in (np.minimum, np.maximum))
    before = np.concatenate([[-1], highest[:-1]])
    back = (lowest <= before) & ~_changes(named[starts])
    anew = (lowest < before) & (entries.layer[starts] == layers[0]) & (entries.sequence is None)
    unexpected = back & ~anew
    if unexpected.any():
        row = starts[np.argmax(unexpected)]
        here, before = (f"token {entries.token[at]}, layer {entries.layer[at]}" for at in (row, row - 1))
        raise entries.fault(row, f"{here} after {before}: expected tokens, and the layers of a token, in order")
    number = np.cumsum(back | _changes(named[starts])) - 1
    return np.repeat(number, np.diff(np.append(starts, len(named)))), entries.token


def _implied_tokens(entries: Entries, named: Integers, begins: NDArray[np.bool_]) -> Integers:
    """(M,): positions by the order of the entries; a layer run for few tokens of a pass was run for the last."""
    runs = np.flatnonzero(begins | _changes(entries.layer))
    lengths = np.diff(np.append(runs, len(named)))
    passes = np.flatnonzero(begins[runs])
    of_pass = np.maximum.reduceat(lengths, passes)
    first = np.cumsum(of_pass) - of_pass
    opens = np.flatnonzero(_changes(named[runs[passes]]))
    first -= np.repeat(first[opens], np.diff(np.append(opens, len(passes))))
    runs_of_pass = np.diff(np.append(passes, len(runs)))
    offset = np.repeat(first + of_pass, runs_of_pass) - lengths
    return np.arange(len(named)) + np.repeat(offset - runs, lengths)


def _complete(
    entries: Entries, sequence: Integers, starts: Integers, layers: tuple[int, ...]
) -> tuple[NDArray[np.bool_], int]:
    """(T,): the tokens that have every layer; and how many lack the last one, as prompts do.

    `starts` (T,) are the tokens' first entries, sorted by layer.
    """
    held = np.diff(np.append(starts, len(sequence)))
    repeated = ~(_changes(entries.layer)) & (np.arange(len(sequence)) > 0)
    repeated[starts] = False
    if repeated.any():
        row = np.argmax(repeated)
        raise entries.fault(
            row, f"layer {entries.layer[row]} of its token is in {entries.unit} {entries.line[row - 1]}"
        )
    whole = held == len(layers)
    trimmed = (held == len(layers) - 1) & (entries.layer[starts + held - 1] != layers[-1]) & (len(layers) > 1)
    opens = np.flatnonzero(_changes(sequence[starts]))
    number = np.cumsum(_changes(sequence[starts])) - 1
    place = np.arange(len(starts))
    first_whole = np.minimum.reduceat(np.where(whole, place, len(starts)), opens)[number]
    last_whole = np.maximum.reduceat(np.where(whole, place, -1), opens)[number]
    prompt = place < first_whole
    if entries.phase is not None:
        prompt |= entries.phase[starts] == PREFILL
    wrong = ~whole & ~(trimmed & prompt & (place < last_whole))
    if wrong.any():
        token = np.argmax(wrong)
        present = entries.layer[starts[token] : starts[token] + held[token]]
        missing = np.setdiff1d(layers, present)[0]
        last = starts[token] + held[token] - 1
        raise entries.fault(last, f"its token has {held[token]} of {len(layers)} layers, layer {missing} is missing")
    return whole, int((~whole).sum())


def _phases(entries: Entries, sequence: Integers, starts: Integers, prompt_tokens: int) -> NDArray[np.uint8]:
    if entries.phase is None:
        first = _changes(sequence[starts])
        opens = np.flatnonzero(first)
        inside = np.arange(len(starts)) - opens[np.cumsum(first) - 1]
        return np.where(inside < prompt_tokens, PREFILL, DECODE).astype(np.uint8)
    mixed = _changes(entries.phase)
    mixed[starts] = False
    if mixed.any():
        raise entries.fault(np.argmax(mixed), "its token is of two phases")
    return entries.phase[starts]
