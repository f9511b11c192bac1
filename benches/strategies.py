"""Speed of whole strategies, with deduplication, prefetches and clock, beside libCacheSim's plain LRU, on one core.

Routed requests per second: choices of all tokens and layers, duplicates of a batch counted. libCacheSim serves the
same choices one by one from a cache of as many experts in all, without a clock. Forecasts are made beforehand, as a
predictor would (benches/predictor.py times it); what is timed: batches to asks, forecasts to wishes, and the replay.
Needs the packages of `make gpu`.

usage: python benches/strategies.py [--trace NAME] [--repeats R]
"""

import argparse
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import libcachesim
import numpy as np
from cachesim import write_stream

from prophet_moe.cachesim.experiments import RECORDED, Sample, run
from prophet_moe.cachesim.forecast import Forecast, Learned
from prophet_moe.cachesim.simulation import Hierarchy, Times
from prophet_moe.cachesim.strategies import strategies
from prophet_moe.predict.context import split
from prophet_moe.predict.network import read_network
from prophet_moe.routing.store import read_trace

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (1, 8, 32)
GOAL = 0.8
"""Times the peer's speed."""


def main() -> None:
    """Print one line per batch size and strategy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", default="small-6x64-top8")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    trace = read_trace(ROOT / "resources/traces" / arguments.trace)
    learned_from, held_out = split(trace)
    tokens = held_out.decoded()
    experts, layers = trace.router.experts, len(trace.router.layers)
    network = read_network(ROOT / "resources/predictors" / arguments.trace)
    sample = Sample(Forecast(Learned(learned_from, network), tokens), 0, RECORDED)
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
        for batch in BATCHES:
            times = Times(np.full(layers, 30e-6), np.array([0.0, *[5e-6] * batch]), (300e-6,), 125e-6)
            for name, strategy in strategies().items():
                whole = replace(strategy, deduplicated=True)

                def ours(whole=whole, times=times, batch=batch) -> None:
                    run(sample.parts(batch), sample.forecast.learned, whole, hierarchy, times)

                ours()
                pairs = [(seconds(ours), seconds(peer)) for _ in range(arguments.repeats)]
                mine = statistics.median(one for one, _ in pairs)
                theirs = statistics.median(two for _, two in pairs)
                ratio = statistics.median(two / one for one, two in pairs)
                speeds = f"{len(ids) / mine / 1e6:7.1f} {len(ids) / theirs / 1e6:16.1f}"
                print(f"{batch:5} {name:>18} {speeds} {ratio:6.2f}x{'' if ratio >= GOAL else '  below the goal'}")


def seconds(call) -> float:
    """CPU seconds of one call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
