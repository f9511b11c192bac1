"""Compile the Numba kernels once, at set-up: `python -m prophet_moe.compile_kernels`.

Otherwise every job of the first build would compile them again, for they start together.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from prophet_moe.offload.policies import POLICIES, misses
from prophet_moe.offload.replay import RECORDED, SampleSize, available_strategies, run, samples
from prophet_moe.offload.simulator.simulation import Hierarchy, Times
from prophet_moe.predict import discrimination
from prophet_moe.predict.context import LOOKAHEADS, SOURCES
from prophet_moe.predict.evaluate import evaluate_predictors
from prophet_moe.predict.network import Network
from prophet_moe.routing.distinct import deviation
from prophet_moe.routing.law_fit import fit_laws
from prophet_moe.routing.sequences import without_repetition
from prophet_moe.routing.store import read_trace, write_trace
from prophet_moe.routing.summary import summarise
from prophet_moe.routing.synthetic import Scalars, generate
from prophet_moe.routing.trace import DECODE, Origin, Router, Trace
from prophet_moe.serving import batching
from prophet_moe.serving.arrivals import arrivals_of
from prophet_moe.serving.batching import Limits
from prophet_moe.serving.kernel import Seconds
from prophet_moe.serving.step_times import StepTimes


def main() -> None:
    """Do to a small trace that was read from disk what the build does to others: kernels differ by type of array."""
    sequences, tokens, router = 4, 8, Router("none", 4, 2, (0, 1, 2, 3))
    count = sequences * tokens
    random = np.random.default_rng(0)
    trace = Trace(
        router,
        np.repeat(np.arange(sequences, dtype=np.int32), tokens),
        np.tile(np.arange(tokens, dtype=np.int32), sequences),
        np.full(count, DECODE, np.uint8),
        random.random((count, len(router.layers), 4)).argsort(-1)[..., :2].astype(np.uint16),
        True,
        Origin("random", "none"),
        np.zeros(count, np.int32),
    )
    with TemporaryDirectory() as folder, ProcessPoolExecutor() as pool:
        write_trace(Path(folder), trace)
        for compiled in [
            pool.submit(task, Path(folder)) for task in (_replay, _evaluate, _fit, _describe, _generate, _batch)
        ]:
            compiled.result()


def _replay(folder: Path) -> None:
    trace = read_trace(folder)
    for sample in samples(trace, _network(trace.router), SampleSize(2, 2), (RECORDED,), 1):
        for strategy in available_strategies(sample.predictions).values():
            for deduplicated in (True, False):
                variant = replace(strategy, deduplicated=deduplicated)
                run(sample.parts(2), sample.predictions.training, variant, Hierarchy((2,)), _times(2))


def _evaluate(folder: Path) -> None:
    trace = read_trace(folder)
    evaluate_predictors("none", trace, _network(trace.router))


def _fit(folder: Path) -> None:
    fit_laws("none", without_repetition(read_trace(folder)).described())
    one = np.ones(1)
    deviation(one, 4 * one, one, one, one)


def _describe(folder: Path) -> None:
    trace = read_trace(folder)
    summarise("none", trace)
    for policy in POLICIES:
        misses(policy, trace.experts.ravel(), trace.router.experts, 2)


def _generate(folder: Path) -> None:
    trace = read_trace(folder)
    power = discrimination.measure(trace.described(), _network(trace.router))
    made = generate(Scalars(0.1, 1.0, 0.5, 4.0, 0.5).parameters(trace.router), 2, 8, 0)
    discrimination.transferred(power, discrimination.prior(made), made, 0)


def _batch(_: Path) -> None:
    limits = Limits(capacity=16, sequences=2, tokens=4, longest=16)
    tables = Seconds(np.ones(5), np.ones(3), np.ones((3, 2)), np.ones(2), 1.0, 8.0)
    arrivals = arrivals_of("none", [0.0, 1.0], [8, 8], [2, 2], [[0, 1], [0, 1]], 4)
    batching.serve(arrivals, StepTimes(tables, "none"), limits)


def _times(batch: int) -> Times:
    return Times(np.ones(4), np.ones(batch + 1), (1.0,), 0.25)


def _network(router: Router) -> Network:
    width, before = 2, (len(LOOKAHEADS), len(router.layers))
    shapes = ((SOURCES * router.experts, width), (width,), (width, router.experts), (router.experts,))
    return Network(*(np.zeros((*before, *shape), np.float32) for shape in shapes), trained_on="", learned_from="")


if __name__ == "__main__":
    main()
