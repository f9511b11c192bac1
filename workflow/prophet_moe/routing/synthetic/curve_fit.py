"""Generator parameters fitted to an LRU hit curve: a few numbers that are the same in every layer.

A cache per layer, decode, one sequence at a time: what engines publish. Layers are not coupled, so every layer of every
generated sequence is an independent chain, and a curve is the mean over chains.

A hit curve of single sequences says little about which experts are popular over all text: a favour of the sequence acts
the same. So the spread of popularity is fitted to a popularity CV that is given, that of the law for u(B) of the model
(`law.dirichlet_occupancy`, `published_cv`), and generated sequences share as many experts as that law says.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize
from scipy.special import expit, gammaincinv, logit

from prophet_moe.errors import UserError
from prophet_moe.routing.reuse import ask_hits
from prophet_moe.routing.synthetic.generator import Parameters, generate
from prophet_moe.routing.trace import Router

Floats = NDArray[np.float64]
Start = Literal["cold", "warm"]
Lookup = Literal["ask", "request"]

SMALLEST_WEIGHT = 1e-6
"""Least weight of an expert over the largest: keeps every expert possible where the distribution is very skewed."""
POPULARITY_CV_WEIGHT = 0.01
"""Squared error of the popularity CV, in units of squared errors of a hit rate: 0.01 of it is worth 0.1 points."""
PRIOR_WEIGHT = 1e-6
"""Squared distance from where a search starts, per unit of a logarithm: decides where few points leave a choice."""
STEP = 0.5
"""Side of the first simplex, in logarithms of the parameters."""


@dataclass(frozen=True)
class Scalars:
    """What a generator needs to know of a model beside its router: the same numbers in every layer, no coupling."""

    persistence: float
    """Probability that a choice repeats the choice of the token before."""
    affinity: float
    """Standard deviation of the logarithm of a sequence's favours, the part that stays."""
    drift: float
    """Standard deviation of the logarithm of a sequence's favours, the part that drifts."""
    drift_tokens: float
    """Correlation time of the drift, tokens."""
    spread: float
    """Standard deviation of the experts' weights over their mean."""

    def parameters(self, router: Router) -> Parameters:
        """Return the generator parameters for a router of any number of experts, choices and layers."""
        layers = len(router.layers)
        weights = np.tile(gamma_weights(router.experts, self.spread), (layers, 1))
        structure = (-np.inf, self.persistence, self.affinity, self.drift, self.drift_tokens)
        return Parameters(router, weights, weights, *(np.full(layers, value) for value in structure))


BEGINNINGS = (
    Scalars(persistence=0.15, affinity=1.5, drift=1.0, drift_tokens=16.0, spread=0.6),
    Scalars(persistence=0.05, affinity=1.2, drift=1.2, drift_tokens=160.0, spread=0.6),
)
"""Where a search starts: a drift within a paragraph and one over the whole text, since a search may end at either."""


@dataclass(frozen=True)
class Setting:
    """How the hit rate of an expert cache was measured."""

    tokens: int
    """Decode tokens of each sequence that are counted."""
    start: Start = "cold"
    """Whether the cache is empty at first, or has seen as many tokens of the same sequence before."""
    lookup: Lookup = "ask"
    """Whether the experts of a token are looked up together, or one after another (see `reuse`)."""

    def __post_init__(self) -> None:
        """Refuse what names no way to measure with a UserError."""
        if self.tokens < 1:
            raise UserError("tokens", f"got {self.tokens}, expected at least 1", "Correct it.")
        for key, known in (("start", get_args(Start)), ("lookup", get_args(Lookup))):
            if getattr(self, key) not in known:
                raise UserError(key, f"got {getattr(self, key)!r}, expected {' or '.join(known)}", "Correct it.")

    @property
    def uncounted(self) -> int:
        """Return the number of tokens that fill the cache before any is counted."""
        return self.tokens if self.start == "warm" else 0


@dataclass(frozen=True)
class Chains:
    """How many layers of how many sequences are generated to measure a curve."""

    sequences: int = 48
    layers: int = 16


def gamma_weights(experts: int, spread: float) -> Floats:
    """(E,): descending shares of a gamma distribution whose standard deviation is `spread` times its mean.

    They are the quantiles in the middle of E equal parts. Normalised gamma numbers are Dirichlet distributed, so this
    is the popularity that `law.dirichlet_occupancy` assumes. A spread of 0 is uniform.
    """
    if spread == 0:
        return np.full(experts, 1 / experts)
    quantiles = gammaincinv(spread**-2, (np.arange(experts)[::-1] + 0.5) / experts)
    weights = np.maximum(quantiles, SMALLEST_WEIGHT * quantiles.max())
    return weights / weights.sum()


def hit_curve(scalars: Scalars, router: Router, setting: Setting, seed: int, chains: Chains | None = None) -> Floats:
    """(E,): hit rate of a per-layer LRU cache of 1, 2 ... E experts on generated decode traces.

    Of `router` only the number of experts and of choices count; the layers generated are those of `chains`.
    """
    choices = chain_choices(scalars, router, setting.uncounted + setting.tokens, seed, chains or Chains())
    return curve_of(choices, router.experts, setting)


