"""Generated routing with the popularity of a given law, and with the locality of each sequence kept.

Hit rates of single sequences do not tell what a sequence prefers from what is popular over all text. The distinct
experts of tokens of different sequences, u(B), do: they rest on popularity alone. So locality that was fitted to one
model is carried to another by two numbers, affinity and spread: together they keep the hit curve and meet the
popularity CV.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from prophet_moe.routing.synthetic.curve_fit import (
    Chains,
    Scalars,
    Setting,
    chain_choices,
    chain_popularity_cv,
    curve_of,
)
from prophet_moe.routing.trace import Router

Floats = NDArray[np.float64]

SETTING = Setting(tokens=64)
"""How the hit curve that is kept is measured: from a cold cache, a token's experts together."""
CHAINS = Chains(sequences=24, layers=16)
"""Chains that curve and popularity are measured on: one popularity CV of 384 chains errs by less than 0.03."""
POPULARITY_CV_WEIGHT = 0.1
"""Squared error of the popularity CV, in units of squared errors of a hit rate."""
STEP, EVALUATIONS, SEED = 0.3, 40, 0
"""First step of the search, in logarithms; most evaluations; seed of the generated traces."""


def with_popularity_cv(scalars: Scalars, router: Router, popularity_cv: float) -> Scalars:
    """Return the numbers that give a router's sequences this popularity CV, and the hit curve that they had before.

    Persistence and drift are kept. Affinity and spread are found by Nelder and Mead's search on traces of one seed.
    """

    def measured(numbers: Scalars) -> tuple[float, Floats]:
        choices = chain_choices(numbers, router, SETTING.tokens, SEED, CHAINS)
        curve = curve_of(choices, router.experts, SETTING)[router.top_k - 1 :]
        return chain_popularity_cv(choices, router.experts), curve

    _, before = measured(scalars)

    def loss(coordinates: Floats) -> float:
        found, curve = measured(_moved(scalars, coordinates))
        return float(((curve - before) ** 2).mean() + POPULARITY_CV_WEIGHT * (found - popularity_cv) ** 2)

    beginning = np.log([scalars.affinity, scalars.spread])
    options = {"initial_simplex": beginning + STEP * np.eye(3, 2, -1), "maxfev": EVALUATIONS, "xatol": 5e-3}
    return _moved(scalars, minimize(loss, beginning, method="Nelder-Mead", options=options | {"fatol": 1e-8}).x)


def _moved(scalars: Scalars, coordinates: Floats) -> Scalars:
    affinity, spread = np.exp(coordinates.clip(-8, 8))
    return replace(scalars, affinity=float(affinity), spread=float(spread))
