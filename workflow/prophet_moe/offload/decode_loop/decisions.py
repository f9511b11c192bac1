"""Which experts lie on the device, and which are copied when: the decisions of a decode loop, without any clock.

A step decodes one token of each of B sequences through L MoE layers; every layer has its own cache of C slots. The
decisions depend on the routing alone, never on timing, so a simulator that follows these rules moves the same bytes:

* At first, expert s lies in slot s of every layer, slot 0 the least recently used.
* When the choices of layer l are known, after its attention, a plan names what layers l + 1 to l + lookahead need, the
  nearest layer first, within a layer the likeliest expert first, no more of one layer than C.
* Planned experts that lie in their layer's slots are reserved. Of the others, in their order, the first
  `prefetches_per_layer` that find a slot are begun: each goes to the least recently used slot that is not reserved, and
  is reserved and the most recently used from then on. A prefetch once begun is made. The others wait.
* The plan of the next layer replaces all that wait, and all reservations but those of prefetches that were begun: a
  waiting one that it does not name, or whose layer is next, is dropped. None is left after the last layer.
* A layer uses first the requested experts that lay there before the step, by number, then those prefetched
  in this step, in the order of their copies; each becomes the most recently used. What is missing follows by number,
  each in the least recently used slot. So a layer that needs more than C experts takes several passes: a slot
  is overwritten as soon as its expert was used. All reservations of the layer end.

Policies differ in what a layer is believed to need:

* `on_demand` nothing.
* `frequency` the `predicted_experts` that tokens of the other half of the trace chose most often in that layer.
* `prophet` what is likelier than not: experts that at least one token of the batch chooses with a probability
  1 - prod(1 - p) above LIKELY, by the predictor's newest p. The simulator's Prophet plans the same.
* `oracle` the true experts.

With `all_resident` C is E, so that nothing is ever copied. In the simulator as many copies begin before the next layer
as the link has time for; here they are `prefetches_per_layer`, whatever a machine takes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.offload.decode_loop.plan import FREQUENCY, ORACLE, PROPHET, Workload
from prophet_moe.predict.context import LIKELY, split
from prophet_moe.routing.sequences import popularity
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.trace import Trace, sequence_starts

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
    """What one layer does in one step: prefetches, and the experts it uses."""

    prefetches: list[Copy]
    """Copies begun once its choices are known, for later layers."""
    dropped: list[int]
    """Layers of the prefetches that waited until this layer, and are dropped then."""
    uses: list[Use]
    """Uses of its experts, in the order of computation."""


Step = list[LayerWork]
"""One step, layer by layer."""
Prefetches = Sequence[Sequence[Sequence[Sequence[int]]]]
"""By step, layer whose choices are known, and distance less 1 to the layer meant: its experts, most urgent first."""
Scores = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""From rows (T, B) of a trace to a predictor's scores (D, L, T, B, E): [d - 1, l] of layer l, d layers before it."""


class LayerCache:
    """The slots of one layer, the least recently used expert first."""

    def __init__(self, layer: int, slots: int) -> None:
        """Experts 0 to slots - 1 of `layer` lie in the slots."""
        self.layer = layer
        self._slot_of = {expert: expert for expert in range(slots)}
        self._begun: dict[int, None] = {}

    def prefetch(self, planned: Sequence[int], most: int) -> tuple[list[Copy], list[int]]:
        """Begin copies for what is `planned`, `most` of them; return these copies and the prefetches that wait."""
        planned = planned[: len(self._slot_of)]
        reserved = set(planned).union(self._begun)
        copies, waiting = [], []
        for expert in planned:
            if expert in self._slot_of:
                continue
            victim = next((held for held in self._slot_of if held not in reserved), None)
            if victim is None or len(copies) == most:
                waiting.append(expert)
            else:
                copies.append(self._replace(victim, expert, recycled=False))
                self._begun[expert] = None
        return copies, waiting

    def request(self, experts: Sequence[int]) -> list[Use]:
        """Use the distinct `experts`, ascending, and return their uses in the order of computation."""
        wanted = set(experts)
        fetched = [expert for expert in self._begun if expert in wanted]
        kept = [expert for expert in experts if expert in self._slot_of and expert not in self._begun]
        missing = [expert for expert in experts if expert not in self._slot_of]
        uses = [self._touch(expert, KEPT) for expert in kept] + [self._touch(expert, PREFETCHED) for expert in fetched]
        used = {use.slot for use in uses}
        for expert in missing:
            victim = next(iter(self._slot_of))
            copy = self._replace(victim, expert, recycled=self._slot_of[victim] in used)
            used.add(copy.slot)
            uses.append(Use(expert, copy.slot, MISSED, copy))
        self._begun = {}
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
    """Return the sequences of the workload's trace that no predictor learns from."""
    return split(read_trace(Path(workload.trace)))[1]


