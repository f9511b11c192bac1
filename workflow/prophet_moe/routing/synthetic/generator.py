"""The generator of synthetic routing traces: its parameters and its draws, all seeded.

In every sequence, expert e of layer l has the favour exp(affinity[l] z + drift[l] y). z is standard normal for every
(sequence, layer, expert) and stays; y is standard normal too and drifts from token to token as an Ornstein-Uhlenbeck
process of correlation time drift_tokens[l]: the topic of a passage, where z is that of the whole text. y is constant
between its updates, DRIFT_UPDATES in the shortest correlation time. A token's choices in layer l are drawn one after
another. Choice r is

* the partner in layer l of choice r in layer l - 1, with odds exp(coupling[l]) x the partner's favour,
* else, with probability persistence[l], choice r of the token before in the same sequence,
* else, or where that was chosen already, any expert with probability proportional to weights[l, e] x its favour.

Partners are experts of equal rank by load. Where the partner's load is the lower one, so are the odds, by that factor.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.routing.trace import DECODE, Origin, Router, Trace

Floats = NDArray[np.float64]

CHANCE_BITS, CELL_BITS, ALIAS_BITS = 24, 20, 20
"""How 64 random bits are shared out: how a choice is made, the cell of an alias table, the side of its cut."""
DRIFT_UPDATES = 4
"""Updates of the drifting favours in one correlation time: more follow the process closer and take longer."""
REDRAWS = 1000
"""Draws of experts that are chosen already before the next unchosen id is taken: the end, where weights are extreme."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Step of splitmix64."""


@dataclass(frozen=True)
class Parameters:
    """Parameters of a generator of routing traces for L layers and E experts."""

    router: Router
    load: Floats
    """(L, E): share of each expert in all choices, above 0."""
    weights: Floats
    """(L, E): of the choices that neither coupling nor persistence made, above 0."""
    coupling: Floats
    """(L,): log odds; the first means nothing."""
    persistence: Floats
    """(L,): probability that a choice of the token before is kept."""
    affinity: Floats
    """(L,): standard deviation of the logarithm of a sequence's favours, the part that stays."""
    drift: Floats = field(default_factory=lambda: np.zeros(1))
    """(L,), or (1,) for all layers: standard deviation of the part that drifts."""
    drift_tokens: Floats = field(default_factory=lambda: np.ones(1))
    """(L,), or (1,) for all layers: tokens in which the correlation of the drift falls to 1/e, above 0."""

    def to_json(self) -> str:
        """Return these parameters as the text of a JSON object."""
        return json.dumps(asdict(self), default=lambda array: array.tolist())

    @classmethod
    def from_json(cls, text: str) -> "Parameters":
        """Read the parameters back from what `to_json` wrote."""
        fields = json.loads(text)
        router = fields.pop("router")
        return cls(
            Router(**router | {"layers": tuple(router["layers"])}),
            **{name: np.array(values) for name, values in fields.items()},
        )


def generate(parameters: Parameters, sequences: int, tokens_per_sequence: int, seed: int) -> Trace:
    """Generate a synthetic routing trace of decode tokens.

    Parameters
    ----------
    parameters : Parameters
        Load, coupling, persistence and affinity by layer.
    sequences, tokens_per_sequence : int
        The size of the trace.
    seed : int
        A sequence depends on this and on its number alone, not on how many follow.

    Returns
    -------
    Trace
        Unranked choices of `sequences` x `tokens_per_sequence` tokens.
    """
    router, tokens = parameters.router, sequences * tokens_per_sequence
    layers = len(router.layers)
    partner, ratio = partners(parameters.load)
    odds = ratio * np.exp(parameters.coupling)[:, None]
    fixed = (partner, odds, parameters.persistence, parameters.weights)
    experts = np.empty((sequences, tokens_per_sequence, layers, router.top_k), np.uint16)
    for sequence in range(sequences):
        rng = np.random.default_rng((seed, sequence))
        lasting = parameters.affinity[:, None] * rng.standard_normal((layers, router.experts))
        state = rng.integers(2**64, dtype=np.uint64)
        for start, stop, drifting in _drifts(parameters, tokens_per_sequence, rng):
            favour = np.exp(lasting + drifting)
            # Numba hands unsigned numbers back as Python's, and takes those for signed ones.
            state = np.uint64(_fill(*fixed, favour, state, experts[sequence], start, stop))
    return Trace(
        router,
        np.repeat(np.arange(sequences, dtype=np.int32), tokens_per_sequence),
        np.tile(np.arange(tokens_per_sequence, dtype=np.int32), sequences),
        np.full(tokens, DECODE, np.uint8),
        experts.reshape(tokens, layers, router.top_k),
        ranked=False,
        origin=Origin("synthetic", "Apache-2.0", collector="prophet_moe.routing.synthetic"),
    )