def chain_choices(scalars: Scalars, router: Router, tokens: int, seed: int, chains: Chains) -> NDArray[np.uint16]:
    """(chains, tokens, k): the choices of generated tokens, one chain per layer and sequence."""
    short = replace(router, layers=tuple(range(chains.layers)))
    generated = generate(scalars.parameters(short), chains.sequences, tokens, seed).experts
    by_chain = generated.reshape(chains.sequences, tokens, chains.layers, -1).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(by_chain).reshape(-1, tokens, router.top_k)


def curve_of(choices: NDArray[np.uint16], experts: int, setting: Setting) -> Floats:
    """(E,): hit rate of a per-layer LRU cache of 1, 2 ... E experts on choices (chains, tokens, k)."""
    uncounted, requests = setting.uncounted, choices[:, setting.uncounted :].size
    if setting.lookup == "request":
        uncounted *= choices.shape[2]
        choices = choices.reshape(len(choices), -1, 1)
    return ask_hits(choices, experts, uncounted) / requests


def rates_at(curve: Floats, slots: Sequence[float] | Floats) -> Floats:
    """Return hit rates of a curve (E,) at slots from 1 on, or at shares of the experts below 1, linear between.

    A cache of no slot hits nothing.
    """
    places = np.asarray(slots, float)
    places = np.where(places < 1, places * len(curve), places)
    return np.interp(places, np.arange(len(curve) + 1), np.concatenate([[0.0], curve]))


def chain_popularity_cv(choices: NDArray[np.uint16], experts: int) -> float:
    """Estimate the popularity CV from choices (chains, tokens, k) of chains that share it.

    The mean square of the popularity is estimated by products over different chains, so that what a chain prefers
    does not count. 0 where the estimate of the variance is negative.
    """
    count, tokens, top_k = choices.shape
    chosen = np.zeros((count, experts))
    np.add.at(chosen, (np.arange(count)[:, None], choices.reshape(count, -1)), 1 / tokens)
    total = chosen.sum(axis=0)
    square = ((total**2).sum() - (chosen**2).sum()) / (count * (count - 1))
    return float(np.sqrt(max(0.0, square * experts / top_k**2 - 1)))


def fit_curve(
    router: Router,
    points: Sequence[tuple[float, float]],
    tokens: int,
    popularity_cv: float,
    start: Start = "cold",
    lookup: Lookup = "ask",
    seed: int = 0,
    chains: Chains | None = None,
    evaluations: int = 400,
) -> Scalars:
    """Fit the numbers whose generated traces meet published hit rates of a per-layer LRU cache, and a popularity CV.

    `points` are (slots or resident share, hit rate), as `rates_at` takes them. Nelder and Mead's search minimises the
    root of the mean fourth power of the errors, so that no point is far off for the sake of others, from each of
    BEGINNINGS with at most `evaluations`. All use the same seed: evaluate the result with another one. A point outside
    its range is a UserError.
    """
    check_points(points, router.experts)
    setting, chains = Setting(tokens, start, lookup), chains or Chains()
    slots, hits = np.array(points, float).T

    def loss(coordinates: Floats, beginning: Floats) -> float:
        choices = chain_choices(_scalars(coordinates), router, setting.uncounted + tokens, seed, chains)
        errors = rates_at(curve_of(choices, router.experts, setting), slots) - hits
        skew = chain_popularity_cv(choices, router.experts) - popularity_cv
        prior = ((coordinates - beginning) ** 2).sum()
        return float(np.sqrt((errors**4).mean()) + POPULARITY_CV_WEIGHT * skew**2 + PRIOR_WEIGHT * prior)

    results = [_searched(loss, _coordinates(beginning), evaluations) for beginning in BEGINNINGS]
    return _scalars(min(results, key=lambda each: each.fun).x)


def _searched(loss: Callable[[Floats, Floats], float], beginning: Floats, evaluations: int) -> OptimizeResult:
    """Return what Nelder and Mead's search from a beginning finds within a number of evaluations."""
    corners = beginning + STEP * np.eye(len(beginning) + 1, len(beginning), -1)
    options = {"initial_simplex": corners, "maxfev": evaluations, "xatol": 1e-3, "fatol": 1e-8}
    return minimize(loss, beginning, args=(beginning,), method="Nelder-Mead", options=options)


def check_points(points: Sequence[tuple[float, float]], experts: int) -> None:
    """Refuse an empty curve, slots outside 0 to E and hit rates outside 0 to 1 with a UserError."""
    if not points:
        raise UserError("points", "got none, expected at least one (slots, hit rate)", "Add one.")
    for slots, hit in points:
        if not 0 < slots <= experts:
            raise UserError("points", f"got {slots} slots, expected more than 0 and at most {experts}", "Correct it.")
        if not 0 <= hit <= 1:
            raise UserError("points", f"got hit rate {hit} at {slots} slots, expected 0 to 1", "Correct it.")


def _coordinates(scalars: Scalars) -> Floats:
    """Return what is searched over: the logit of the persistence, the logarithms of the others."""
    persistence, *others = astuple(scalars)
    return np.array([logit(persistence), *np.log(others)])


def _scalars(coordinates: Floats) -> Scalars:
    """Return the inverse of `_coordinates`, bounded far outside of what real routing needs."""
    persistence, *others = coordinates.clip(-8, 8)
    return Scalars(float(expit(persistence)), *(float(np.exp(other)) for other in others))