def often_chosen(workload: Workload) -> NDArray[np.int64]:
    """Return (L, K): the `predicted_experts` that the training half chose most often in each layer, equal ones by
    number.
    """
    training = split(read_trace(Path(workload.trace)))[0]
    return np.argsort(-popularity(training), axis=1, kind="stable")[:, : workload.predicted_experts]


def lanes(trace: Trace, batch: int, tokens: int, sequence_tokens: int, seed: int) -> NDArray[np.int64]:
    """Rows of `trace` (tokens, batch): lane b decodes sequences number b, b + batch, ... of a random order, in turn.

    Of a sequence it decodes `sequence_tokens` at most, and not its first: the row before each is of the same sequence.
    """
    bounds, described = sequence_starts(trace), trace.described_tokens()
    order = np.random.default_rng(seed).permutation(len(bounds) - 1)
    rows = []
    for lane in range(batch):
        pieces = []
        for sequence in order[lane::batch]:
            begin, end = bounds[sequence], bounds[sequence + 1]
            pieces.append(begin + np.flatnonzero(described[begin:end])[1 : 1 + sequence_tokens])
        rows.append(np.concatenate([np.zeros(0, np.int64), *pieces])[:tokens])
        if len(rows[-1]) < tokens:
            problem = f"lane {lane} of {batch} has {len(rows[-1])} decode tokens, the plan replays {tokens}"
            raise UserError(trace.router.model, problem, "Replay fewer, or lower the batch.")
    return np.stack(rows, axis=1)


def plan_prefetches(
    policy: str,
    choices: NDArray[np.integer],
    lookahead: int,
    often: NDArray[np.int64],
    scores: NDArray[np.float32] | None = None,
) -> Prefetches | None:
    """Return what `policy` plans to prefetch while `choices` (T, B, L, k) are decoded, or None if it never prefetches.

    `often` (L, K) is what `frequency` goes by, `scores` (D, L, T, B, E) what `prophet` goes by, D >= lookahead.
    """
    steps, _, layers, _ = choices.shape

    def need(step: int, layer: int, distance: int) -> list[int]:
        if policy == FREQUENCY:
            return often[layer].tolist()
        if policy == ORACLE:
            return np.unique(choices[step, :, layer]).tolist()
        return likely(scores[distance - 1, layer, step])

    if policy not in (FREQUENCY, ORACLE, PROPHET):
        return None
    return [
        [
            [need(step, layer + ahead, ahead) for ahead in range(1, min(lookahead, layers - 1 - layer) + 1)]
            for layer in range(layers)
        ]
        for step in range(steps)
    ]


def likely(scores: NDArray[np.float32]) -> list[int]:
    """Return the experts that one of B tokens of `scores` (B, E) likely chooses, the likeliest first, equal ones by
    number.
    """
    with np.errstate(over="ignore"):
        each = 1 / (1 + np.exp(-scores))
    any_of = each[0] if len(each) == 1 else 1 - np.multiply.reduce(1 - each, axis=0)
    order = np.argsort(-any_of, kind="stable")
    return order[any_of[order] > LIKELY].tolist()


def decide(
    choices: NDArray[np.integer], planned: Prefetches | None, slots: int, prefetches_per_layer: int
) -> list[Step]:
    """Return the decisions of every step, for `choices` (T, B, L, k) of the router; without `planned` nothing is
    prefetched.
    """
    steps, _, layers, _ = choices.shape
    caches = [LayerCache(layer, slots) for layer in range(layers)]
    decided = []
    for number in range(steps):
        step, waiting = [], []
        for layer in range(layers):
            prefetches, late = [], []
            for target, experts in enumerate(planned[number][layer] if planned else (), start=layer + 1):
                copies, left = caches[target].prefetch(experts, prefetches_per_layer - len(prefetches))
                prefetches += copies
                late += [(target, expert) for expert in left]
            still = {*late, *((copy.layer, copy.expert) for copy in prefetches)}
            dropped, waiting = [request[0] for request in waiting if request not in still], late
            uses = caches[layer].request(sorted(set(choices[number, :, layer].ravel().tolist())))
            step.append(LayerWork(prefetches, dropped, uses))
        decided.append(step)
    return decided


def contents(steps: Sequence[Step], layers: int, slots: int) -> list[list[int]]:
    """Return which expert lies in every slot of every layer after `steps`."""
    held = [list(range(slots)) for _ in range(layers)]
    for step in steps:
        for work in step:
            for copy in [*work.prefetches, *(use.copy for use in work.uses if use.copy)]:
                held[copy.layer][copy.slot] = copy.expert
    return held


def tallied(steps: Sequence[Step]) -> dict[str, NDArray[np.int64]]:
    """Return numbers of experts per step and layer, each (T, L).

    A prefetch belongs to the layer it is for; it is `wrong` if that layer does not need the expert in the same step,
    `dropped` if it was planned and waited, but was not begun.
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
