"""Which experts lie on the device, and which are copied when: the decisions of a decode loop, without any clock.

A step decodes one token of each of B sequences through L MoE layers; every layer has its own cache of C slots. The
decisions depend on the routing alone, never on timing, so a simulator that follows these rules moves the same bytes:

* At first, expert s lies in slot s of every layer, slot 0 the least recently used.
* When layer l asks, after its attention, its choices are known, and the experts predicted for layer l + lookahead are
  prefetched; when layer 0 asks, those of layers 1 to lookahead, the nearest first. Every layer but layer 0 so has its
  turn once in a step, after the demand copies of the layer that asks.
* A prefetch reserves the predicted experts that lie in the layer's slots and then takes the missing ones in their
  order: each goes to the least recently used slot that is not reserved, and is reserved and the most recently used
  from then on. One that finds every slot reserved is dropped.
* A layer that asks uses first the requested experts that lay there before the step, by number, then those prefetched
  in this step, in the order of their copies; each becomes the most recently used. What is missing follows by number,
  each in the least recently used slot. So a layer that asks for more than C experts goes through them in waves: a slot
  is overwritten as soon as its expert was used. All reservations of the layer end.

Policies differ in what they predict: `on_demand` nothing; `previous_token` what the same sequence chose at that layer
for the token before; `prophet` the best by scores that are known by then; `oracle` the true experts. With
`all_resident` C is E, so that nothing is ever copied. Where C is no less than what a batch chooses, the choices for the
token before still lie in the slots: there `previous_token` copies nothing ahead, and does what `on_demand` does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prophet_moe.cachesim.decode_loop.plan import ORACLE, PREVIOUS_TOKEN, PROPHET, Workload
from prophet_moe.errors import UserError
from prophet_moe.predict.context import split
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.trace import DECODE, Trace, sequence_starts

KEPT, PREFETCHED, MISSED = "kept", "prefetched", "missed"
"""Where a requested expert was: in its slot since an earlier step, in it or under way to it in this one, or not."""


class Copy(NamedTuple):
    """Expert `expert` of a layer overwrites `evicted` in `slot`."""

    layer: int
    expert: int
    slot: int
    evicted: int
    recycled: bool
    """Whether the layer used `evicted` just before, in the same step."""


class Use(NamedTuple):
    """A layer applies an expert, which lies in `slot` once `copy`, if any, has ended."""

    expert: int
    slot: int
    source: str
    copy: Copy | None


class LayerWork(NamedTuple):
    """What one layer does in one step."""

    prefetches: list[Copy]
    """Issued when it has asked, for later layers."""
    dropped: list[int]
    """Layers of predicted experts that found no slot."""
    uses: list[Use]
    """In the order of computation."""


Step = list[LayerWork]
"""One step, layer by layer."""


class LayerCache:
    """The slots of one layer."""

    def __init__(self, layer: int, slots: int) -> None:
        """Experts 0 to slots - 1 of `layer` lie in the slots."""
        self.layer = layer
        self._slot_of = {expert: expert for expert in range(slots)}
        self._reserved: dict[int, bool] = {}

    def prefetch(self, experts: Sequence[int]) -> tuple[list[Copy], int]:
        """The copies of the predicted experts that are missing, and how many of those found no slot."""
        self._reserved |= {expert: False for expert in experts if expert in self._slot_of}
        missing = [expert for expert in experts if expert not in self._slot_of]
        copies = []
        for expert in missing:
            victim = next((held for held in self._slot_of if held not in self._reserved), None)
            if victim is None:
                break
            copies.append(self._replace(victim, expert, recycled=False))
            self._reserved[expert] = True
        return copies, len(missing) - len(copies)

    def request(self, experts: Sequence[int]) -> list[Use]:
        """How the distinct `experts`, ascending, come to be used, in the order of computation."""
        wanted = set(experts)
        fetched = [expert for expert, copied in self._reserved.items() if copied and expert in wanted]
        kept = [expert for expert in experts if expert in self._slot_of and not self._reserved.get(expert)]
        missing = [expert for expert in experts if expert not in self._slot_of]
        uses = [self._touch(expert, KEPT) for expert in kept] + [self._touch(expert, PREFETCHED) for expert in fetched]
        used = {use.slot for use in uses}
        for expert in missing:
            victim = next(iter(self._slot_of))
            copy = self._replace(victim, expert, recycled=self._slot_of[victim] in used)
            used.add(copy.slot)
            uses.append(Use(expert, copy.slot, MISSED, copy))
        self._reserved = {}
        return uses

    def _touch(self, expert: int, source: str) -> Use:
        slot = self._slot_of.pop(expert)
        self._slot_of[expert] = slot
        return Use(expert, slot, source, None)

    def _replace(self, victim: int, expert: int, *, recycled: bool) -> Copy:
        slot = self._slot_of.pop(victim)
        self._slot_of[expert] = slot
        return Copy(self.layer, expert, slot, victim, recycled)


def held_out(workload: Workload) -> Trace:
    """The sequences of the workload's trace that no predictor learns from."""
    return split(read_trace(Path(workload.trace)))[1]


