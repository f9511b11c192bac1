"""Synthetic routing traces, seeded, with the statistics of a real trace.

A token's choices in layer l are drawn one after another. Choice r is

* with probability coupling[l] a successor of the token's choice r in layer l - 1,
* with probability persistence[l] the choice r of the sequence's token before,
* else, or where that was chosen already, expert e with probability proportional to weights[l, e] exp(affinity[l] z), z
  standard normal for every (sequence, layer, expert).

The successors of expert j are the experts on which its share of the load of layer l - 1 falls when the loads of both layers
are laid out on one line, each in a random order: one or a few for each j, and on average they keep layer l's load. The
orders belong to the parameters, so that every trace generated from these has the same successors.
"""

import json
from dataclasses import asdict, dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.routing import statistics
from prophet_moe.routing.trace import DECODE, Origin, Router, Trace

Floats = NDArray[np.float64]

SUCCESSORS = 16
"""Points of an expert's share at which its successors are looked up; a power of two."""
CHANCE_BITS, ALIAS_BITS = 24, 20
"""Resolution of the probabilities of coupling and persistence, and of the weights."""


@dataclass(frozen=True)
class Parameters:
    """Of a generator; L layers, E experts."""

    router: Router
    load: Floats
    """(L, E): share of each expert in all choices."""
    weights: Floats
    """(L, E): of the choices that neither coupling nor persistence made."""
    persistence: Floats
    """(L,)."""
    coupling: Floats
    """(L,); 0 for the first layer."""
    affinity: Floats
    """(L,)."""
    orders_seed: int = 0

    def to_json(self) -> str:
        """These parameters as a JSON object."""
        return json.dumps(asdict(self), default=lambda array: array.tolist())

    @classmethod
    def from_json(cls, text: str) -> "Parameters":
        """The parameters that `to_json` wrote."""
        fields = json.loads(text)
        router = fields.pop("router")
        seed = fields.pop("orders_seed")
        arrays = {name: np.array(values) for name, values in fields.items()}
        return cls(Router(**router | {"layers": tuple(router["layers"])}), **arrays, orders_seed=seed)


@dataclass(frozen=True)
class Moments:
    """What a generator is fitted to, by layer."""

    load: Floats
    """(L, E)."""
    overlap: Floats
    """(L,): of consecutive tokens."""
    recall: Floats
    """(L - 1,): recall@k of naive Bayes on the layer before."""
    distinct: Floats
    """(L,): experts that 2E/k consecutive tokens choose."""


def moments(trace: Trace, seed: int) -> Moments:
    """Measure `trace`: recall on at most RECALL_TOKENS tokens, trained on half of the sequences."""
    train, test = statistics.split_by_sequence(trace, 0.5, seed)
    recall = statistics.next_layer_recall(_first(train, TRAIN_TOKENS), _first(test, TEST_TOKENS), (trace.router.top_k,))
    window = 2 * trace.router.experts // trace.router.top_k
    return Moments(
        statistics.load(trace),
        statistics.consecutive_overlap(trace),
        recall.naive_bayes[0],
        statistics.distinct_by_batch(trace, (window,), "prefill", seed=seed)[0],
    )


def _first(trace: Trace, tokens: int) -> Trace:
    return trace.select(np.arange(len(trace)) < tokens)


def fit(trace: Trace, rounds: int = 40, seed: int = 0) -> Parameters:
    """Parameters whose traces have the moments of `trace`.

    Each round generates a trace and moves every parameter by what its moment lacks; the last half of the rounds is averaged.
    """
    target = moments(trace, seed)
    layers = len(trace.router.layers)
    floor = 0.5 / (len(trace) * trace.router.top_k)
    load = np.maximum(target.load, floor)
    now = Parameters(
        trace.router, load, load, np.full(layers, 0.2), np.minimum(np.arange(layers), 1) * 0.4, np.full(layers, 0.7)
    )
    kept = []
    for step in range(rounds):
        found = moments(generate(now, SAMPLE_SEQUENCES, SAMPLE_TOKENS, step), seed)
        now = _moved(now, target, found, floor)
        if step >= rounds // 2:
            kept.append(now)
        if DEBUG:
            print(
                step,
                *(
                    np.round(np.abs(getattr(found, n) / getattr(target, n) - 1).mean(), 4)
                    for n in ("overlap", "recall", "distinct")
                ),
                np.abs(found.load - target.load).sum(1).mean().round(4),
                now.affinity.mean(),
                now.coupling[1:].mean(),
                now.persistence.mean(),
            )
    return replace(
        now,
        **{
            n: np.mean([getattr(x, n) for x in kept], axis=0)
            for n in ("weights", "persistence", "coupling", "affinity")
        },
    )


DEBUG = True
SAMPLE_SEQUENCES, SAMPLE_TOKENS = 96, 128
TRAIN_TOKENS, TEST_TOKENS = 6000, 1000


def _moved(now, target, found, floor):
    coupling = now.coupling.copy()
    coupling[1:] = np.clip(coupling[1:] + 0.6 * (target.recall - found.recall), 0, 0.95)
    persistence = np.clip(now.persistence + 0.6 * (target.overlap - found.overlap), 0, 1 - coupling - 0.02)
    variance = np.maximum(0, now.affinity**2 + 2 * np.log(found.distinct / target.distinct))
    weights = now.weights * (np.maximum(target.load, floor) / np.maximum(found.load, floor)).clip(0.5, 2)
    return replace(
        now,
        weights=weights / weights.sum(axis=1, keepdims=True),
        persistence=persistence,
        coupling=coupling,
        affinity=np.sqrt(variance),
    )


