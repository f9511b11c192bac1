"""Laws fitted to recorded arrivals: gaps, lengths and shared prefixes, from which arrivals are drawn.

`resources/arrivals/<trace>.json` holds a law with the statistics of what it was fitted to. The recorded arrivals
themselves are third-party data and are not kept.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prophet_moe.serving.arrivals import Arrivals, arrivals_of
from prophet_moe.validation import StrictModel, read_json, validate

Floats = NDArray[np.float64]

FOLDER = Path("resources/arrivals")
DIGITS = 5
"""Significant digits of a fitted number."""
LEAST_GAP = 1e-6
"""Seconds to which shorter gaps are set: logarithms of gaps are needed."""
COMMON = 0.5
"""Share of the requests that begin with a block from which it counts as common to all."""
MINUTE = 60.0
PARENTS = 64
"""Earlier prompts among which one is looked for that is long enough to be continued."""


class Gaps(StrictModel):
    """A law of the gaps between arrivals, by maximum likelihood."""

    law: Literal["exponential", "gamma", "weibull"]
    shape: float = Field(gt=0)
    """1 of an exponential; below 1 gaps vary more than those."""
    log_likelihood: float
    """Per gap, in units of the mean gap."""
    distance: float = Field(ge=0, le=1)
    """Largest distance of its distribution from the recorded one (Kolmogorov-Smirnov)."""


class Lengths(StrictModel):
    """A lognormal law of lengths, cut to what was recorded."""

    mean_log: float
    """Mean of the natural logarithm of the tokens."""
    deviation_log: float = Field(gt=0)
    """Standard deviation of the same."""
    least: int = Field(gt=0)
    """Fewest tokens recorded."""
    most: int = Field(gt=0)
    """Most tokens recorded."""
    mean: float
    """Mean of the tokens recorded."""
    quantiles: list[int]
    """Tokens recorded at 0.5, 0.9 and 0.99."""
    distance: float = Field(ge=0, le=1)
    """Largest distance of its distribution from the recorded one (Kolmogorov-Smirnov)."""


class Prefixes(StrictModel):
    """What prompts share: a beginning common to all, and continued ones, such as those of a conversation."""

    block_tokens: int = Field(gt=0)
    """Tokens of a block."""
    common_blocks: int = Field(ge=0)
    """Blocks that most prompts begin with."""
    continued_share: float = Field(ge=0, le=1)
    """Share of the requests that begin with more of an earlier one."""
    reused_share: float = Field(ge=0, le=1)
    """Of these, the mean share of the prompt's blocks."""
    lag: float = Field(ge=1)
    """Mean number of requests from the one continued to the one that continues it, median over requests."""
    hit_share: float = Field(ge=0, le=1)
    """Share of all blocks that an earlier prompt had, in the same place after the same beginning."""


class ArrivalLaw(StrictModel):
    """A law of arrivals, and what it was fitted to."""

    trace: str
    """Name of the recorded arrivals."""
    dataset: str
    """Dataset of config/datasets.yaml that holds them, with their licence."""
    sha256: str
    """SHA-256 of the file."""
    licence: str
    citation: str
    requests: int = Field(gt=1)
    seconds: float = Field(gt=0)
    """From the first arrival to the last."""
    rate: float = Field(gt=0)
    """Requests per second."""
    gap_variation: float
    """Standard deviation of the gaps over their mean."""
    dispersion_per_minute: float
    """Variance over mean of the arrivals of a minute: 1 of arrivals that know nothing of each other."""
    gaps: list[Gaps] = Field(min_length=1)
    """The likeliest first; arrivals are drawn from that."""
    prompt: Lengths
    output: Lengths
    correlation: float = Field(ge=-1, le=1)
    """Of the logarithms of prompt and output."""
    prefixes: Prefixes | None
    """None where the trace does not tell."""


def read_law(path: Path) -> ArrivalLaw:
    """Read a fitted law; a mistake in the file is a UserError."""
    return validate(ArrivalLaw, read_json(path), str(path), "Fit it again: snakemake --cores 1 record_arrivals")