def lanes(trace: Trace, batch: int, tokens: int, sequence_tokens: int, seed: int) -> NDArray[np.int64]:
    """Rows of `trace` (tokens, batch): lane b decodes sequences number b, b + batch, ... of a random order, in turn.

    Of a sequence it decodes `sequence_tokens` at most, and not its first: the row before each is of the same sequence.
    """
    bounds = sequence_starts(trace)
    order = np.random.default_rng(seed).permutation(len(bounds) - 1)
    rows = []
    for lane in range(batch):
        pieces = []
        for sequence in order[lane::batch]:
            begin, end = bounds[sequence], bounds[sequence + 1]
            pieces.append(begin + np.flatnonzero(trace.phase[begin:end] == DECODE)[1 : 1 + sequence_tokens])
        rows.append(np.concatenate([np.zeros(0, np.int64), *pieces])[:tokens])
        if len(rows[-1]) < tokens:
            problem = f"lane {lane} of {batch} has {len(rows[-1])} decode tokens, the plan replays {tokens}"
            raise UserError(trace.router.model, problem, "Replay fewer, or lower the batch.")
    return np.stack(rows, axis=1)


def predictions(
    policy: str, trace: Trace, rows: NDArray[np.int64], scores: NDArray[np.float32] | None, best: int
) -> NDArray[np.integer] | None:
    """(T, B, L, K) experts that `policy` prefetches for the tokens in `rows` (T, B), best first; None: none ever.

    `scores` (L, N, E) and their `best` K are what `prophet` goes by; those of layer l must be known once the layer that
    prefetches for it, max(0, l - lookahead), has asked. Of equal scores the lower number is the better.
    """
    if policy == PREVIOUS_TOKEN:
        return trace.experts[rows - 1]
    if policy == ORACLE:
        return trace.experts[rows]
    if policy == PROPHET:
        ranked = np.argsort(-scores[:, rows], axis=-1, kind="stable")[..., :best]
        return np.moveaxis(ranked, 0, 2)
    return None


def decide(
    choices: NDArray[np.integer], predicted: NDArray[np.integer] | None, slots: int, lookahead: int
) -> list[Step]:
    """The decisions of every step, for `choices` (T, B, L, k) of the router.

    `predicted` (T, B, L, K) are the experts to prefetch per token and layer, the best first; None: no prefetching. The
    predictions of a batch are joined rank by rank, within a rank in the order of the sequences.
    """
    steps, _, layers, _ = choices.shape
    caches = [LayerCache(layer, slots) for layer in range(layers)]
    decided = []
    for number in range(steps):
        step = []
        for layer in range(layers):
            prefetches, dropped = [], []
            for target in _targets(layer, layers, lookahead) if predicted is not None else ():
                ranked = dict.fromkeys(predicted[number, :, target].T.ravel().tolist())
                copies, refused = caches[target].prefetch(list(ranked))
                prefetches += copies
                dropped += [target] * refused
            uses = caches[layer].request(sorted(set(choices[number, :, layer].ravel().tolist())))
            step.append(LayerWork(prefetches, dropped, uses))
        decided.append(step)
    return decided


def _targets(layer: int, layers: int, lookahead: int) -> range:
    """The layers that are prefetched for when `layer` has asked."""
    return range(1 if layer == 0 else layer + lookahead, min(layer + lookahead + 1, layers))


def contents(steps: Sequence[Step], layers: int, slots: int) -> list[list[int]]:
    """Which expert lies in every slot of every layer after `steps`."""
    held = [list(range(slots)) for _ in range(layers)]
    for step in steps:
        for work in step:
            for copy in [*work.prefetches, *(use.copy for use in work.uses if use.copy)]:
                held[copy.layer][copy.slot] = copy.expert
    return held


def tallied(steps: Sequence[Step]) -> dict[str, NDArray[np.int64]]:
    """Numbers of experts per step and layer, each (T, L).

    A prefetch belongs to the layer it is for; it is `wrong` if that layer does not ask for the expert in the same step.
    """
    names = ("requests", "hits", "misses", "prefetches_used", "prefetches_wrong", "prefetches_dropped")
    numbers = {name: np.zeros((len(steps), len(steps[0])), np.int64) for name in names}
    for row, step in enumerate(steps):
        for layer, work in enumerate(step):
            for copy in work.prefetches:
                numbers["prefetches_wrong"][row, copy.layer] += 1
            for target in work.dropped:
                numbers["prefetches_dropped"][row, target] += 1
            missed = sum(use.source == MISSED for use in work.uses)
            fetched = sum(use.source == PREFETCHED for use in work.uses)
            numbers["requests"][row, layer] = len(work.uses)
            numbers["hits"][row, layer] = len(work.uses) - missed
            numbers["misses"][row, layer] = missed
            numbers["prefetches_used"][row, layer] = fetched
            numbers["prefetches_wrong"][row, layer] -= fetched
    return numbers