def generate(parameters: Parameters, sequences: int, tokens_per_sequence: int, seed: int) -> Trace:
    """A trace of `sequences` x `tokens_per_sequence` decode tokens; its first sequences do not depend on how many follow."""
    router, tokens = parameters.router, sequences * tokens_per_sequence
    layers = len(router.layers)
    followers = successors(parameters)
    chances = np.cumsum([parameters.coupling, parameters.persistence], axis=0) * 2**CHANCE_BITS
    experts = np.empty((sequences, tokens_per_sequence, layers, router.top_k), np.uint16)
    for sequence in range(sequences):
        rng = np.random.default_rng((seed, sequence))
        normal = rng.standard_normal((layers, router.experts))
        cut, other = _alias_tables(parameters.weights * np.exp(parameters.affinity[:, None] * normal))
        state = rng.integers(2**64, dtype=np.uint64)
        _fill_sequence(followers, chances.astype(np.int64), cut, other, state, experts[sequence])
    return Trace(
        router,
        np.repeat(np.arange(sequences, dtype=np.int32), tokens_per_sequence),
        np.tile(np.arange(tokens_per_sequence, dtype=np.int32), sequences),
        np.full(tokens, DECODE, np.uint8),
        experts.reshape(tokens, layers, router.top_k),
        ranked=False,
        origin=Origin("synthetic", "Apache-2.0", collector="prophet_moe.routing.synthetic"),
    )


def successors(parameters: Parameters) -> NDArray[np.uint16]:
    """(L, E, SUCCESSORS): experts of a layer that follow each expert of the layer before; the first layer's mean nothing."""
    rng = np.random.default_rng(parameters.orders_seed)
    layers, experts = parameters.load.shape
    orders = rng.permuted(np.tile(np.arange(experts), (layers, 1)), axis=1)
    found = np.zeros((layers, experts, SUCCESSORS), np.uint16)
    for layer in range(1, layers):
        before, now = parameters.load[layer - 1, orders[layer - 1]], parameters.load[layer, orders[layer]]
        points = np.cumsum(before)[:, None] - before[:, None] * (np.arange(SUCCESSORS) + 0.5) / SUCCESSORS
        places = np.searchsorted(np.cumsum(now), points).clip(max=experts - 1)
        found[layer, orders[layer - 1]] = orders[layer][places]
    return found


@njit(cache=True)
def _alias_tables(weights):
    """Tables (L, E) to draw e with probability proportional to `weights` (L, E) (Walker 1977, Vose 1991).

    A cell c drawn uniformly stands for itself where a number below 2^ALIAS_BITS is under cut[c], else for other[c].
    """
    layers, experts = weights.shape
    cut = np.full((layers, experts), 2**ALIAS_BITS)
    other = np.zeros((layers, experts), np.uint16)
    small, large = np.empty(experts, np.int64), np.empty(experts, np.int64)
    for layer in range(layers):
        share = weights[layer] * (experts / weights[layer].sum())
        n_small = n_large = 0
        for e in range(experts):
            if share[e] < 1:
                small[n_small] = e
                n_small += 1
            else:
                large[n_large] = e
                n_large += 1
        while n_small and n_large:
            n_small -= 1
            under, over = small[n_small], large[n_large - 1]
            cut[layer, under] = share[under] * 2**ALIAS_BITS
            other[layer, under] = over
            share[over] -= 1 - share[under]
            if share[over] < 1:
                n_large -= 1
                small[n_small] = over
                n_small += 1
    return cut, other


@njit(cache=True)
def _fill_sequence(followers, chances, cut, other, state, experts):
    """Draw `experts` (T, L, k) of one sequence."""
    tokens, layers, top_k = experts.shape
    seen = np.full(cut.shape[1], -1)
    for token in range(tokens):
        for layer in range(layers):
            drawing = token * layers + layer
            for rank in range(top_k):
                state += np.uint64(0x9E3779B97F4A7C15)
                bits = _mix(state)
                chance = np.int64(bits >> np.uint64(64 - CHANCE_BITS))
                if chance < chances[0, layer]:
                    before = np.int64(experts[token, layer - 1, rank])
                    expert = np.int64(followers[layer, before, bits & np.uint64(SUCCESSORS - 1)])
                elif token > 0 and chance < chances[1, layer]:
                    expert = np.int64(experts[token - 1, layer, rank])
                else:
                    expert = _draw(cut[layer], other[layer], bits)
                while seen[expert] == drawing:
                    state += np.uint64(0x9E3779B97F4A7C15)
                    expert = _draw(cut[layer], other[layer], _mix(state))
                seen[expert] = drawing
                experts[token, layer, rank] = expert


@njit(cache=True)
def _draw(cut, other, bits):
    """One expert from a row of alias tables by the lowest 20 + ALIAS_BITS of 64 random bits."""
    cell = np.int64(((bits & np.uint64(0xFFFFF)) * np.uint64(len(cut))) >> np.uint64(20))
    inside = np.int64((bits >> np.uint64(20)) & np.uint64(2**ALIAS_BITS - 1))
    return cell if inside < cut[cell] else np.int64(other[cell])


@njit(cache=True)
def _mix(state):
    """64 random bits: the output function of splitmix64."""
    mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
