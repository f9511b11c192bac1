"""ExpertFlow's PLEC (He et al., arXiv 2410.17954): the route is predicted before the pass, experts are cached by it.

Tokens are regrouped so that those of like routes follow each other; what was mispredicted is copied on demand. Its
predictor is a transformer over the tokens; here it is P(expert | token, first choice of the token before), counted.
"""

import numpy as np

from prophet_moe.offload.simulator.batching import ABSENT
from prophet_moe.offload.simulator.prefetch import LOOKAHEAD, ahead, batch_needs
from prophet_moe.offload.strategies import Strategy


def plan_prefetches(batches, predictions, hierarchy):
    """Prefetch the predicted routes of the next layers, from before the pass on."""
    needs = batch_needs(batches, predictions.path())
    return ahead(batches, dict.fromkeys(range(1, LOOKAHEAD + 1), needs), hierarchy, before_pass=True)


def order(batches, predictions):
    """Take tokens in the order of the expert that each most likely chooses."""
    likeliest = predictions.route()[batches.rows]
    likeliest[batches.rows == ABSENT] = batches.experts
    return np.argsort(likeliest.swapaxes(1, 2), axis=2, kind="stable")


STRATEGY = Strategy(title="ExpertFlow PLEC", source="arXiv 2410.17954", rank=3, prefetches=plan_prefetches, order=order)
