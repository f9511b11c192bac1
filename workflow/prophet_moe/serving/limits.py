"""What one instance of a model holds and takes up in a step, by the budget of a serving engine."""

import math

from prophet_moe import params
from prophet_moe.capacity.engine import Serving, engine_budget, sharded
from prophet_moe.errors import UserError
from prophet_moe.params.cache import state_bytes_per_sequence
from prophet_moe.serving.batching import Limits


def limits_of(asked: Serving, pool_bytes: float | None = None) -> Limits:
    """Return the limits of an instance on the GPU of `asked`, with every expert resident or with a given KV pool.

    The KV pool counts in tokens of the layers that keep all of them; what a sequence keeps beside, in windows and
    states, counts as tokens of overhead: full windows, without the tokens of a step that a prompt has beside. A model
    that leaves no room for a cache is a UserError.
    """
    budget, here = engine_budget(asked), sharded(asked)
    per_token = budget.kv_bytes_per_token
    pool = budget.pool_bytes if pool_bytes is None else pool_bytes
    capacity = math.floor(pool / per_token) if pool > 0 else 0
    if capacity < 1:
        raise UserError(f"{asked.engine.name} on {asked.gpu}", budget.why, "Name a larger GPU or a smaller format.")
    bounded = params.bounded_bytes(params.caches(here, asked.precision)) + state_bytes_per_sequence(
        here, asked.precision
    )
    return Limits(
        capacity=capacity,
        sequences=asked.most_sequences,
        tokens=asked.most_tokens,
        longest=asked.context or asked.arch.native_context,
        overhead=math.ceil(bounded / per_token),
    )
