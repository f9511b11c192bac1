"""Small arrivals, limits and tables of seconds for tests of serving."""

import numpy as np

from prophet_moe.serving.arrivals import Arrivals, arrivals_of
from prophet_moe.serving.batching import Limits
from prophet_moe.serving.kernel import Seconds
from prophet_moe.serving.step_times import StepTimes


def small_times(limits: Limits) -> StepTimes:
    """Tables of made-up seconds that differ at every batch, context and number of tokens."""
    tokens, batch = np.arange(limits.tokens + 1), np.arange(limits.sequences + 1)
    contexts = np.arange(5)
    tables = Seconds(
        0.01 + 0.001 * np.sqrt(tokens),
        0.002 + 0.0003 * batch,
        0.001 + 0.0007 * batch[:, None] * (1 + contexts[None, :] ** 1.1),
        0.0001 * (1 + contexts),
        0.0011,
        8.0,
    )
    return StepTimes(tables, "made up")


def random_arrivals(seed: int, count: int, block: int = 0, pace: float = 0.05, whole_seconds: bool = False) -> Arrivals:
    """Requests of random times and lengths; some prompts continue earlier ones."""
    random = np.random.default_rng(seed)
    seconds = np.cumsum(random.exponential(pace, count))
    if whole_seconds:
        seconds = np.floor(4 * seconds) / 4
        seconds[-1] += 1
    prompts, outputs = random.integers(1, 30, count), random.integers(1, 20, count)
    blocks: list[list[int]] = []
    for number in range(count):
        begun = blocks[random.integers(number)][: random.integers(5)] if number and random.random() < 0.7 else []
        own = list(begun)[: int(prompts[number]) // max(1, block)]
        own += [100 * number + place for place in range(30 - len(own))]
        blocks.append(own)
    return arrivals_of("random", seconds, prompts, outputs, blocks if block else None, block)
