"""Sessions that an engine recorded with the hits of its own cache, replayed to hold the simulator against them.

A session is one file of lines that name layer, experts and hits, and whose header states the bytes of an expert by
layer, as BigMoeOnEdge writes it (`routing.importers.lines`). That engine computes a prompt in one pass, layer by layer
for all of its tokens, and its cache ends with what the last tokens chose (scripts/route-replay.py there, at bdbe56a;
docs/bench-data/2026-07-15-route-trace/findings.md). The last layer may be run for the last token alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.offload.demand.lookups import Asks, Integers, asks_of, byte_cache, joined, look_up, warm_start
from prophet_moe.offload.demand.prefill import distinct
from prophet_moe.routing.importers.lines import entries_of
from prophet_moe.routing.importers.lines.entries import Stated
from prophet_moe.routing.trace import PREFILL
from prophet_moe.validation import read_csv

Start = Literal["prefill", "token_by_token", "most_used", "cold"]
"""What the cache holds before the first decode step: what the prompt left there in one pass, layer by layer, as the
engine computes it; what it would have left token by token; the experts that the prompt used most; or nothing."""


@dataclass(frozen=True)
class Session:
    """The asks of one session, and what the engine counted of them."""

    prompt: Asks
    """What the prompt leaves in a cache, layer by layer: each expert once, in the order of the last choice of it."""
    prompt_by_token: Asks
    """The same prompt, token by token through all layers."""
    decode: Asks
    layers: tuple[int, ...]
    """Ids of the MoE layers, ascending; expert e of the layer at place l of them has the id l * E + e."""
    experts: int
    """E, the experts of a layer."""
    layer_bytes: Integers
    """(L,): bytes of one expert of each layer."""
    hits: NDArray[np.bool_]
    """(requests of decode,): which the engine's cache served."""
    steps: Integers
    """(requests of decode,): the step of each, from 0 on."""

    @property
    def hit_rate(self) -> float:
        """Return the share of the decode requests that the engine's cache served."""
        return float(self.hits.mean())

    def replay(self, capacity: int, start: Start = "prefill") -> NDArray[np.bool_]:
        """Return which decode requests a cache of so many bytes for all layers serves."""
        cache = byte_cache(self.layer_bytes, self.experts, capacity)
        before = self.prompt_by_token if start == "token_by_token" else self.prompt
        if start == "most_used":
            used = np.bincount(self.prompt_by_token.ids, minlength=len(cache.bytes_of)).astype(float)
            before = warm_start(used.reshape(len(self.layers), -1), cache)
        parts = [self.decode] if start == "cold" else [before, self.decode]
        return look_up(joined(parts), cache).hits[-len(self.decode.ids) :]


@dataclass(frozen=True)
class Agreement:
    """A recorded session beside its replay, over all decode steps."""

    requests: int
    recorded: float
    """Hit rate that the engine counted."""
    simulated: float
    """Hit rate of the replay."""
    differing: int
    """Requests that one served and the other did not."""
    worst_step: int
    """Most hits of one step by which the two differ."""

    @property
    def points(self) -> float:
        """Return the difference of the hit rates in percentage points."""
        return 100 * (self.simulated - self.recorded)


def agreement(session: Session, capacity: int, start: Start = "prefill") -> Agreement:
    """Return how far the replay with a cache of so many bytes is from what the engine recorded."""
    hits = session.replay(capacity, start)
    by_step = [np.bincount(session.steps, weights=each) for each in (hits, session.hits)]
    worst = int(np.abs(by_step[0] - by_step[1]).max())
    differing = int((hits != session.hits).sum())
    return Agreement(len(hits), session.hit_rate, float(hits.mean()), differing, worst)


SESSION_COLUMNS = (
    "session",
    "cache_bytes",
    "start",
    "requests",
    "recorded_hit_rate",
    "simulated_hit_rate",
    "differing_requests",
    "worst_step_hits",
)
"""Columns of resources/observations/sessions.csv."""


def session_rows(name: str, session: Session, capacity: int) -> list[list[str]]:
    """Return the rows of sessions.csv for a session: its replays with a cache of so many bytes, by start."""
    found = {start: agreement(session, capacity, start) for start in get_args(Start)}
    return [
        [
            *(name, str(capacity), start, str(each.requests), f"{each.recorded:.6f}", f"{each.simulated:.6f}"),
            *(str(each.differing), str(each.worst_step)),
        ]
        for start, each in found.items()
    ]


def read_session_rows(path: Path) -> dict[tuple[str, int], float]:
    """Return the hit rates of sessions replayed with their prompts, by name and bytes of the cache."""
    rows = [dict(zip(SESSION_COLUMNS, row, strict=True)) for row in read_csv(path, list(SESSION_COLUMNS))]
    prompted = [row for row in rows if row["start"] == "prefill"]
    return {(row["session"], int(row["cache_bytes"])): float(row["simulated_hit_rate"]) for row in prompted}


def read_session(path: Path) -> Session:
    """Read a recorded session; a file without hits, phases or bytes by layer is a UserError."""
    entries, stated = entries_of(path, None, Stated())
    sizes = stated.notes.get("expert_bytes", {})
    missing = [
        what
        for what, found in (
            ("whether each expert was in the cache (residency)", entries.hit is not None),
            ("the phase", entries.phase is not None),
            ("the step", entries.token is not None),
            ("n_expert in a # header", stated.experts is not None),
            ("expert_bytes by layer in a # header", bool(sizes)),
        )
        if not found
    ]
    if missing:
        raise UserError(str(path), f"does not tell {missing[0]}", "docs/formats.md shows a file that does.")
    layers = tuple(sorted(map(int, sizes)))
    unknown = ~np.isin(entries.layer, layers)
    if unknown.any():
        raise entries.fault(int(np.argmax(unknown)), f"layer {entries.layer[np.argmax(unknown)]} has no expert_bytes")
    if (entries.experts >= stated.experts).any() or (entries.experts < 0).any():
        row = int(np.argmax(((entries.experts >= stated.experts) | (entries.experts < 0)).any(axis=1)))
        raise entries.fault(row, f"expected ids of experts from 0 to {stated.experts - 1}")
    ids = np.searchsorted(layers, entries.layer)[:, None] * stated.experts + entries.experts
    decode = entries.phase != PREFILL
    if not decode.any():
        raise UserError(str(path), "holds no decode step", "Record a session that generates tokens.")
    turns = 1 if entries.sequence is None else len(np.unique(entries.sequence))
    if turns > 1:
        raise UserError(str(path), f"holds {turns} turns, expected one prompt and its answer", "Check one at a time.")
    layer, token, prompt = entries.layer[~decode], entries.token[~decode], ids[~decode]
    by_layer = [distinct(prompt[layer == each][np.argsort(token[layer == each], kind="stable")])[0] for each in layers]
    steps = entries.token[decode] - entries.token[decode].min()
    return Session(
        asks_of(np.concatenate(by_layer)[:, None]),
        asks_of(prompt[np.lexsort((layer, token))]),
        asks_of(ids[decode]),
        layers,
        stated.experts,
        np.array([sizes[str(layer)] for layer in layers], np.int64),
        (entries.hit[decode] > 0).ravel(),
        np.repeat(steps, ids.shape[1]),
    )