def fit(arrivals: Arrivals, **source: str) -> ArrivalLaw:
    """Fit a law to recorded arrivals; `source` has dataset, sha256, licence and citation."""
    gaps = np.maximum(np.diff(arrivals.seconds), LEAST_GAP)
    laws = sorted(_gap_laws(gaps), key=lambda law: -law.log_likelihood)
    edges = np.arange(0, arrivals.span, MINUTE)
    per_minute = np.histogram(arrivals.seconds, edges)[0] if len(edges) > 2 else np.ones(2)
    logs = np.log(arrivals.prompts), np.log(arrivals.outputs)
    return ArrivalLaw(
        trace=arrivals.name,
        **source,
        requests=len(arrivals),
        seconds=_rounded(arrivals.span),
        rate=_rounded(arrivals.rate),
        gap_variation=_rounded(float(gaps.std() / gaps.mean())),
        dispersion_per_minute=_rounded(float(per_minute.var() / per_minute.mean())),
        gaps=laws,
        prompt=_lengths(arrivals.prompts),
        output=_lengths(arrivals.outputs),
        correlation=_rounded(float(np.corrcoef(*logs)[0, 1])),
        prefixes=_prefixes(arrivals) if arrivals.block_tokens else None,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _gap_laws(gaps: Floats) -> list[Gaps]:
    from scipy import stats  # slow to import, and only needed to fit

    units, found = gaps / gaps.mean(), []
    for name, law in (("exponential", stats.expon), ("gamma", stats.gamma), ("weibull", stats.weibull_min)):
        parameters = (0.0, 1.0) if name == "exponential" else law.fit(units, floc=0)
        found.append(
            Gaps(
                law=name,
                shape=_rounded(float(parameters[0])) if len(parameters) == 3 else 1.0,
                log_likelihood=_rounded(float(law.logpdf(units, *parameters).mean())),
                distance=_rounded(float(stats.kstest(units, law.cdf, args=parameters).statistic)),
            )
        )
    return found


def _lengths(tokens: NDArray) -> Lengths:
    from scipy import stats

    logs = np.log(tokens)
    mean, deviation = float(logs.mean()), float(logs.std())
    return Lengths(
        mean_log=_rounded(mean),
        deviation_log=_rounded(deviation),
        least=int(tokens.min()),
        most=int(tokens.max()),
        mean=_rounded(float(tokens.mean())),
        quantiles=[int(np.quantile(tokens, share)) for share in (0.5, 0.9, 0.99)],
        distance=_rounded(float(stats.kstest(logs, "norm", args=(mean, deviation)).statistic)),
    )


def _prefixes(arrivals: Arrivals) -> Prefixes:
    own = [arrivals.blocks[begin:end] for begin, end in zip(arrivals.starts, arrivals.starts[1:], strict=False)]
    common = 0
    while True:
        firsts = [int(each[common]) for each in own if len(each) > common]
        if not firsts or max(np.bincount(firsts)) < COMMON * len(own):
            break
        common += 1
    last: dict[int, int] = {}
    hits, continued, shares, lags = 0, 0, [], []
    for number, each in enumerate(own):
        found = 0
        while found < len(each) and int(each[found]) in last:
            found += 1
        hits += found
        if found > common:
            continued += 1
            shares.append(found / len(each))
            lags.append(number - last[int(each[found - 1])])
        last.update((int(block), number) for block in each)
    return Prefixes(
        block_tokens=arrivals.block_tokens,
        common_blocks=common,
        continued_share=_rounded(continued / len(own)),
        reused_share=_rounded(float(np.mean(shares))) if shares else 0.0,
        lag=float(np.median(lags)) if lags else 1.0,
        hit_share=_rounded(hits / max(1, len(arrivals.blocks))),
    )


def draw(law: ArrivalLaw, seconds: float, seed: int, rate: float | None = None) -> Arrivals:
    """Draw arrivals of a law.

    Parameters
    ----------
    law : ArrivalLaw
        What arrivals are drawn from.
    seconds : float
        Time that they span.
    seed : int
        Seed of all draws.
    rate : float, optional
        Requests per second; that of the law where none is given. Gaps keep their shape.

    Returns
    -------
    Arrivals
        Requests whose gaps are independent, and whose lengths are those of a lognormal pair, cut to what was recorded.
    """
    random = np.random.default_rng(seed)
    mean = 1 / (law.rate if rate is None else rate)
    count = max(2, round(seconds / mean))
    when = np.cumsum(_gaps(law.gaps[0], count, random)) * mean
    one, other = random.standard_normal((2, count))
    joint = law.correlation * one + np.sqrt(1 - law.correlation**2) * other
    prompts, outputs = _cut(law.prompt, one), _cut(law.output, joint)
    if law.prefixes is None:
        return arrivals_of(law.trace, when, prompts, outputs)
    return arrivals_of(
        law.trace, when, prompts, outputs, _blocks(law.prefixes, prompts, random), law.prefixes.block_tokens
    )


def _gaps(law: Gaps, count: int, random: np.random.Generator) -> Floats:
    """Return gaps of mean 1 in expectation."""
    if law.law == "weibull":
        from math import gamma

        return random.weibull(law.shape, count) / gamma(1 + 1 / law.shape)
    return random.gamma(law.shape, 1 / law.shape, count)


def _cut(law: Lengths, normal: Floats) -> NDArray[np.int64]:
    drawn = np.exp(law.mean_log + law.deviation_log * normal)
    return np.clip(np.rint(drawn), law.least, law.most).astype(np.int64)


def _blocks(law: Prefixes, prompts: NDArray, random: np.random.Generator) -> list[list[int]]:
    """Return the blocks of every prompt: common ones or those of an earlier prompt, then new ones."""
    made: list[list[int]] = []
    common, new = list(range(law.common_blocks)), law.common_blocks
    continues, lags = random.random(len(prompts)) < law.continued_share, random.geometric(1 / law.lag, len(prompts))
    for number, prompt in enumerate(prompts):
        full, begun = int(prompt) // law.block_tokens, common
        if continues[number] and number:
            wanted = max(law.common_blocks, round(law.reused_share * full))
            begun = _parent(made, number - min(int(lags[number]), number), wanted)[:wanted]
        own = begun[:full]
        fresh = full - len(own)
        made.append(own + list(range(new, new + fresh)))
        new += fresh
    return made


def _parent(made: list[list[int]], place: int, wanted: int) -> list[int]:
    """Return the nearest prompt up to a place that has the wanted number of blocks, else the longest of PARENTS."""
    near = made[max(0, place + 1 - PARENTS) : place + 1]
    return next((each for each in reversed(near) if len(each) >= wanted), max(near, key=len))
