"""Speed of whole strategies, with deduplication, prefetches and clock, beside libCacheSim's plain LRU, on one core.

Routed requests per second: choices of all tokens and layers, duplicates of a batch counted. libCacheSim serves the
same choices one by one from a cache of as many experts in all, without a clock. Forecasts are made beforehand, as a
predictor would (benches/predictor.py times it). What is timed: batches to accesses, predictions to prefetch plans, and
the replay.
Needs the packages of `make gpu`.

usage: python benches/strategies.py [--trace NAME] [--repeats R]
"""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import libcachesim
import numpy as np
from policies import write_stream

from prophet_moe.offload.replay import RECORDED, Sample, run
from prophet_moe.offload.simulator.predictions import Predictions, TrainingStatistics
from prophet_moe.offload.simulator.simulation import Hierarchy, Times
from prophet_moe.offload.strategies import strategies
from prophet_moe.predict.context import split
from prophet_moe.predict.network import read_network
from prophet_moe.routing.store import read_trace
from studies.comparison.study import ComparisonSettings

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.8
"""Times the peer's speed."""


def main() -> None:
    """Print one line per batch size and strategy, and one per strategy for all batch sizes of the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", default="small-6x64-top8")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    trace = read_trace(ROOT / "resources/traces" / arguments.trace)
    learned_from, held_out = split(trace)
    tokens = held_out.described()
    experts, layers = trace.router.experts, len(trace.router.layers)
    network = read_network(ROOT / "resources/predictors" / arguments.trace)
    sample = Sample(Predictions(TrainingStatistics(learned_from, network), tokens), 0, RECORDED)
    hierarchy = Hierarchy((experts // 2,))

    ids = (tokens.experts + np.arange(layers)[None, :, None] * experts).ravel().astype(np.uint16)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "stream.oracleGeneral"
        write_stream(path, ids, layers * experts)

        def peer() -> None:
            reader = libcachesim.TraceReader(str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE)
            libcachesim.LRU(layers * experts // 2, hashpower=(layers * experts).bit_length() + 1).process_trace(reader)

        print(f"{arguments.trace}: {len(ids):,} routed requests, half of the experts fit; medians of pairs")
        print(f"{'batch':>5} {'strategy':>18} {'M/s':>7} {'libCacheSim LRU':>16} {'ratio':>7}")
        spent = {name: np.zeros((arguments.repeats, 2)) for name in strategies()}
        for batch in ComparisonSettings().batch_sizes:
            times = Times(np.full(layers, 30e-6), np.array([0.0, *[5e-6] * batch]), (300e-6,), 125e-6)
            for name, strategy in strategies().items():
                whole = replace(strategy, deduplicated=True)

                def ours(whole=whole, times=times, batch=batch) -> None:
                    run(sample.parts(batch), sample.predictions.training, whole, hierarchy, times)

                ours()
                pairs = np.array([(seconds(ours), seconds(peer)) for _ in range(arguments.repeats)])
                spent[name] += pairs
                report(str(batch), name, len(ids), pairs)
        for name, pairs in spent.items():
            report("all", name, len(ids) * len(ComparisonSettings().batch_sizes), pairs)


def report(batch: str, name: str, requests: int, pairs: np.ndarray) -> None:
    """Print a line of medians, for pairs (R, 2) of seconds: ours, and the peer's."""
    speeds = requests / np.median(pairs, axis=0) / 1e6
    ratio = np.median(pairs[:, 1] / pairs[:, 0])
    verdict = "" if ratio >= GOAL else "  below the goal"
    print(f"{batch:>5} {name:>18} {speeds[0]:7.1f} {speeds[1]:16.1f} {ratio:6.2f}x{verdict}")


def seconds(call) -> float:
    """CPU seconds of one call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