def _drifts(parameters: Parameters, tokens: int, rng: np.random.Generator) -> Iterator[tuple[int, int, Floats | float]]:
    """Runs of tokens, by their first and the one behind their last, and the drift of the favours (L, E) in each."""
    if not parameters.drift.any():
        yield 0, tokens, 0.0
        return
    shape = parameters.weights.shape
    length = max(1, round(parameters.drift_tokens[parameters.drift > 0].min() / DRIFT_UPDATES))
    kept = np.exp(-length / parameters.drift_tokens)[:, None]
    renewed = np.sqrt(1 - kept**2)
    drift = rng.standard_normal(shape)
    for start in range(0, tokens, length):
        if start:
            drift = kept * drift + renewed * rng.standard_normal(shape)
        yield start, min(start + length, tokens), parameters.drift[:, None] * drift


def partners(load: Floats) -> tuple[NDArray[np.int64], Floats]:
    """(L, E) each: partner in layer l of every expert of layer l - 1, and min(1, partner's load / own load).

    The ratio is 0 in the first layer, which follows none.
    """
    order = np.argsort(-load, axis=1, kind="stable")
    partner, ratio = np.zeros(load.shape, np.int64), np.zeros(load.shape)
    np.put_along_axis(partner[1:], order[:-1], order[1:], axis=1)
    ratio[1:] = np.minimum(1, np.take_along_axis(load, partner, axis=1)[1:] / load[:-1])
    return partner, ratio


@njit(cache=True)
def _fill(partner, odds, persistence, weights, favour, state, experts, start, stop):
    """Draw tokens `start` to `stop` of `experts` (T, L, k), one sequence; the state of the random bits behind them.

    `partner`, `odds`, `weights` and `favour` are (L, E), `persistence` (L,).
    """
    layers, top_k = experts.shape[1:]
    follow, keep = _thresholds(partner, odds, persistence, favour)
    cut, other = alias_tables(weights * favour)
    drawn = np.full(weights.shape[1], -1)
    for token in range(start, stop):
        for layer in range(layers):
            drawing = token * layers + layer
            for rank in range(top_k):
                state += GOLDEN
                bits = mix(state)
                chance = np.int64(bits >> np.uint64(CELL_BITS + ALIAS_BITS))
                before = np.int64(experts[token, layer - 1, rank]) if layer else 0
                if chance < follow[layer, before]:
                    expert = partner[layer, before]
                elif token and chance < keep[layer, before]:
                    expert = np.int64(experts[token - 1, layer, rank])
                else:
                    expert = draw(cut[layer], other[layer], bits)
                redraws = 0
                while drawn[expert] == drawing:
                    state += GOLDEN
                    redraws += 1
                    expert = (
                        draw(cut[layer], other[layer], mix(state)) if redraws <= REDRAWS else (expert + 1) % len(drawn)
                    )
                drawn[expert] = drawing
                experts[token, layer, rank] = expert
    return state


@njit(cache=True)
def _thresholds(partner, odds, persistence, favour):
    """(L, E) each, by the choice in the layer before: the first 2^CHANCE_BITS x chance to follow it, then to keep."""
    follow, keep = np.empty(odds.shape, np.int64), np.empty(odds.shape, np.int64)
    for layer in range(odds.shape[0]):
        for e in range(odds.shape[1]):
            ratio = odds[layer, e] * favour[layer, partner[layer, e]]
            chance = ratio / (1 + ratio)
            follow[layer, e] = chance * 2**CHANCE_BITS
            keep[layer, e] = (chance + (1 - chance) * persistence[layer]) * 2**CHANCE_BITS
    return follow, keep


@njit(cache=True)
def alias_tables(weights):
    """Return tables (L, E) to draw e in proportion to `weights` (L, E) (Walker 1977, Vose 1991).

    A cell c drawn uniformly stands for itself where a number below 2^ALIAS_BITS is under cut[c], else for other[c].
    """
    layers, experts = weights.shape
    cut = np.full((layers, experts), 2**ALIAS_BITS)
    other = np.zeros((layers, experts), np.int64)
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
            cut[layer, under] = round(share[under] * 2**ALIAS_BITS)
            other[layer, under] = over
            share[over] -= 1 - share[under]
            if share[over] < 1:
                n_large -= 1
                small[n_small] = over
                n_small += 1
    return cut, other


@njit(cache=True)
def draw(cut, other, bits):
    """Return one expert from a row of alias tables, by the lowest CELL_BITS + ALIAS_BITS of `bits`."""
    cell = np.int64(((bits & np.uint64(2**CELL_BITS - 1)) * np.uint64(len(cut))) >> np.uint64(CELL_BITS))
    side = np.int64((bits >> np.uint64(CELL_BITS)) & np.uint64(2**ALIAS_BITS - 1))
    return cell if side < cut[cell] else other[cell]


@njit(cache=True)
def mix(state):
    """Return 64 random bits from `state` by the output function of splitmix64 (Steele et al. 2014)."""
    mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
